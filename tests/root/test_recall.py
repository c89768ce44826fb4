"""Competitors in a matrix against the block-wise count of the evaluation and against sorting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.editing.choosing import recall_sum
from boresight.embeddings import Embeddings
from boresight.evaluation import evaluate_retrieval
from boresight.evaluation.ranking import count_competitors
from boresight.evaluation.retrieval import PlainScorer
from boresight.recall import count_image_to_text, count_text_to_image


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), images=st.integers(2, 9), captions=st.integers(1, 12))
def test_a_matrix_is_counted_as_its_blocks_are(seed, images, captions):
    # Few distinct directions: ties within and across images are the rule.
    draw = np.random.default_rng(seed)
    directions = np.eye(4, dtype=np.float32) + 0.5
    rows, texts = directions[draw.integers(4, size=images)], directions[draw.integers(4, size=captions)]
    owners = draw.integers(images, size=captions)
    embeddings = Embeddings.from_arrays(rows, texts, owners)
    expected = count_competitors(embeddings, PlainScorer(), block_images=3, block_texts=2)
    unit = [torch.nn.functional.normalize(torch.from_numpy(part), dim=1) for part in (rows, texts)]
    scores = unit[0] @ unit[1].T
    for found, wanted in (
        (count_text_to_image(scores, embeddings.owners), expected.t2i),
        (count_image_to_text(scores, embeddings.owners), expected.i2t),
    ):
        asked = wanted.asked
        assert (found.asked == asked).all()
        for part in ("greater", "tied", "answers"):
            assert (getattr(found, part)[asked] == getattr(wanted, part)[asked]).all(), part
    # What an editor is chosen by is what is reported.
    assert recall_sum(scores, embeddings.owners) == pytest.approx(evaluate_retrieval(embeddings).recall_sum, abs=1e-3)


def test_a_tie_is_shared_out():
    same = torch.zeros(5, 2)
    assert count_text_to_image(same, torch.tensor([0, 4])).rank().tolist() == [3.0, 3.0]
    assert count_text_to_image(same, torch.tensor([0, 4])).recall(1).tolist() == pytest.approx([0.2, 0.2])


def test_scores_that_are_not_finite_are_worth_nothing():
    assert recall_sum(torch.full((50, 50), torch.nan), torch.arange(50)) == 0
