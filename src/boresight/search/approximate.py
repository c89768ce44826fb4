"""The best rows for queries: of all rows, or of candidates that the graphs of the index find.

Candidates are found by the dense part of a score alone, over the matrix of the graph. Then they are scored as every row
would be, so an answer's score is exact, and only which images are answers is approximate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch

from boresight.editing.scoring import MIN_LENGTH, in_threads
from boresight.errors import InputError
from boresight.search.graph import AGAIN
from boresight.search.query import PreparedQuery, Query, stacked
from boresight.search.scan import scores_at, top_k
from boresight.search.sides import Column
from boresight.search.snapshot import Snapshot

_SAMPLED = 256  # rows


@dataclass(frozen=True)
class Effort:
    """How hard an approximate search tries.

    Attributes:
        candidates: how many images are scored.
        ef_search: how many images each graph keeps in view, and the most that it gives.
    """

    candidates: int
    ef_search: int


def effort_of(query: Query, snapshot: Snapshot) -> Effort | None:
    """What a query asks for; None for an exact search.

    Raises InputError for a search with candidates in an index without a graph, or one that was not tuned.
    """
    if query.candidates is None:
        return None
    if not any("graph" in each.said for each in snapshot.segments):
        raise InputError(f"The index has no graph that finds candidates; {AGAIN}")
    if query.candidates == "tuned":
        if (kept := snapshot.manifest.get("effort")) is None:
            raise InputError(
                "The index was not tuned; pass a number of candidates, or keep what tuning finds "
                "(index.tune(queries, keep=True), or: boresight tune INDEX --keep)."
            )
        least = query.k + query.offset
        return Effort(max(kept["candidates"], least), max(kept["ef_search"], least))
    return Effort(query.candidates, query.ef_search or query.candidates)


@dataclass(frozen=True)
class Best:
    """For T queries (T, n) float32 scores, best first, and (T, n) int64 rows, -1 where there are fewer.

    `exact`: whether every allowed row was scored.
    """

    scores: np.ndarray
    rows: np.ndarray
    exact: bool


def best(
    prepared: Sequence[PreparedQuery],
    snapshot: Snapshot,
    allowed: Sequence[np.ndarray | None],
    n: int,
    effort: Effort | None = None,
) -> Best:
    """The n best rows for each query; without an effort of all rows, in one scan.

    A segment is scanned too where it has no graph, where its graph would keep as many rows in view as are allowed in
    it, and where its graph finds fewer than it was asked for. Raises as `Segment.graph`.
    """
    if effort is None:
        return Best(
            *top_k(snapshot.rows, stacked([one.columns for one in prepared], snapshot.layout), n, allowed=allowed), True
        )
    scanned: list[int] = []
    views: dict[int, int] = {}  # of a segment whose graph is asked, how many rows it keeps in view
    for number, (segment, mask) in enumerate(zip(snapshot.segments, allowed, strict=True)):
        count = len(segment) if mask is None else int(np.count_nonzero(mask))
        view = ceil(effort.ef_search * len(segment) / max(count, 1))  # rows that are not allowed are in view too
        if max(view, effort.candidates) >= count or segment.graph is None:
            scanned.append(number)
        else:
            views[number] = view
    found = []  # for each graph: inner products and rows
    for number, (near, rows) in _near(prepared, snapshot, allowed, effort, views).items():
        if (rows < 0).any():
            scanned.append(number)
        else:
            found.append((near, rows + int(snapshot.starts[number])))
    parts = [_scanned(prepared, snapshot, allowed, n, scanned)] if scanned else []
    parts += [_rescored(prepared, snapshot, found, effort.candidates)] if found else []
    scores, rows = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
    order = np.lexsort((rows, -scores), axis=1)[:, :n]
    return Best(np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1), not found)


def _near(
    prepared: Sequence[PreparedQuery],
    snapshot: Snapshot,
    allowed: Sequence[np.ndarray | None],
    effort: Effort,
    views: Mapping[int, int],
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """For each segment whose graph is asked what `Graph.search` returns."""
    vectors = np.stack([_vector(one.columns, snapshot) for one in prepared])
    most, waiting = min(effort.candidates, effort.ef_search), iter(views)
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def ask(numbers: Iterator[int]) -> None:
        for number in numbers:  # threads draw graphs as they are ready for them
            graph = snapshot.segments[number].graph
            assert graph is not None
            found[number] = graph.search(vectors, most, views[number], allowed[number])

    alone = 1 if len(prepared) > 1 else min(len(views), torch.get_num_threads())  # FAISS divides several queries itself
    if views:
        in_threads(ask, [waiting] * alone)
    return dict(sorted(found.items()))


def _scanned(
    prepared: Sequence[PreparedQuery],
    snapshot: Snapshot,
    allowed: Sequence[np.ndarray | None],
    n: int,
    numbers: Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
    """(T, n) scores and rows of some segments."""
    segments = [snapshot.rows[number] for number in numbers]
    scan = stacked([one.columns for one in prepared], snapshot.layout)
    scores, rows = top_k(segments, scan, n, allowed=[allowed[number] for number in numbers])
    starts = np.concatenate([[0], np.cumsum([len(each) for each in segments])])
    place = np.searchsorted(starts, rows, side="right") - 1
    moved = rows - starts[place] + snapshot.starts[np.array(numbers)[np.maximum(place, 0)]]
    return scores, np.where(rows < 0, -1, moved)


def _rescored(
    prepared: Sequence[PreparedQuery],
    snapshot: Snapshot,
    found: Sequence[tuple[np.ndarray, np.ndarray]],
    candidates: int,
) -> tuple[np.ndarray, np.ndarray]:
    """(T, C) exact scores and rows of the best candidates over all graphs."""
    near, rows = (np.concatenate(each, axis=1) for each in zip(*found, strict=True))
    kept = np.take_along_axis(rows, np.argsort(-near, axis=1, kind="stable")[:, :candidates], 1)
    kept.sort(axis=1)  # files are read from front to back
    scores = [
        scores_at(snapshot.rows, stacked([one.columns], snapshot.layout), own)[:, 0]
        for one, own in zip(prepared, kept, strict=True)
    ]
    return np.stack(scores), kept


def _vector(columns: Sequence[Column], snapshot: Snapshot) -> np.ndarray:
    """(d,), whose inner product with a row is about the dense part of a query's score.

    A divided column is taken over its usual length, so that it has its weight among others.
    """
    return np.sum([column.dense / _usual_length(column, snapshot) for column in columns], axis=0)


def _usual_length(column: Column, snapshot: Snapshot) -> float:
    """What divides a column, of the middle row of a sample; 1 where nothing does."""
    if column.gate is None or not column.exponent:
        return 1.0
    longest = max(snapshot.segments, key=len).rows.dense[column.matrix]
    sample = np.asarray(longest[:: ceil(len(longest) / _SAMPLED)], dtype=np.float32)
    lengths = np.sqrt(np.square(sample) @ np.square(column.gate))
    return float(max(np.median(lengths), MIN_LENGTH)) ** column.exponent
