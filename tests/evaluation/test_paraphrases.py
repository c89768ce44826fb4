"""The text-only task against a slow reference."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.errors import InputError
from boresight.evaluation.contrasts import Contrasts
from boresight.evaluation.paraphrases import evaluate_paraphrases
from contrast_world import TableEncoder, item

vectors = st.lists(st.sampled_from([-1.0, 0.0, 1.0, 2.0]), min_size=3, max_size=3).filter(any)
orders = st.permutations(range(5))


def cosine(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True)) / math.hypot(*left) / math.hypot(*right)


@given(st.lists(vectors, min_size=5, max_size=5), st.lists(orders, min_size=1, max_size=6), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_paraphrases_against_the_reference(texts, drawn, batch_size: int) -> None:
    """Three or four captions, of which any two are true."""
    true = ((0, 1), (1, 2), (2, 0), (0, 2))
    items = [item(0, order[: 3 + row % 2], true[row % 4], "ab"[row % 2]) for row, order in enumerate(drawn)]
    encoder = TableEncoder(torch.eye(3)[:1], torch.tensor(texts))
    scores = evaluate_paraphrases(encoder, Contrasts(items, "drawn"), batch_size=batch_size)
    right: dict[str, list[bool]] = {}
    for one in items:
        rows = [texts[int(caption)] for caption in one.captions]
        first, second = (rows[number] for number in one.true)
        false = [row for number, row in enumerate(rows) if number not in one.true]
        others = [cosine(true, row) for true in (first, second) for row in false]
        right.setdefault(one.group, []).append(cosine(first, second) > max(others) + 1e-6)
    assert scores.groups == pytest.approx({group: 100 * sum(hits) / len(hits) for group, hits in right.items()})
    assert scores["micro accuracy"] == pytest.approx(100 * sum(map(sum, right.values())) / len(items))
    assert sorted(encoder.texts) == sorted(set(encoder.texts))  # each once
    assert encoder.images == []


def test_by_hand() -> None:
    """Two right captions of the same words are always right, and one that reads like the false one is not."""
    encoder = TableEncoder(torch.eye(2), torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]))
    cases = {(0, 1, 2): 100.0, (0, 2, 1): 0.0, (0, 0, 1): 100.0, (0, 1, 0): 0.0, (1, 1, 1): 0.0}
    for captions, accuracy in cases.items():
        scores = evaluate_paraphrases(encoder, Contrasts([item(0, captions, (0, 1))]))
        assert (scores["macro accuracy"], scores.counts["items"]) == (accuracy, 1)
        assert scores.chance["micro accuracy"] == pytest.approx(100 / 3)


def test_bad_items() -> None:
    encoder = TableEncoder(torch.eye(2), torch.eye(2))
    with pytest.raises(InputError, match="There are no items in mine"):
        evaluate_paraphrases(encoder, Contrasts([], "mine"))
    with pytest.raises(InputError, match="'p0' of mine has 1 true captions; two are needed"):
        evaluate_paraphrases(encoder, Contrasts([item(0, (0, 1))], "mine"))
    for true in ((), (0, 0), (0, 1, 2), (3,), -1):
        with pytest.raises(InputError, match="give it at least two, and the number of one of them, or of some"):
            item(0, (0, 1, 1), true)
