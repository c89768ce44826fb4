"""Filters let through what Python's own evaluation of the same words does, and run nothing else."""

from __future__ import annotations

import datetime
import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.errors import InputError
from boresight.search.filters import matching

YEARS = [1999, 2010, 2020, 2021, None, 2024]
ROWS: dict[str, list[Any]] = {
    "year": YEARS,
    "place": ["Rome", "Oslo", "Rome", None, "Bern", "Oslo's"],
    "score": [0.5, -1.0, 2.5, 0.0, 1.0, None],
    "good": [True, False, True, None, False, True],
    "taken": [None if year is None else datetime.date(year, 5, 1) for year in YEARS],
}
MORE: dict[str, Any] = {
    "taken at": ["noon", "noon", "dusk", None, None, None],
    "class": ["a", "b", "b", None, None, None],
    "cafe\u0301": [1, None, None, None, None, None],
    "big": [1, 2**53 + 1, 2**62, None, None, None],
    "third": pa.array([0.1, 0.2, None, None, None, None], pa.float32()),
    "__row": [0] * 6,
}
TABLE = pa.table(ROWS | MORE)


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("year > 2010", [2, 3, 5]),
        ("2010 <= year < 2021", [1, 2]),
        ("2010 < year", [2, 3, 5]),
        ("score == -1.0 or score == 2.5", [1, 2]),
        ("place == 'Rome' and year != 1999", [2]),
        ("place in ['Rome', \"Oslo's\"]", [0, 2, 5]),
        ("place not in ('Rome', 'Oslo') and place is not None", [4, 5]),
        ("place is None", [3]),
        ("not (year > 2010)", [0, 1]),
        ("good", [0, 2, 5]),
        ("not good and year is not None", [1]),
        ("good == True", [0, 2, 5]),
        ("taken >= '2020-05-01'", [2, 3, 5]),
        ("taken in ['2010-05-01']", [1]),
        ("  year > 2010\t", [2, 3, 5]),
        ("year > 2010.5", [2, 3, 5]),
        ("year in [2010, 2020.5, 2021.0]", [1, 3]),
        ("year > score", [0, 1, 2, 3]),
        ("place in []", []),
        ("year not in []", [0, 1, 2, 3, 4, 5]),
        ("column('year') > 2010", [2, 3, 5]),
        ("column('taken at') == 'noon' and column('class') in ['b']", [1]),
        ("column('cafe\u0301') is not None", [0]),
        ("big == 9007199254740993", [1]),
        ("big > 1.5", [1, 2]),
        ("third == 0.1", [0]),
    ],
)
def test_matching(where: str, rows: list[int]) -> None:
    assert matching(TABLE, where).nonzero()[0].tolist() == rows


def test_an_expression_is_taken_as_it_is() -> None:
    assert matching(TABLE, pc.field("year") > 2010).nonzero()[0].tolist() == [2, 3, 5]


ATOMS = st.sampled_from(["year > 2010", "score <= 0.5", "place == 'Oslo'", "year in [1999, 2024]", "good == False"])
WORDS = st.recursive(
    ATOMS,
    lambda part: st.one_of(
        st.tuples(part, st.sampled_from(["and", "or"]), part).map(
            lambda three: f"({three[0]}) {three[1]} ({three[2]})"
        ),
        part.map(lambda one: f"not ({one})"),
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(WORDS)
def test_as_python_reads_it(where: str) -> None:
    whole = [row for row in range(6) if all(column[row] is not None for column in ROWS.values())]
    wanted = [row for row in whole if eval(where, {}, {name: column[row] for name, column in ROWS.items()})]
    assert [row for row in matching(TABLE, where).nonzero()[0].tolist() if row in whole] == wanted


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("year >", "cannot be read"),
        ("", "cannot be read"),
        ("yaer > 3", "no column 'yaer'; did you mean year"),
        ("__import__('os').system('true')", "is not read"),
        ("year.real > 3", "is not read"),
        ("year + 1 > 3", "is not read"),
        ("[year for year in place]", "is not read"),
        ("year > place()", "is not read"),
        ("1 > 2", "is not read"),
        ("3", "is not read"),
        ("year > 'x'", "holds int64, not text"),
        ("place > 3", "holds text, such as place == '3'"),
        ("taken > 'soon'", "no date32"),
        ("place", "cannot be used"),
        ("place == None", "write place is None"),
        ("year >\n 3\n and", "cannot be read"),
        ("taken at > 3", "column('taken at')"),
        ("column('yaer') > 3", "no column 'yaer'"),
        ("column(place) == 3", "is not read"),
        ("column('place', 'year') == 3", "is not read"),
        ("year > 1" + " and year > 1" * 200, "2,000 at most"),
        ("not " * 400 + "good", ""),
        ("year > 3\x00", "cannot be read"),
    ],
)
def test_anything_else_gets_one_sentence(where: str, sentence: str) -> None:
    if where.startswith("not not"):
        assert matching(TABLE, where).nonzero()[0].tolist() == [0, 2, 5]  # deep, and read all the same
        return
    with pytest.raises(InputError, match=re.escape(sentence)) as raised:
        matching(TABLE, where)
    assert "\n" not in str(raised.value)
