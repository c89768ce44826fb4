"""Tables of figures: for a terminal and as csv; and a mean with its spread over seeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Mean over seeds and sample standard deviation; None for a single value, or one that no seed changes."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one value a seed."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else None)

    def text(self, digits: int = 1, sign: str = "") -> str:
        """'1.2 ± 0.3'; a `sign` of '+' shows that of a gain too."""
        mean = f"{self.mean:{sign}.{digits}f}"
        return mean if self.deviation is None else f"{mean} ± {self.deviation:.{digits}f}"


def signed(value: float) -> str:
    """A difference, '+1.2'; nothing is '+0.0' from either side."""
    return f"{round(value, 1) + 0.0:+.1f}"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> str:
    """Aligned for a terminal: the first column to the left, the others to the right, every line equally long.

    headings: of all columns, '' over the names of the rows. rows: as many cells each, the name first. title: a line
    above.

    Example:
        >>> print(table(["", "R@1"], [["plain", "31.20"], ["edited", "33.05"]], "holiday: 50 images"))
        holiday: 50 images
                  R@1
        plain   31.20
        edited  33.05
    """
    lines = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [title] if title else []
    for name, *cells in lines:
        aligned = [f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True)]
        text.append("  ".join([f"{name:<{widths[0]}}", *aligned]))
    return "\n".join(text)


def csv_text(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as csv, a number as `str` writes it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([headings, *rows])
    return text.getvalue()
