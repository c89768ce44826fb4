"""The scan finds what the plain formula finds, however the rows are stored, split, masked and shared by threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.errors import InputError
from boresight.search import scan_kernels
from boresight.search.scan import Columns, LinearQueries, Rows, counts_above, reference_scores, scores_at, top_k

SIZES, LOOPS = (scan_kernels.PRODUCT_ROWS, scan_kernels.LOOP_ROWS), scan_kernels.loops
WIDTH, LATENTS, SLOTS = 6, 11, 3


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
    use(*SIZES, True)


def use(product_rows: int, loop_rows: int, compiled: bool) -> None:
    """Blocks of so many rows, and compiled loops or not."""
    scan_kernels.PRODUCT_ROWS, scan_kernels.LOOP_ROWS = product_rows, loop_rows
    scan_kernels.loops = LOOPS if compiled else None


def segment(draw: np.random.Generator, size: int, n_values: int, wide: bool, coarse: bool) -> Rows:
    """Random rows; coarse ones hold few different numbers, whose sums are exact and often tie."""
    floats = np.float32 if wide else np.float16

    def numbers(*shape: int) -> np.ndarray:
        return (draw.integers(-1, 2, shape) if coarse else draw.standard_normal(shape)).astype(floats)

    indices = draw.integers(0, LATENTS, (size, SLOTS)).astype(np.int32 if wide else np.uint16)
    return Rows(
        (numbers(size, WIDTH), numbers(size, WIDTH)),
        indices if n_values else None,
        tuple(numbers(size, SLOTS) * (draw.random((size, SLOTS)) < 0.8) for _ in range(n_values)),
        numbers(size).astype(np.float32) if draw.random() < 0.7 else None,
    )


def asked(draw: np.random.Generator, n_queries: int, n_values: int, coarse: bool) -> LinearQueries:
    def numbers(*shape: int) -> np.ndarray:
        return (draw.integers(-1, 2, shape) if coarse else draw.standard_normal(shape)).astype(np.float32)

    columns = []
    for matrix in draw.integers(0, 2, draw.integers(1, 4)):
        simple = draw.random() < 0.5
        n_columns = n_queries if simple else int(draw.integers(1, 5))
        latent = tuple(numbers(LATENTS, n_columns) if draw.random() < 0.7 else None for _ in range(n_values))
        columns.append(
            Columns(
                int(matrix),
                numbers(n_columns, WIDTH),
                latent if draw.random() < 0.8 else (),
                None if coarse or draw.random() < 0.4 else numbers(n_columns, WIDTH),
                float(draw.choice([0.0, 0.5, 1.0])),
                np.eye(n_queries, dtype=np.float32) if simple else numbers(n_columns, n_queries),
            )
        )
    return LinearQueries(tuple(columns), numbers(n_queries), numbers(n_queries))


def best_of(scores: np.ndarray, k: int, allowed: np.ndarray, minimum: float | None) -> np.ndarray:
    """(T, k) rows by sorting all, -1 where there are no more."""
    out = np.full((scores.shape[1], k), -1, dtype=np.int64)
    for query, column in enumerate(scores.T):
        may = np.flatnonzero(allowed & (column >= (-np.inf if minimum is None else minimum)))
        found = may[np.argsort(-column[may], kind="stable")][:k]
        out[query, : len(found)] = found
    return out


cases = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "sizes": st.lists(st.integers(0, 40), min_size=0, max_size=4),
        "n_queries": st.sampled_from([1, 2, 7]),
        "n_values": st.integers(0, 2),
        "coarse": st.booleans(),
        "block": st.sampled_from([4, 16]),
        "compiled": st.sampled_from([True, False] if LOOPS else [False]),
        "masked": st.sampled_from([None, 0.05, 0.6, 1.0]),
    }
)


class Case:
    def __init__(self, seed, sizes, n_queries, n_values, coarse, block, compiled, masked) -> None:
        use(block, block, compiled)
        self.draw = draw = np.random.default_rng(seed)
        self.rows = [segment(draw, size, n_values, draw.random() < 0.5, coarse) for size in sizes]
        self.queries = asked(draw, n_queries, n_values, coarse)
        self.scores = reference_scores(self.rows, self.queries)
        self.masks = None
        if masked is not None:
            self.masks = [None if draw.random() < 0.2 else draw.random(size) < masked for size in sizes]
        each = [np.ones(size, bool) for size in sizes]
        if self.masks:
            each = [every if mask is None else mask for every, mask in zip(each, self.masks, strict=True)]
        self.allowed = np.concatenate([np.zeros(0, bool), *each])


@settings(max_examples=60, deadline=None)
@given(cases)
def test_scores_are_those_of_the_formula(case) -> None:
    case = Case(**case)
    at = case.draw.integers(0, max(1, len(case.scores)), 50 if len(case.scores) else 0)
    np.testing.assert_allclose(scores_at(case.rows, case.queries, at), case.scores[at], rtol=1e-4, atol=1e-4)


@settings(max_examples=100, deadline=None)
@given(cases, st.sampled_from([1, 3, 50]), st.sampled_from([None, -0.5, 1.0]))
def test_the_best_rows_are_those_of_a_full_sort(case, k, minimum) -> None:
    """Of the scan's own scores, so that rounding decides nothing; `coarse` numbers tie exactly."""
    case = Case(**case)
    own = scores_at(case.rows, case.queries, np.arange(len(case.scores)))
    scores, rows = top_k(case.rows, case.queries, k, allowed=case.masks, minimum=minimum)
    assert scores.dtype == np.float32
    assert rows.dtype == np.int64
    np.testing.assert_array_equal(rows, best_of(own, k, case.allowed, minimum))
    for query in range(len(case.queries)):
        found = rows[query] >= 0
        np.testing.assert_array_equal(scores[query, found], own[rows[query, found], query])
        assert (scores[query, ~found] == -np.inf).all()


@settings(max_examples=60, deadline=None)
@given(cases, st.sampled_from([0, 1, 20]))
def test_counts_are_those_of_all_comparisons(case, n_thresholds) -> None:
    case = Case(**case)
    own = scores_at(case.rows, case.queries, np.arange(len(case.scores)))
    thresholds = case.draw.standard_normal((n_thresholds, len(case.queries))).astype(np.float32)
    if len(own):
        known = case.draw.integers(0, len(own), (n_thresholds, len(case.queries)))
        thresholds = np.where(case.draw.random(known.shape) < 0.7, np.take_along_axis(own, known, axis=0), thresholds)
    counts = counts_above(case.rows, case.queries, thresholds, allowed=case.masks)
    expected = (own[case.allowed][None] > thresholds[:, None]).sum(axis=1)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("compiled", [True, False] if LOOPS else [False])
@pytest.mark.parametrize("n_queries", [1, 3, 32])
@pytest.mark.parametrize("floats", [np.float16, np.float32])
def test_a_row_scores_the_same_wherever_it_stands(tmp_path: Path, n_queries: int, floats: type, compiled: bool) -> None:
    """At the real size of a block, from a file: the same row over and over ties with itself."""
    use(*SIZES, compiled)
    draw = np.random.default_rng(3)
    size = max(SIZES) + 77
    row = draw.standard_normal((1, 96)).astype(floats)
    np.save(tmp_path / "dense.npy", np.repeat(row, size, axis=0))
    codes = draw.integers(0, 50, (1, 8)).repeat(size, axis=0).astype(np.uint16)
    values = draw.random((1, 8)).repeat(size, axis=0).astype(floats)
    rows = [Rows((np.load(tmp_path / "dense.npy", mmap_mode="r"),), codes, (values,))]
    queries = LinearQueries(
        (
            Columns(
                0,
                draw.standard_normal((n_queries, 96)).astype(np.float32),
                (draw.standard_normal((50, n_queries)).astype(np.float32),),
                draw.random((n_queries, 96)).astype(np.float32),
                1.0,
                np.eye(n_queries, dtype=np.float32),
            ),
            Columns(
                0,
                draw.standard_normal((2, 96)).astype(np.float32),
                (),
                draw.random((2, 96)).astype(np.float32),
                0.5,
                draw.standard_normal((2, n_queries)).astype(np.float32),
            ),
        ),
        np.zeros(n_queries, np.float32),
        np.zeros(n_queries, np.float32),
    )
    at = np.array([5, size - 1, 5, size // 2])
    scores = scores_at(rows, queries, at)
    assert (scores == scores[0]).all()
    assert not counts_above(rows, queries, scores).any()
    assert (top_k(rows, queries, 4)[1] == np.arange(4)).all()


def one_query(width: int = WIDTH, **changes: object) -> LinearQueries:
    columns = Columns(0, np.ones((1, width), np.float32), (), None, 0.0, np.ones((1, 1), np.float32))
    return LinearQueries((replace(columns, **changes),), np.zeros(1, np.float32), np.zeros(1, np.float32))


def test_what_does_not_fit_is_said() -> None:
    rows = segment(np.random.default_rng(0), 5, 1, True, False)
    with pytest.raises(InputError, match="k is 0"):
        top_k([rows], one_query(), 0)
    with pytest.raises(InputError, match="width 6, and the query of width 7"):
        top_k([rows], one_query(7), 1)
    with pytest.raises(InputError, match="no row 5; the index has 5 rows"):
        scores_at([rows], one_query(), np.array([0, 5]))
    with pytest.raises(InputError, match="no row -1"):
        scores_at([rows], one_query(), np.array([-1]))
    with pytest.raises(InputError, match="for each segment None or a bool array"):
        top_k([rows], one_query(), 1, allowed=[np.ones(4, bool)])
    with pytest.raises(InputError, match="for each segment None or a bool array"):
        top_k([rows], one_query(), 1, allowed=[None, None])
    with pytest.raises(InputError, match=r"\(A, 1\)"):
        counts_above([rows], one_query(), np.zeros(3))
    with pytest.raises(InputError, match="latent parts for 2 kinds of values, and the index holds 1"):
        top_k([rows], one_query(latent=(None, None)), 1)
    with pytest.raises(InputError, match=r"Row \d has a latent outside the 2 "):
        top_k([rows], one_query(latent=(np.ones((2, 1), np.float32),)), 1)
    with pytest.raises(InputError, match="do not fit each other"):
        top_k([rows], one_query(combine=np.ones((2, 1), np.float32)), 1)


@pytest.mark.parametrize("compiled", [True, False] if LOOPS else [False])
@pytest.mark.parametrize("floats", [np.float16, np.float32])
def test_a_damaged_row_is_named(floats: type, compiled: bool) -> None:
    use(*SIZES, compiled)
    rows = segment(np.random.default_rng(0), 5, 1, floats is np.float32, False)
    third = np.arange(5)[:, None] == 3
    for bad in (np.nan, np.inf):
        with pytest.raises(InputError, match="Row 3 has a score that is not finite"):
            top_k([replace(rows, dense=(np.where(third, floats(bad), rows.dense[0]),))], one_query(), 1)
        values = np.where(third, floats(bad), rows.values[0])
        with pytest.raises(InputError, match="Row 3 has a score that is not finite"):
            top_k([replace(rows, values=(values,))], one_query(latent=(np.ones((LATENTS, 1), np.float32),)), 1)


@pytest.mark.skipif(LOOPS is None, reason="needs numba")
def test_the_loops_read_every_float16() -> None:
    """All finite ones, the smallest too."""
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)][:, None].copy()
    rows = [Rows((every,))]
    scores = scores_at(rows, one_query(1), np.arange(len(every)))
    np.testing.assert_array_equal(scores, every.astype(np.float32))
