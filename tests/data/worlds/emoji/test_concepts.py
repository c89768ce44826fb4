"""What an emoji shows, and one spelling of its code."""

from __future__ import annotations

from boresight.data.worlds.emoji.concepts import Concept, plain_code


def concept(code: str, family: str, *tones: str) -> Concept:
    return Concept(code, family, family, family, (), tones, "", "", "people & body", "person role", (), ())


def test_cells_ignore_direction_and_order_of_two_people() -> None:
    assert concept("1", "kiss", "light", "dark").cell == concept("2", "kiss", "dark", "light").cell
    assert concept("1", "person walking facing right", "dark").cell == concept("2", "person walking", "dark").cell


def test_codes_are_written_one_way() -> None:
    assert plain_code("0031-FE0F-20E3") == plain_code("31-20e3") == "31-20e3"
    assert plain_code("1f3f4-e0067_e0062") == "1f3f4-e0067-e0062"
