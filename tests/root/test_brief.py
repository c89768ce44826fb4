"""Short words for anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.brief import WIDEST, Brief, brief, frequencies
from boresight.tables import html_table

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(torch.zeros(2, 3))
anything = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner), max_leaves=30
)


@given(anything)
@settings(max_examples=200, deadline=None)
def test_it_is_short_and_on_one_line(value: Any) -> None:
    said = brief(value)
    assert len(said) <= WIDEST
    assert "\n" not in said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(5, 4, dtype=torch.float16), "float16 (5, 4)"),
        (np.zeros(3, np.int64), "int64 (3,)"),
        (np.float64(1.25), "1.25"),
        (torch.tensor(3), "3"),
        (["a"] * 25010, "25,010 str"),
        ([1, "a"] * 100, "200 things"),
        (["a", "b"], "['a', 'b']"),
        ({"plain": 3.0}, "{'plain': 3}"),
        ("word " * 50, "'word word word word word word word word word word word ...'"),
        ("\x00" * 60, "'" + "\\x00" * 13 + "\\x0...'"),
        (object(), "object"),
        (Path("a"), "PosixPath('a')"),
        (int, "<class 'int'>"),
    ],
)
def test_by_hand(value: Any, said: str) -> None:
    assert brief(value) == said


def test_a_long_column_is_not_read_whole() -> None:
    class OnDisk(list):
        read = 0

        def __getitem__(self, row: Any) -> Any:
            raise AssertionError

        def __iter__(self):
            for one in super().__iter__():
                self.read += 1
                yield one

    column = OnDisk(["x"] * 100_000)
    assert brief(column) == "100,000 str"
    assert column.read < 100


def test_counted_names_five() -> None:
    assert frequencies(["test", "train", "train"]) == "train 2, test 1"
    assert frequencies([str(number) for number in range(7)]).endswith(", 2 more")
    assert frequencies([]) == ""


@dataclass(frozen=True, repr=False)
class Thing(Brief):
    name: str
    rows: Any
    hidden: Any = field(default=None, repr=False)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)


def test_a_dataclass_on_one_line_and_escaped() -> None:
    thing = Thing("<script>\n", np.zeros((2, 2)), "secret")
    assert repr(thing) == "Thing(name='<script>\\n', rows=float64 (2, 2))"
    seen = Tags()
    seen.feed(thing._repr_html_())
    assert set(seen.tags) == {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert html_table(["<b>"], [["<b>"]], "<b>").count("<b>") == 0
