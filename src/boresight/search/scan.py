"""Exact top k of an image index: every row is read once, scored, and the best kept on the way.

A segment of the index is `Rows`, arrays that are usually memory-mapped. What is asked is `LinearQueries`: each query is
a weighted sum of columns, and a column is one inner product with a row's dense and sparse parts, divided by a gated
length where it has a gate. That covers plain and edited scores, one caption and combinations of them.

    score[n, t] = sum over columns c of combine[c, t] * (dense_c . X[n] + sum over values b, slots j of
                  latent_b[indices[n, j], c] * values_b[n, j]) / max(|gate_c * X[n]|, MIN_LENGTH) ** exponent
                  - bias[t] * Rows.bias[n] + constant[t]

Shape suffixes: N rows, B rows of a block, T queries, C columns, d width, L latents, K slots of a code.

A row's score is the same to the last bit wherever the row stands and whichever function asks, so a row is never above
its own score. Blocks have one size for that, the last one filled up: a matrix product may round each shape differently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol, TypeVar

import numpy as np
import torch

from boresight.brief import Brief
from boresight.editing.scoring import MIN_LENGTH, in_threads
from boresight.errors import InputError, require_at_least
from boresight.search.scan_kernels import BlockScorer

_GATHERED = 0.25
"""Below this share of allowed rows only these rows of a block are read."""
_COMPARED = 16
"""Up to so many thresholds a query are compared one by one; more are sorted and searched."""


@dataclass(frozen=True, repr=False)
class Rows(Brief):
    """A segment of N images; the arrays are C-contiguous and may be memory-mapped.

    Attributes:
        dense: Matrices (N, d), float16 or float32: first the unit embeddings, then the dense part of each edit.
        indices: (N, K) uint16 or int32 active latents, or None without codes; padded slots have value 0.
        values: Any number of (N, K) float16 or float32 arrays over these indices.
        bias: (N,) float32, or None for zeros.
    """

    dense: tuple[np.ndarray, ...]
    indices: np.ndarray | None = None
    values: tuple[np.ndarray, ...] = ()
    bias: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.dense[0])

    def __getitem__(self, rows: slice | np.ndarray) -> Rows:
        return Rows(
            tuple(each[rows] for each in self.dense),
            None if self.indices is None else self.indices[rows],
            tuple(each[rows] for each in self.values),
            None if self.bias is None else self.bias[rows],
        )


@dataclass(frozen=True, repr=False)
class Columns(Brief):
    """C columns over one dense matrix.

    Attributes:
        matrix: Which of `Rows.dense`.
        dense: (C, d) float32.
        latent: One for each of `Rows.values`: (L, C) float32, or None where it takes no part; () without codes.
        gate: (C, d) float32, or None. A column is divided by max(|gate_c * row|, MIN_LENGTH) ** exponent.
        exponent: 1 divides by the length, 0 does not divide.
        combine: (C, T) float32, the weight of each column in each query.
    """

    matrix: int
    dense: np.ndarray
    latent: tuple[np.ndarray | None, ...]
    gate: np.ndarray | None
    exponent: float
    combine: np.ndarray


@dataclass(frozen=True, repr=False)
class LinearQueries(Brief):
    """T queries.

    Attributes:
        columns: Their columns.
        bias: (T,) float32; times `Rows.bias` it is subtracted.
        constant: (T,) float32, added.
    """

    columns: tuple[Columns, ...]
    bias: np.ndarray
    constant: np.ndarray

    def __len__(self) -> int:
        return len(self.constant)


def top_k(
    rows: Sequence[Rows],
    queries: LinearQueries,
    k: int,
    *,
    allowed: Sequence[np.ndarray | None] | None = None,
    minimum: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best rows of each query, exactly, in one pass over the rows.

    Args:
        rows: Segments of the index; their rows are numbered through in this order.
        queries: T queries.
        k: How many, at least 1.
        allowed: For each segment a bool (N,) array of the rows that may be answers, or None for all.
        minimum: Only rows that score at least this are answers.

    Returns:
        (T, k) float32 scores, best first, and (T, k) int64 rows. Of equal scores the lower row is first. Where there
        are fewer answers the score is -inf and the row -1.

    Raises:
        InputError: k below 1, arrays that do not fit each other, or a row with a score that is not finite.

    Example:
        >>> rows = Rows((np.eye(3, dtype=np.float32),))
        >>> one = np.ones((1, 1), np.float32)
        >>> columns = Columns(0, np.array([[0.2, 0.9, 0.4]], np.float32), (), None, 0.0, one)
        >>> top_k([rows], LinearQueries((columns,), np.zeros(1, np.float32), np.zeros(1, np.float32)), 2)[1]
        array([[1, 2]])
    """
    require_at_least("k", k, 1)
    shares = _each_allowed(rows, queries, allowed, lambda: _Best(k, len(queries), minimum))
    best = shares[0]
    best.parts = [part for share in shares for part in share.parts]
    return best.table()


def scores_at(rows: Sequence[Rows], queries: LinearQueries, at: np.ndarray) -> np.ndarray:
    """(len(at), T) float32 scores of known rows; only these rows are read.

    Args:
        rows: Segments of the index.
        queries: T queries.
        at: Row numbers over all segments, in any order, repeats allowed.

    Raises:
        InputError: A row number that no segment has, or as `top_k`.
    """
    scored = BlockScorer(rows, queries)
    at = np.asarray(at, dtype=np.int64)
    starts = [0, *accumulate(len(segment) for segment in rows)]
    outside = (at < 0) | (at >= starts[-1])
    if outside.any():
        raise InputError(f"There is no row {at[outside][0]}; the index has {starts[-1]:,} rows.")
    out = np.empty((len(at), len(queries)), dtype=np.float32)
    for segment, start in zip(rows, starts, strict=False):
        here = np.flatnonzero((at >= start) & (at < start + len(segment)))
        for first in range(0, len(here), scored.size):
            some = here[first : first + scored.size]
            out[some] = scored(segment[at[some] - start], at[some])
    return out


def counts_above(
    rows: Sequence[Rows],
    queries: LinearQueries,
    thresholds: np.ndarray,
    *,
    allowed: Sequence[np.ndarray | None] | None = None,
) -> np.ndarray:
    """(A, T) int64: how many allowed rows score strictly above each of A thresholds a query, in one pass.

    With thresholds from `scores_at` these are the ranks of known rows, counted from 0.

    Args:
        rows: Segments of the index.
        queries: T queries.
        thresholds: (A, T) float32.
        allowed: As of `top_k`.

    Raises:
        InputError: As `top_k`.
    """
    thresholds = np.asarray(thresholds, dtype=np.float32)
    if thresholds.ndim != 2 or thresholds.shape[1] != len(queries):
        raise InputError(f"Thresholds are (A, {len(queries)}), one column a query, not {thresholds.shape}.")
    shares = _each_allowed(rows, queries, allowed, lambda: _Counts(thresholds))
    return np.sum([share.table() for share in shares], axis=0)


def reference_scores(rows: Sequence[Rows], queries: LinearQueries) -> np.ndarray:
    """(N, T) float64 scores of every row, as the formula above reads: what the scan is tested against."""
    parts = []
    for segment in rows:
        scores = np.zeros((len(segment), len(queries)))
        for columns in queries.columns:
            dense = segment.dense[columns.matrix].astype(np.float64)
            product = dense @ columns.dense.T.astype(np.float64)
            for latent, values in zip(columns.latent, segment.values, strict=bool(columns.latent)):
                if latent is not None:
                    product += np.einsum("nkc,nk->nc", latent.astype(np.float64)[segment.indices], values)
            if columns.gate is not None:
                lengths = np.sqrt(np.square(dense) @ np.square(columns.gate.T.astype(np.float64)))
                product /= np.maximum(lengths, MIN_LENGTH) ** columns.exponent
            scores += product @ columns.combine.astype(np.float64)
        bias = np.zeros(len(segment)) if segment.bias is None else segment.bias
        parts.append(scores - np.outer(bias, queries.bias) + queries.constant)
    return np.concatenate(parts) if parts else np.zeros((0, len(queries)))


# --- one pass ---------------------------------------------------------------------------------------------------------


class _Taker(Protocol):
    def take(self, scores_BT: np.ndarray, rows_B: np.ndarray) -> None: ...


Taker = TypeVar("Taker", bound=_Taker)


def _each_allowed(
    rows: Sequence[Rows],
    queries: LinearQueries,
    allowed: Sequence[np.ndarray | None] | None,
    taker: Callable[[], Taker],
) -> list[Taker]:
    """Gives the scores of every allowed row to one taker a thread, to each in ascending order of rows."""
    scored = BlockScorer(rows, queries)
    masks = [None] * len(rows) if allowed is None else list(allowed)
    if len(masks) != len(rows) or any(
        mask is not None and (mask.dtype != bool or mask.shape != (len(segment),))
        for mask, segment in zip(masks, rows, strict=False)
    ):
        raise InputError("`allowed` has for each segment None or a bool array with one entry for each of its rows.")
    starts = [0, *accumulate(len(segment) for segment in rows)]
    blocks = [(number, first) for number, segment in enumerate(rows) for first in range(0, len(segment), scored.size)]
    waiting = iter(blocks)

    def work(mine: Taker) -> None:
        for number, first in waiting:  # threads draw blocks as they are ready for them
            part, mask = rows[number][first : first + scored.size], masks[number]
            ids = np.arange(starts[number] + first, starts[number] + first + len(part))
            kept = None if mask is None else np.flatnonzero(mask[first : first + scored.size])
            if kept is None or len(kept) == len(part):
                mine.take(scored(part, ids), ids)
            elif len(kept) < _GATHERED * len(part):
                if len(kept):
                    mine.take(scored(part[kept], ids[kept]), ids[kept])
            else:
                mine.take(scored(part, ids)[kept], ids[kept])

    takers = [taker() for _ in range(max(1, min(torch.get_num_threads(), len(blocks))))]
    in_threads(work, takers)
    return takers


class _Best:
    """The k best of what was taken, for each query; rows must come in ascending order.

    What beats the threshold is only collected. Now and then the collection is cut to k a query, which raises it.
    """

    def __init__(self, k: int, n_queries: int, minimum: float | None) -> None:
        self.k = k
        least = np.float32(-np.inf if minimum is None else minimum)
        if minimum is not None and least >= minimum:
            least = np.nextafter(least, np.float32(-np.inf))
        self.threshold = np.full(n_queries, least, dtype=np.float32)
        self.parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.waiting = 0
        self.most = max(2 * k * n_queries, 2**14)

    def take(self, scores_BT: np.ndarray, rows_B: np.ndarray) -> None:
        found = np.flatnonzero(scores_BT > self.threshold)
        if len(found) > 4 * self.k * len(self.threshold) and len(scores_BT) >= self.k:
            # At the start nearly all would be collected: not what is below the k best of this block alone.
            place = len(scores_BT) - self.k
            least = np.nextafter(np.partition(scores_BT, place, axis=0)[place], np.float32(-np.inf))
            self.threshold = np.maximum(self.threshold, least)
            found = np.flatnonzero(scores_BT > self.threshold)
        if len(found):
            row, query = np.divmod(found, len(self.threshold))
            self.parts.append((scores_BT[row, query], rows_B[row], query))
            self.waiting += len(row)
            if self.waiting > self.most:
                self.cut()

    def cut(self) -> None:
        """Keeps the k best of each query: by query, then from the best score, then from the lowest row."""
        scores, rows, queries = (np.concatenate(part) for part in zip(*self.parts, strict=True))
        order = np.lexsort((rows, -scores, queries))
        place = np.arange(len(order)) - np.searchsorted(queries[order], queries[order])
        order, place = order[place < self.k], place[place < self.k]
        self.parts = [(scores[order], rows[order], queries[order])]
        self.waiting = len(order)
        last = order[place == self.k - 1]
        self.threshold[queries[last]] = scores[last]

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """(T, k) scores and rows."""
        shape = (len(self.threshold), self.k)
        out = np.full(shape, -np.inf, dtype=np.float32), np.full(shape, -1, dtype=np.int64)
        if self.parts:
            self.cut()
            scores, rows, queries = self.parts[0]
            place = np.arange(len(queries)) - np.searchsorted(queries, queries)
            out[0][queries, place], out[1][queries, place] = scores, rows
        return out


class _Counts:
    """How many scores were above each of A thresholds a query."""

    def __init__(self, thresholds_AT: np.ndarray) -> None:
        self.order = np.argsort(thresholds_AT, axis=0)
        self.sorted_TA = np.take_along_axis(thresholds_AT, self.order, axis=0).T.copy()
        self.passed = np.zeros((self.sorted_TA.shape[0], self.sorted_TA.shape[1] + 1), dtype=np.int64)
        """How many scores are above exactly so many of the sorted thresholds."""

    def take(self, scores_BT: np.ndarray, rows_B: np.ndarray) -> None:
        n_thresholds = self.sorted_TA.shape[1]
        if n_thresholds <= _COMPARED:
            for place in range(n_thresholds):
                self.passed[:, place + 1] += np.count_nonzero(scores_BT > self.sorted_TA[:, place], axis=0)
            return
        for query, (thresholds, scores) in enumerate(zip(self.sorted_TA, scores_BT.T, strict=True)):
            passed = np.bincount(np.searchsorted(thresholds, scores), minlength=n_thresholds + 1)
            self.passed[query, 1:] += np.cumsum(passed[::-1])[::-1][1:]

    def table(self) -> np.ndarray:
        """(A, T) counts, in the order the thresholds came."""
        out = np.empty(self.order.shape, dtype=np.int64)
        np.put_along_axis(out, self.order, self.passed[:, 1:].T, axis=0)
        return out
