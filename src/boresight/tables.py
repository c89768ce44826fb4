"""Tables of figures: for a terminal and as csv; and a mean with its spread over seeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean, stdev
from typing import Any

import numpy as np


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


def rounded_to_sum(cells: Sequence[Sequence[float]], total: float, digits: int) -> list[list[float]]:
    """The cells of a table rounded so that what is shown adds up, along rows, along columns and to the rounded total.

    Running sums are rounded, and a cell is what a sum has over those before it. So a cell may be off by up to two units
    of the last digit, and the sum of a row or of a column by one.

    Example:
        >>> rounded_to_sum([[0.26, 0.26, 0.48]], 1.0, 1)  # each by itself: 0.3, 0.3, 0.5
        [[0.3, 0.2, 0.5]]
    """
    sums = np.asarray(cells, dtype=float).cumsum(0).cumsum(1)
    sums[-1, -1] = round(total, digits)
    units = np.rint(sums * 10**digits)
    rounded = np.diff(np.diff(units, axis=0, prepend=0), axis=1, prepend=0) / 10**digits + 0.0  # of -0.0 too
    return [[float(cell) for cell in row] for row in rounded]


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


def html_table(headings: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> str:
    """The same as `table`, for a notebook; every cell is escaped."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in headings)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    caption = f"<caption>{escape(title)}</caption>" if title else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def csv_text(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as csv, a number as `str` writes it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([headings, *rows])
    return text.getvalue()
