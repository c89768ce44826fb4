"""Tables for a terminal and as csv; spreads over seeds."""

from __future__ import annotations

import csv
import io
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boresight.tables import Spread, csv_text, rounded_to_sum, table

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


@given(
    cells=st.integers(1, 5).flatmap(
        lambda columns: st.lists(st.lists(st.floats(-2, 2), min_size=columns, max_size=columns), min_size=1, max_size=6)
    ),
    digits=st.integers(0, 5),
)
def test_a_rounded_table_adds_up_and_stays_near(cells, digits) -> None:
    total = sum(map(sum, cells))
    shown, unit = rounded_to_sum(cells, total, digits), 10.0**-digits
    units = [[cell / unit for cell in row] for row in shown]
    assert all(abs(cell - round(cell)) < 1e-6 for row in units for cell in row)
    assert sum(round(cell) for row in units for cell in row) == round(round(total, digits) / unit)
    near = [zip(*rows, strict=True) for rows in zip(shown, cells, strict=True)]
    assert all(abs(mine - cell) <= unit * (2 + 1e-6) for row in near for mine, cell in row)
    for mine, theirs in ((shown, cells), (zip(*shown, strict=True), zip(*cells, strict=True))):
        assert all(abs(sum(a) - sum(b)) <= unit * (1 + 1e-6) for a, b in zip(mine, theirs, strict=True))
    assert not any(str(cell) == "-0.0" for row in shown for cell in row)


def test_a_row_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="argument"):
        table(HEADINGS, [["plain", "1"]])


def test_spread_is_mean_and_sample_deviation() -> None:
    spread = Spread.of([1.0, 2.0, 4.0])
    assert (spread.mean, spread.deviation) == (pytest.approx(7 / 3), pytest.approx(statistics.stdev([1, 2, 4])))
    assert spread.text(2) == "2.33 ± 1.53"
    assert Spread.of([2.0]) == Spread(2.0, None)
    assert Spread.of([2.0]).text(sign="+") == "+2.0"
