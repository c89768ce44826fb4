"""Recall as CLIP_benchmark defines it, and so nearly every published table, is what `evaluate_retrieval` gives.

The definition, written here from its description: a matrix of scores, captions by images, and one of positives. The
recall of a query is the share of its positives among its first k; it is then counted as 1 where it is above 0, and
averaged over all queries. 'image_retrieval' asks with captions (T2I), 'text_retrieval' with images (I2T).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.embeddings import Embeddings
from boresight.evaluation import evaluate_retrieval
from dot_scorer import DotScorer, with_scores

DEPTHS = (1, 5, 10)


def recall(scores: np.ndarray, positives: np.ndarray, k: int) -> np.ndarray:
    """(queries,) share of each query's positives among its first k; scores and positives are (queries, gallery)."""
    shares = []
    for row, right in zip(scores, positives, strict=True):
        first = sorted(range(len(row)), key=lambda place: row[place], reverse=True)[:k]
        shares.append(sum(bool(right[place]) for place in first) / right.sum())
    return np.array(shares)


def clip_benchmark(scores: np.ndarray, owners: np.ndarray) -> dict[str, float]:
    """`scores` are (captions, images), `owners` (captions,)."""
    positives = np.zeros(scores.shape, bool)
    positives[np.arange(len(owners)), owners] = True
    metrics = {}
    for k in DEPTHS:
        metrics[f"image_retrieval_recall@{k}"] = float((recall(scores, positives, k) > 0).mean())
        metrics[f"text_retrieval_recall@{k}"] = float((recall(scores.T, positives.T, k) > 0).mean())
    return metrics


def assert_agree(embeddings: Embeddings, scorer: DotScorer | None, scores: np.ndarray) -> None:
    reference = clip_benchmark(scores, embeddings.owners.numpy())
    ours = evaluate_retrieval(embeddings, scorer, block_images=7, block_texts=5)
    for k in DEPTHS:
        assert ours[f"T2I R@{k}"] == pytest.approx(100 * reference[f"image_retrieval_recall@{k}"], abs=1e-6)
        assert ours[f"I2T R@{k}"] == pytest.approx(100 * reference[f"text_retrieval_recall@{k}"], abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=10, max_size=16), st.integers(0, 2**31), st.sampled_from([0.0, 0.3]))
def test_the_same_on_scores_without_ties(captions: list[int], seed: int, lift: float) -> None:
    random = np.random.default_rng(seed)
    owners = random.permutation(np.repeat(np.arange(len(captions)), captions))
    shape = (len(owners), len(captions))
    # All values apart by more than the width of a tie; the right pairs raised, so that not all recalls are low.
    scores = random.permutation(np.prod(shape)).reshape(shape) / np.prod(shape)
    scores[np.arange(len(owners)), owners] += lift
    order = np.argsort(np.argsort(scores, axis=None, kind="stable"), kind="stable")
    scores = order.reshape(shape) / np.prod(shape)
    assert_agree(with_scores(scores.T, owners.tolist()), DotScorer(), scores)


def test_the_same_on_cosines_of_ragged_captions() -> None:
    torch.manual_seed(0)
    owners = torch.arange(60).repeat_interleave(torch.tensor([5, 5, 5, 6, 5, 7] * 10))
    images = torch.nn.functional.normalize(torch.randn(60, 24), dim=1)
    texts = torch.nn.functional.normalize(images[owners] + 0.35 * torch.randn(len(owners), 24), dim=1)
    embeddings = Embeddings.from_arrays(images, texts, owners)
    scores = (texts @ images.T).numpy()
    reference = clip_benchmark(scores, owners.numpy())
    assert 0.2 < reference["image_retrieval_recall@1"] < reference["text_retrieval_recall@1"] < 1  # not all the same
    assert_agree(embeddings, None, scores)


def test_any_caption_is_enough_and_directions_are_not_swapped() -> None:
    # Image 0 finds one of its three captions first; captions 1 and 2 prefer image 1.
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])
    metrics = clip_benchmark(scores, np.array([0, 0, 0, 1]))
    assert metrics["image_retrieval_recall@1"] == 0.5
    assert metrics["text_retrieval_recall@1"] == 0.5  # image 1 puts caption 1 first
    ours = evaluate_retrieval(with_scores(scores.T, [0, 0, 0, 1]), DotScorer())
    assert (ours["T2I R@1"], ours["I2T R@1"]) == (50.0, 50.0)
    scores[3, 1] = 0.95
    ours = evaluate_retrieval(with_scores(scores.T, [0, 0, 0, 1]), DotScorer())
    assert (ours["T2I R@1"], ours["I2T R@1"]) == (50.0, 100.0)
