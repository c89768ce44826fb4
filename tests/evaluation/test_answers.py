"""Measures of many right answers against rankings that are written out, tie by tie."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from statistics import fmean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings
from boresight.errors import ArtefactError, InputError
from boresight.evaluation.answers import evaluate_answers
from boresight.evaluation.retrieval import RECALLS, evaluate_retrieval
from dot_scorer import DotScorer, with_scores
from retrieval_world import noisy
from tiny_editor import TINY_EDITOR


def of_ranking(ranking: Sequence[int], right: set[int], size: int) -> dict[str, float]:
    """The measures of one ranking, as the papers word them."""
    hits = [answer in right for answer in ranking]
    precision = [sum(hits[: place + 1]) / (place + 1) for place in range(len(hits))]
    return {
        **{f"R@{k}": float(any(hits[:k])) for k in (1, 5, 10)},
        "R-Precision": sum(hits[:size]) / size,
        "mAP@R": sum(p for hit, p in zip(hits[:size], precision[:size], strict=True) if hit) / size,
    }


def expected(scores: Sequence[float], right: set[int], size: int) -> dict[str, float]:
    """Their means over all rankings that the scores allow."""
    allowed = {tuple(sorted(order, key=lambda answer: -scores[answer])) for order in permutations(range(len(scores)))}
    each = [of_ranking(ranking, right, size) for ranking in allowed]
    return {name: fmean(one[name] for one in each) for name in each[0]}


@st.composite
def worlds(draw):
    images, captions = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    row = st.lists(st.sampled_from([-0.5, 0.25, 0.5]), min_size=captions, max_size=captions)
    scores = draw(st.lists(row, min_size=images, max_size=images))

    def answers(queries: int, gallery: int):
        rows = st.lists(st.integers(0, gallery - 1), min_size=1, max_size=gallery, unique=True)
        absent = st.integers(0, 2).map(lambda count: [-1] * count)
        some = st.tuples(rows, absent).map(lambda both: both[0] + both[1]) | st.just([-1])
        return st.dictionaries(st.integers(0, queries - 1), some, min_size=1)

    return scores, draw(answers(captions, images)), draw(answers(images, captions)), draw(st.integers(1, 3))


@given(worlds())
@settings(max_examples=150, deadline=None)
def test_against_every_allowed_ranking(world) -> None:
    scores, t2i, i2t, block = world
    embeddings = with_scores(scores, [0] * len(scores[0]))
    found = evaluate_answers(embeddings, t2i, i2t, DotScorer(), block_images=block, block_texts=4 - block)
    columns = [list(column) for column in zip(*scores, strict=True)]
    for direction, rows_of, answers in (("T2I", columns, t2i), ("I2T", scores, i2t)):
        each = [expected(rows_of[query], {*rows} - {-1}, len(rows)) for query, rows in answers.items()]
        for name in each[0]:
            assert found[f"{direction} {name}"] == pytest.approx(100 * fmean(one[name] for one in each), abs=1e-4)


def test_one_right_answer_is_plain_retrieval() -> None:
    """Of the owner alone recalls are `evaluate_retrieval`'s, and the other two measures are R@1."""
    embeddings = noisy(60, 1.0)
    t2i = {row: [owner] for row, owner in enumerate(embeddings.owners.tolist())}
    i2t = {image: [row for row, (owner,) in t2i.items() if owner == image] for image in range(60)}
    found = evaluate_answers(embeddings, t2i, i2t, block_images=16, block_texts=7)
    usual = evaluate_retrieval(embeddings)
    assert {name: found[name] for name in RECALLS} == pytest.approx({name: usual[name] for name in RECALLS})
    assert found["T2I mAP@R"] == found["T2I R-Precision"] == pytest.approx(usual["T2I R@1"])
    assert found.counts == {"captions asked": 120, "images asked": 60}


def test_a_score_that_knows_nothing_gets_chance() -> None:
    """1,000 tied answers, of which 10 are right: a hundredth of the first ten places is."""
    embeddings = with_scores([[0.5] * 1000], [0] * 1000)
    found = evaluate_answers(embeddings, {0: [0]}, {0: list(range(10))}, DotScorer())
    assert found["I2T R-Precision"] == pytest.approx(1.0)
    assert found["I2T R@1"] == pytest.approx(1.0)
    assert found["T2I mAP@R"] == 100


def test_what_cannot_be_asked() -> None:
    embeddings, some = noisy(3, 1.0), {0: [0]}
    for t2i, i2t, said in (
        ({}, some, "t2i names no query"),
        (some, {0: []}, "i2t gives query 0 no answer, or one twice"),
        (some, {0: [1, 1]}, "i2t gives query 0 no answer, or one twice"),
        ({6: [0]}, some, r"t2i says that \[0\] answer 6; there are 6 queries and 3 answers"),
        (some, {2: [6]}, r"i2t says that \[6\] answer 2; there are 3 queries and 6 answers"),
        ({-1: [0]}, some, "t2i says that"),
    ):
        with pytest.raises(InputError, match=said):
            evaluate_answers(embeddings, t2i, i2t)
    with pytest.raises(ArtefactError, match="wide"):
        evaluate_answers(embeddings, some, some, CaptionEditor.load(TINY_EDITOR))
    broken = Embeddings(**{**vars(embeddings), "texts": embeddings.texts * torch.nan})
    with pytest.raises(InputError, match="not a finite number"):
        evaluate_answers(broken, some, some)
