"""Retrieval measures against slow obvious references."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation import chance, evaluate_retrieval
from boresight.evaluation.verdict import warn_of_missing
from dot_scorer import DotScorer, with_scores

DEPTHS = (1, 5, 10)


def by_enumeration(scores, owners):
    """All measures by sorting under every order of the ties, averaged; for tiny galleries."""

    def first_hit_positions(values, right):
        positions = []
        for order in itertools.permutations(range(len(values))):
            ranked = sorted(range(len(values)), key=lambda i: (-values[i], order[i]))
            positions.append(1 + min(place for place, i in enumerate(ranked) if right[i]))
        return np.array(positions, float)

    scores, owners = np.asarray(scores, float), np.asarray(owners)
    n, m = scores.shape
    t2i = [first_hit_positions(scores[:, j], np.arange(n) == owners[j]) for j in range(m)]
    i2t = [first_hit_positions(scores[i], owners == i) for i in range(n) if (owners == i).any()]

    def measures(queries):
        values = {f"R@{k}": 100 * np.mean([(p <= k).mean() for p in queries]) for k in DEPTHS}
        return values | {
            "median rank": np.median([p.mean() for p in queries]),
            "MRR": np.mean([(1 / p).mean() for p in queries]),
        }

    sides = {"T2I": measures(t2i), "I2T": measures(i2t)}
    return {f"{side} {name}": value for side, values in sides.items() for name, value in values.items()}


def assert_same(found, expected, **kwargs):
    found, expected = ({name: value for name, value in of.items() if name != "kinds"} for of in (found, expected))
    assert found == pytest.approx(expected, **kwargs)


@st.composite
def tied_scores(draw, n=4, m=5, levels=3):
    n, m = draw(st.integers(1, n)), draw(st.integers(1, m))
    scores = draw(st.lists(st.lists(st.integers(1, levels), min_size=m, max_size=m), min_size=n, max_size=n))
    return np.array(scores), draw(st.lists(st.integers(0, n - 1), min_size=m, max_size=m))


@settings(max_examples=40, deadline=None)
@given(tied_scores(), st.integers(1, 4), st.integers(1, 4))
def test_measures_equal_the_average_over_every_order_of_the_ties(case, block_images, block_texts):
    scores, owners = case
    found = evaluate_retrieval(
        with_scores(scores, owners), DotScorer(), block_images=block_images, block_texts=block_texts
    )
    assert_same(found.to_dict(), by_enumeration(scores, owners))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_kinds_are_the_measures_of_the_captions_of_a_kind(seed):
    draw = np.random.default_rng(seed)
    scores = draw.integers(1, 5, (4, 9))
    owners, kinds = draw.integers(0, 4, 9), draw.choice(["short", "long"], 9)
    whole = evaluate_retrieval(with_scores(scores, owners), DotScorer(), kinds=list(kinds), block_texts=2)
    assert_same(whole.to_dict(), evaluate_retrieval(with_scores(scores, owners), DotScorer()).to_dict())
    assert set(whole.kinds) == set(kinds)
    for kind, part in whole.kinds.items():
        alone = evaluate_retrieval(with_scores(scores[:, kinds == kind], owners[kinds == kind]), DotScorer())
        assert_same(part.to_dict(), alone.to_dict())
        assert part.counts == alone.counts
        np.testing.assert_array_equal(part.i2t_ranks, alone.i2t_ranks)


def test_agrees_with_binarised_recall_of_a_dense_matrix():
    """The convention of published numbers: top-k of the dense matrix, a query counts once if it has any hit."""
    draw = np.random.default_rng(1)
    n, captions = 60, 5 + (np.arange(60) % 3 == 0)
    owners = np.repeat(np.arange(n), captions)
    scores = torch.from_numpy(draw.normal(size=(n, len(owners)))).float()
    scores[owners, torch.arange(len(owners))] += 1.0
    found = evaluate_retrieval(with_scores(scores, owners), DotScorer(), block_images=7, block_texts=13).to_dict()

    positive = torch.zeros(n, len(owners), dtype=torch.bool)
    positive[owners, torch.arange(len(owners))] = True
    for direction, matrix, right in (("T2I", scores.T, positive.T), ("I2T", scores, positive)):
        for k in DEPTHS:
            hits = right.gather(1, matrix.topk(k, dim=1).indices).sum(1)
            assert found[f"{direction} R@{k}"] == pytest.approx(100 * (hits > 0).float().mean().item(), abs=1e-4)


def sample(n=50, m=170, d=16, seed=0, **more) -> Embeddings:
    draw = np.random.default_rng(seed)
    owners = draw.integers(0, n, m)
    images = draw.normal(size=(n, d)).astype(np.float32)
    texts = images[owners] + draw.normal(size=(m, d)).astype(np.float32)
    return Embeddings.from_arrays(images, texts, owners, **more)


def test_plain_is_the_cosine():
    embeddings = sample()
    cosine = torch.nn.functional.normalize(embeddings.images) @ torch.nn.functional.normalize(embeddings.texts).T
    expected = evaluate_retrieval(with_scores(cosine, embeddings.owners), DotScorer())
    assert_same(evaluate_retrieval(embeddings).to_dict(), expected.to_dict())


def test_block_sizes_do_not_matter():
    embeddings, kinds = sample(), [f"kind {j % 3}" for j in range(170)]
    expected = evaluate_retrieval(embeddings, kinds=kinds)
    for block_images, block_texts in ((1, 170), (7, 11), (50, 1), (49, 169)):
        found = evaluate_retrieval(embeddings, kinds=kinds, block_images=block_images, block_texts=block_texts)
        assert found == expected
        np.testing.assert_array_equal(found.t2i_ranks, expected.t2i_ranks)
        np.testing.assert_array_equal(found.i2t_ranks, expected.i2t_ranks)


def test_order_of_images_and_captions_does_not_matter():
    embeddings = sample()
    expected = evaluate_retrieval(embeddings)
    draw = np.random.default_rng(2)
    rows, columns = draw.permutation(50), draw.permutation(170)
    place = np.argsort(rows)
    moved = Embeddings.from_arrays(
        embeddings.images[rows], embeddings.texts[columns], place[embeddings.owners.numpy()[columns]]
    )
    found = evaluate_retrieval(moved, block_images=13, block_texts=17)
    assert_same(found.to_dict(), expected.to_dict(), rel=1e-12)
    np.testing.assert_array_equal(found.t2i_ranks, expected.t2i_ranks[columns])
    np.testing.assert_array_equal(found.i2t_ranks, expected.i2t_ranks[rows])


def test_a_constant_scorer_gets_exactly_chance():
    owners = np.repeat(np.arange(12), [1, 2, 3, 4, 5, 6, 7, 0, 1, 1, 2, 8])
    m = len(owners)
    embeddings, kinds = with_scores(np.ones((12, m)), owners), ["a" if j % 4 else "b" for j in range(m)]
    found = evaluate_retrieval(embeddings, DotScorer(), kinds=kinds).to_dict()
    for k in DEPTHS:
        assert found[f"T2I R@{k}"] == pytest.approx(100 * k / 12)
        own = [int((owners == i).sum()) for i in range(12) if i != 7]
        expected = [1 - math.comb(m - c, k) / math.comb(m, k) for c in own]
        assert found[f"I2T R@{k}"] == pytest.approx(100 * np.mean(expected))
    assert_same(found, chance(embeddings).to_dict())
    by_chance = chance(embeddings, kinds).to_dict()
    for kind in ("a", "b"):
        assert_same(found["kinds"][kind], by_chance["kinds"][kind])


def test_rounding_within_the_tolerance_is_a_tie():
    scores = np.full((3, 3), 0.5, np.float32)
    scores[0, 1:] += 4e-7
    found = evaluate_retrieval(with_scores(scores, [0, 1, 2]), DotScorer())
    assert found["T2I R@1"] == pytest.approx(100 / 3)
    scores[0, 1:] += 4e-6
    found = evaluate_retrieval(with_scores(scores, [0, 1, 2]), DotScorer())
    assert found["T2I R@1"] == pytest.approx(100 / 9)


def test_images_without_captions_are_distractors_but_no_queries():
    scores = np.array([[1, 5], [3, 3], [2, 9]])
    found = evaluate_retrieval(with_scores(scores, [1, 1]), DotScorer())
    assert found["T2I R@1"] == 50
    assert (np.isfinite(found.i2t_ranks).sum(), found["I2T R@1"]) == (1, 100)
    assert np.isnan(found.i2t_ranks[[0, 2]]).all()
    assert found.i2t_ranks[1] == 1
    np.testing.assert_array_equal(found.t2i_ranks, [1, 3])


def test_no_large_matrix_is_ever_made():
    largest = []

    class Recorder(DotScorer):
        def prepare_images(self, images):
            largest.append(images.numel())
            return super().prepare_images(images)

        def prepare_texts(self, texts):
            largest.append(texts.numel())
            return super().prepare_texts(texts)

        def score_prepared(self, images, texts):
            largest.append(len(images) * len(texts))
            return super().score_prepared(images, texts)

    embeddings = sample(n=300, m=900, d=8)
    evaluate_retrieval(embeddings, Recorder(), block_images=32, block_texts=64)
    assert max(largest) == 32 * 64


def test_the_result_speaks():
    result = evaluate_retrieval(sample(name="holiday"), kinds=["short"] * 100 + ["long"] * 70)
    assert result.recall_sum == pytest.approx(
        sum(result.to_dict()[f"{d} R@{k}"] for d in ("T2I", "I2T") for k in DEPTHS)
    )
    text = str(result)
    assert text.startswith("holiday: 50 images, 170 captions")
    assert "caption to image (T2I), long" in text
    assert f"{result['T2I R@1']:.2f}" in text
    assert result.t2i_ranks.dtype == np.float32
    assert result.t2i_ranks.shape == (170,)


def test_what_was_left_out_stands_beside_the_figures():
    whole, entry = sample(name="holiday"), {"what": "unreadable picture", "count": 6, "split": "all"}
    missing = replace(whole, manifest={**whole.manifest, "left_out": [entry]})
    result = evaluate_retrieval(missing)
    assert str(result).startswith("holiday: 50 images, 170 captions; left out: 6 x unreadable picture\n")
    assert str(evaluate_retrieval(whole)).startswith("holiday: 50 images, 170 captions\n")
    assert warn_of_missing([whole]) == []
    assert warn_of_missing([missing, missing, whole]) == [
        "The test set is not whole; left out: 6 x unreadable picture."
    ]


def test_a_score_that_is_not_finite_is_named():
    class Broken(DotScorer):
        def score_prepared(self, images, texts):
            scores = super().score_prepared(images, texts)
            return scores.masked_fill_(scores == 7, torch.nan)

    scores = np.ones((5, 6))
    scores[3, 4] = 7
    embeddings = with_scores(scores, [0, 1, 2, 3, 4, 0], ids=["a", "b", "c", "harbour", "e"])
    with pytest.raises(InputError, match=r"caption 4 and image 3 \('harbour'\) is not a finite number"):
        evaluate_retrieval(embeddings, Broken(), block_images=2, block_texts=3)


def test_unusable_input_is_refused_in_a_sentence():
    embeddings = sample()
    with pytest.raises(InputError, match="kinds has 3 entries and there are 170 captions"):
        evaluate_retrieval(embeddings, kinds=["a", "b", "c"])
    with pytest.raises(InputError, match="must be at least 1"):
        evaluate_retrieval(embeddings, block_images=0)
    bare = Embeddings.from_arrays(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), [0, 0, 0]).select([1, 2])
    with pytest.raises(InputError, match="2 images and 0 captions; retrieval needs at least one of each"):
        evaluate_retrieval(bare)
