"""Figures by flat name."""

from __future__ import annotations

import json

import pytest

from boresight.data.problems import Problem
from boresight.errors import InputError
from boresight.evaluation import Scores

SCORES = Scores(
    {"text": 50.0, "group": 12.5},
    "group",
    "pairs",
    {"examples": 1400, "left out": 1},
    {"group": 100 / 6},
    (Problem("torn", "a"),),
)


def test_figures_go_by_name_and_others_are_refused() -> None:
    assert SCORES["text"] == 50
    assert SCORES[SCORES.main] == 12.5
    with pytest.raises(InputError, match=r"There is no 'image' of pairs; choose from text, group\."):
        SCORES["image"]


def test_scores_print_what_they_hold_and_what_chance_is() -> None:
    lines = str(SCORES).splitlines()
    assert lines[0] == "pairs: 1,400 examples, 1 left out"
    assert [line.split() for line in lines[1:]] == [["value", "chance"], ["text", "50.00"], ["group", "12.50", "16.67"]]
    assert "chance" not in str(Scores({"a": 1.0}, "a", "b"))


def test_scores_go_to_json() -> None:
    expected = {"text": 50.0, "group": 12.5, "examples": 1400, "left out": 1}
    assert json.loads(json.dumps(SCORES.to_dict())) == expected
