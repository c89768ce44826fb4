"""The one thread that uses the model: queries that come close together become one batch."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from boresight.search import Query, Results, SearchIndex

T = TypeVar("T")


@dataclass(frozen=True)
class _Job:
    """A query, or a function that uses the model otherwise."""

    future: Future
    query: Query | None = None
    ranks: bool = False
    call: Callable[[], Any] = field(default=lambda: None)


class Batcher:
    """Answers queries of many threads, as many at a time as wait.

    While a batch is computed the next one gathers. A query that cannot be answered fails alone.

    Args:
        most: queries in a batch.
        gather: seconds that the first of a batch waits for others.
        on_batch: is told the size of each batch.
    """

    def __init__(
        self,
        index: SearchIndex,
        *,
        most: int = 64,
        gather: float = 0.003,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self.index, self.most, self.gather = index, most, gather
        self.on_batch = on_batch or (lambda size: None)
        self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="boresight-model", daemon=True)
        self._thread.start()

    def search(self, query: Query, ranks: bool) -> Future[Results]:
        """The answers to a query, when they are there. One that is cancelled before it begins is not computed."""
        job = _Job(Future(), query, ranks)
        self._waiting.put(job)
        return job.future

    def call(self, function: Callable[[], T]) -> Future[T]:
        """What a function gives that uses the model, run between two batches."""
        job = _Job(Future(), call=function)
        self._waiting.put(job)
        return job.future

    def close(self) -> None:
        """Finish what waits, and end."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        more = True
        while more:
            jobs: list[_Job | None] = [self._waiting.get()]
            until = time.monotonic() + self.gather
            while jobs[-1] is not None and len(jobs) < self.most:
                try:
                    jobs.append(self._waiting.get(timeout=max(0.0, until - time.monotonic())))
                except queue.Empty:
                    break
            more = jobs[-1] is not None
            wanted = [job for job in jobs if job is not None and job.future.set_running_or_notify_cancel()]
            for ranks in (False, True):
                batch = [job for job in wanted if job.query is not None and job.ranks == ranks]
                if batch:
                    self.on_batch(len(batch))
                    self._answer(batch)
            for job in wanted:
                if job.query is None:
                    self._run(job)

    @staticmethod
    def _run(job: _Job) -> None:
        try:
            job.future.set_result(job.call())
        except Exception as error:
            job.future.set_exception(error)

    def _answer(self, batch: Sequence[_Job]) -> None:
        """In halves where the whole fails, down to the queries that make it fail."""
        queries = [job.query for job in batch if job.query is not None]
        try:
            answers = self.index.search_batch(queries, ranks=batch[0].ranks)
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            middle = len(batch) // 2
            self._answer(batch[:middle])
            self._answer(batch[middle:])
        else:
            for job, results in zip(batch, answers, strict=True):
                job.future.set_result(results)
