"""Tables for a terminal and as csv; spreads over seeds."""

from __future__ import annotations

import csv
import io
import statistics

import pytest

from boresight.tables import Spread, csv_text, table

HEADINGS = ["", "R@1", "median rank"]
ROWS = [["plain", "31.20", "4.0"], ["a longer name", "100.00", "1.0"]]


def test_columns_are_aligned_and_lines_equally_long() -> None:
    title, *lines = table(HEADINGS, ROWS, "holiday").splitlines()
    assert title == "holiday"
    assert {len(line) for line in lines} == {len("a longer name  100.00  median rank")}
    assert lines[1] == "plain           31.20          4.0"
    assert table(HEADINGS, ROWS).splitlines() == lines
    assert table(["", "a"], []).split() == ["a"]


def test_csv_comes_back() -> None:
    rows = [["a, b", 'a "word"', 1.5]]
    assert list(csv.reader(io.StringIO(csv_text(["x", "y", "z"], rows)))) == [
        ["x", "y", "z"],
        ["a, b", 'a "word"', "1.5"],
    ]


def test_a_row_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="argument"):
        table(HEADINGS, [["plain", "1"]])


def test_spread_is_mean_and_sample_deviation() -> None:
    spread = Spread.of([1.0, 2.0, 4.0])
    assert (spread.mean, spread.deviation) == (pytest.approx(7 / 3), pytest.approx(statistics.stdev([1, 2, 4])))
    assert spread.text(2) == "2.33 ± 1.53"
    assert Spread.of([2.0]) == Spread(2.0, None)
    assert Spread.of([2.0]).text(sign="+") == "+2.0"
