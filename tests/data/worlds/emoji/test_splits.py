"""Which picture of which emoji goes into which split."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from boresight.data.worlds.emoji.concepts import Concept
from boresight.data.worlds.emoji.splits import assign_splits, draw, held_out_cells


def concept(code: str, family: str, *tones: str) -> Concept:
    return Concept(code, family, family, family, (), tones, "", "", "people & body", "person role", (), ())


def world(families: int, tones: int, plain: int) -> list[Concept]:
    people = [
        concept(f"{family}-{tone}", f"role {family}", *((f"tone {tone}",) if tone else ()))
        for family in range(families)
        for tone in range(tones + 1)
    ]
    return people + [concept(f"thing-{row}", f"thing {row}") for row in range(plain)]


@given(st.integers(3, 12), st.integers(3, 6), st.integers(0, 30))
def test_splits_keep_their_promises_in_any_world(families: int, tones: int, plain: int) -> None:
    concepts = world(families, tones, plain)
    assigned = assign_splits(concepts, {row.code: {"fluent-3d", "noto", "fluent-flat"} for row in concepts})
    by_split = {split: [row for row in assigned if row.split == split] for split in {row.split for row in assigned}}
    trained = {row.concept.cell for row in by_split["encoder"] + by_split["train"]}
    for split in ("validation", "test-combination"):
        for row in by_split.get(split, []):
            assert row.concept.cell not in trained
            assert row.style != "fluent-flat"
    assert all(row.style == "fluent-flat" for row in by_split["test-style"])
    assert max(Counter((row.split, row.concept.code) for row in assigned).values()) == 1
    for family in {row.family for row in concepts if row.tones}:
        held = [cell for cell in held_out_cells(concepts) if cell[0] == family]
        assert len(held) <= 0.4 * tones


def test_a_concept_of_one_style_goes_to_the_encoder_and_one_of_none_nowhere() -> None:
    one, none = concept("1", "role a"), concept("2", "role b")
    assigned = assign_splits([one, none], {"1": {"noto"}, "2": {"fluent-flat"}})
    assert [(row.concept.code, row.style, row.split) for row in assigned] == [("1", "noto", "encoder")]


def test_draw_depends_on_its_names_alone() -> None:
    assert draw("cell", "firefighter", "dark") == draw("cell", "firefighter", "dark")
    assert draw("a", "bc") != draw("ab", "c")
    values = [draw("row", str(row)) for row in range(2000)]
    assert 0 <= min(values) < max(values) < 1
    assert abs(np.mean(values) - 0.5) < 0.03
