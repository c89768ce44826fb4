"""Progress of long work on stderr, one style everywhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from tqdm.auto import tqdm


def progress(
    iterable: Iterable | None = None,
    *,
    total: int | None = None,
    initial: int = 0,
    what: str,
    unit: str,
    delay: float = 0.0,
) -> tqdm:
    """A progress bar over `iterable`, or one to be advanced with `.update(n)` when there is none.

    Silent when the environment variable BORESIGHT_QUIET is set; drawn anew every ten seconds at most where stderr is
    not a terminal. With `delay`, nothing is shown of work that is done within so many seconds.
    """
    return tqdm(
        iterable,
        total=total,
        initial=initial,
        desc=what,
        unit=unit,
        delay=delay,
        dynamic_ncols=True,
        disable=bool(os.environ.get("BORESIGHT_QUIET")),
        mininterval=0.1 if sys.stderr.isatty() else 10.0,
        file=sys.stderr,
    )


def say(line: str) -> None:
    """One line on stderr that does not break a running progress bar; silent under BORESIGHT_QUIET."""
    if not os.environ.get("BORESIGHT_QUIET"):
        tqdm.write(line, file=sys.stderr)
