"""Work on rows that is done ahead of whoever takes it, by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Found = TypeVar("Found")


def ahead(
    function: Callable[[int], Found], rows: Iterable[int], workers: int, depth: int
) -> Generator[Found, None, None]:
    """`function` of every row, in order, computed by threads at most `depth` rows ahead; without workers, when taken.

    Close it when you stop before its end, or the rows ahead are still waited for.
    """
    if not workers:
        yield from map(function, rows)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="boresight-read") as pool:
        waiting: deque[Future[Found]] = deque()
        try:
            for row in rows:
                waiting.append(pool.submit(function, row))
                if len(waiting) >= depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
