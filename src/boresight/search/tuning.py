"""How hard an approximate search must try: measured against the exact search, on the user's own queries."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import torch

from boresight.brief import Brief
from boresight.errors import InputError, require_at_least
from boresight.progress import progress
from boresight.search.approximate import Best, Effort, best, effort_of
from boresight.search.query import MOST, PreparedQuery, Query
from boresight.search.segments import caption_counts
from boresight.search.snapshot import Snapshot
from boresight.seeds import generator
from boresight.tables import table

COUNTS = (50, 100, 200, 500, 1000, 2000, 5000, MOST)
"""Of candidates, that are tried."""


@dataclass(frozen=True)
class Tried:
    """One setting.

    Attributes:
        recall: mean share of the k best by the exact search that were found.
        ms: of a search alone, without embedding the query; median over the queries.
    """

    effort: Effort
    recall: float
    ms: float


@dataclass(frozen=True, repr=False)
class Tuning(Brief):
    """What was tried, and what was chosen: the fastest setting that reaches the recall, or else the best recall.

    Attributes:
        wanted: recall at `k` that was asked for.
        exact_ms: of an exact search.
        queries: how many the figures are means or medians of.
    """

    chosen: Tried
    tried: tuple[Tried, ...]
    wanted: float
    k: int
    exact_ms: float
    queries: int

    @property
    def reached(self) -> bool:
        """Whether the chosen setting has the recall that was asked for."""
        return self.chosen.recall >= self.wanted

    def __str__(self) -> str:
        """The table that the command line prints."""
        lines = [
            [
                f"{one.effort.candidates:,}",
                f"{one.effort.ef_search:,}",
                f"{one.recall:.4f}",
                f"{one.ms:.1f}",
                "chosen" if one is self.chosen else "",
            ]
            for one in self.tried
        ]
        lines.append(["all", "", "1.0000", f"{self.exact_ms:.1f}", "exact"])
        missed = "" if self.reached else f"\nNo setting reaches a recall of {self.wanted:g}; the best is chosen."
        title = f"{self.queries:,} queries"
        return table(["candidates", "ef_search", f"recall@{self.k}", "ms a query", ""], lines, title) + missed


def tried(queries: Sequence[str | Query] | torch.Tensor | np.ndarray, k: int) -> list[Query]:
    """What is asked, exactly, for the k best. Raises InputError where there is none."""
    if not len(queries):
        raise InputError("There are no queries to tune with; pass sentences as users ask them, 50 or more.")
    if isinstance(queries, str):
        raise InputError("The queries are one sentence; pass a list of sentences, 50 or more.")
    asked = [one if isinstance(one, Query) else Query(text=one) for one in queries]
    return [replace(one, k=k, offset=0, min_score=None, candidates=None, ef_search=None) for one in asked]


def sampled_captions(snapshot: Snapshot, count: int, seed: int) -> list[str]:
    """Captions of images of the index, one each of `count` images drawn by a seed, or of all that have any.

    Raises InputError where none has.
    """
    require_at_least("sample", count, 1)
    captioned = [
        row
        for segment, start in zip(snapshot.segments, snapshot.starts, strict=False)
        for row in (
            start + np.flatnonzero(caption_counts(segment.meta) * (1 if segment.live is None else segment.live))
        ).tolist()
    ]
    if not captioned:
        raise InputError("The index knows no captions to tune with; pass sentences as users ask them.")
    drawn = torch.randperm(len(captioned), generator=generator(seed))[:count].tolist()
    return [snapshot.record(captioned[place])["captions"][0] for place in drawn]


def tuned(queries: Sequence[PreparedQuery], snapshot: Snapshot, recall: float) -> Tuning:
    """Tries settings from the cheapest on, up to the first number of candidates that reaches the recall.

    queries: all with the same k and no candidates. Raises InputError for a recall outside (0, 1] or an index without a
    graph.
    """
    if not 0 < recall <= 1:
        raise InputError(f"recall is {recall}; choose above 0 and up to 1.")
    k = queries[0].query.k
    effort_of(replace(queries[0].query, candidates=k), snapshot)
    allowed = {str(one.query.where): snapshot.allowed(one.query.where) for one in queries}

    def search(one: PreparedQuery, effort: Effort | None) -> Best:
        return best([one], snapshot, allowed[str(one.query.where)], k, effort)

    def timed(some: Iterable[PreparedQuery], effort: Effort | None) -> tuple[list[Best], float]:
        found, seconds = [], []
        for one in some:
            start = time.perf_counter()
            found.append(search(one, effort))
            seconds.append(time.perf_counter() - start)
        return found, 1000 * median(seconds)

    search(queries[0], None)  # compiles and maps, before the clock
    exact, exact_ms = timed(progress(queries, what="exact searches", unit=" queries", delay=1.0), None)
    truth = [set(one.rows[0].tolist()) - {-1} for one in exact]
    several = sum("graph" in each.said for each in snapshot.segments) > 1
    tries: list[Tried] = []
    counts = [count for count in COUNTS if k <= count < len(snapshot)]
    for count in counts:
        for view in ([count // 2] if several and count // 2 >= k else []) + [count, 2 * count]:
            search(queries[0], Effort(count, view))  # opens the graphs, before the clock
            found, ms = timed(queries, Effort(count, view))
            if all(one.exact for one in found):
                continue
            shares = [
                len(own & set(one.rows[0].tolist())) / len(own) for own, one in zip(truth, found, strict=True) if own
            ]
            tries.append(Tried(Effort(count, view), float(np.mean(shares)) if shares else 1.0, ms))
        if any(one.recall >= recall for one in tries):
            break
    if not tries:  # in so few images every search is exact
        tries.append(Tried(Effort(len(snapshot), len(snapshot)), 1.0, exact_ms))
    reached = [one for one in tries if one.recall >= recall]
    chosen = min(reached, key=lambda one: one.ms) if reached else max(tries, key=lambda one: (one.recall, -one.ms))
    return Tuning(chosen, tuple(tries), recall, k, exact_ms, len(queries))
