"""The emoji collection as a user sees it; skipped where its packages cannot be had."""

from __future__ import annotations

import io
import json
from collections import Counter, defaultdict

import pytest
from PIL import Image

from boresight.data.collection import Collection
from boresight.data.worlds.emoji.concepts import HAIR, Concept, captions_of, read_concepts
from boresight.data.worlds.emoji.load import load_emoji
from boresight.data.worlds.emoji.npm import install_emoji_packages
from boresight.data.worlds.emoji.splits import SPLITS
from boresight.errors import InputError


@pytest.fixture(scope="module")
def emoji() -> Collection:
    try:
        return load_emoji()
    except InputError as error:
        pytest.skip(f"the emoji packages cannot be had: {error}")


@pytest.fixture(scope="module")
def rows(emoji: Collection) -> list[dict]:
    return emoji.dataset.remove_columns("image").to_list()


@pytest.fixture(scope="module")
def concepts(emoji: Collection) -> dict[str, Concept]:
    return {concept.code: concept for concept in read_concepts(install_emoji_packages())}


def test_every_split_is_there_and_ids_are_unique(emoji: Collection) -> None:
    counts = Counter(emoji.splits)
    assert set(counts) == set(SPLITS)
    assert counts["encoder"] > 2500
    assert counts["train"] > 2000
    assert 200 < counts["validation"] < counts["encoder"] / 5
    assert counts["test-combination"] > 200
    assert counts["test-style"] == 1000
    assert len(set(emoji.ids)) == len(emoji)


def test_a_concept_has_one_picture_in_a_split_and_styles_keep_apart(rows: list[dict]) -> None:
    assert max(Counter((row["split"], row["concept"]) for row in rows).values()) == 1
    for row in rows:
        assert (row["style"] == "fluent-flat") == (row["split"] == "test-style")
    styles = defaultdict(dict)
    for row in rows:
        styles[row["concept"]][row["split"]] = row["style"]
    both = [found for found in styles.values() if "train" in found]
    assert all(found["encoder"] != found["train"] for found in both)
    assert {found["train"] for found in both} == {"fluent-3d", "noto"}


def test_held_out_combinations_are_new_but_their_parts_are_not(rows: list[dict], concepts: dict[str, Concept]) -> None:
    cells = defaultdict(set)
    for row in rows:
        concept = concepts[row["concept"]]
        if row["held_out"] == "combination" or row["split"] in ("encoder", "train"):
            cells[row["split"]].add(concept.cell)
    trained = {cell for cell in cells["encoder"] | cells["train"] if cell[1]}
    families, tones = {family for family, _ in trained}, {tone for _, tone in trained}
    for split in ("validation", "test-combination"):
        assert cells[split]
        assert not cells[split] & trained
        assert {family for family, _ in cells[split]} <= families
        assert {tone for _, tone in cells[split]} <= tones
    assert not cells["validation"] & cells["test-combination"]


def test_validation_has_families_never_trained_on(rows: list[dict]) -> None:
    new = {row["family"] for row in rows if row["held_out"] == "concept"}
    assert len(new) > 100
    assert not new & {row["family"] for row in rows if row["split"] != "validation"}


def test_the_style_test_shows_known_concepts_and_at_most_half_of_them_toned(rows: list[dict]) -> None:
    known = {row["concept"] for row in rows if row["split"] == "encoder"}
    shown = [row for row in rows if row["split"] == "test-style"]
    assert {row["concept"] for row in shown} <= known
    toned = [row for row in shown if json.loads(row["attributes"])["skin_tones"]]
    assert len(toned) <= len(shown) / 2
    assert max(Counter(row["family"] for row in toned).values()) <= 20


def test_captions_grow_and_never_name_the_style(rows: list[dict]) -> None:
    for row in rows:
        assert row["caption_kinds"] == ["short", "medium", "long"]
        short, medium, long = row["captions"]
        assert short.strip()
        assert short != medium != long
        assert len(short) < len(long)
        attributes = json.loads(row["attributes"])
        assert all(f"{tone} skin tone" in medium and f"{tone} skin tone" in long for tone in attributes["skin_tones"])
        assert all(tag in long for tag in attributes["tags"])
        assert attributes["hair"] in ("", *HAIR)
        assert not any(word in long.lower() for word in ("fluent", "noto ", "3d"))


@pytest.mark.parametrize(
    ("code", "short", "medium"),
    [
        ("1f469-1f3fe-200d-1f692", "firefighter", "woman firefighter with medium-dark skin tone"),
        ("1f468-1f3fd-200d-1f9b0", "person", "man with medium skin tone and red hair"),
        ("1f469-200d-1f9b2", "person", "bald woman"),
        ("1f1eb-1f1f7", "flag of France", "flag of France: FR"),
        ("31-20e3", "keycap 1", "keycap 1: one"),
        ("1f9dc-200d-2640", "merperson", "mermaid"),
        ("1f468-200d-1f469-200d-1f466", "family", "family of man, woman and boy"),
    ],
)
def test_known_emoji_read_as_people_would_say(concepts: dict[str, Concept], code: str, short: str, medium: str) -> None:
    assert captions_of(concepts[code])[:2] == [short, medium]


def test_pictures_are_as_large_as_asked_for_and_not_blank(emoji: Collection) -> None:
    first_of = {style: emoji.dataset["style"].index(style) for style in ("fluent-3d", "fluent-flat", "noto")}
    for row in first_of.values():
        picture = emoji.image(row)
        assert picture.size == (96, 96)
        assert picture.getpixel((0, 0)) == (255, 255, 255)
        assert len(picture.getcolors(96 * 96)) > 8


def test_no_two_pictures_of_a_split_are_the_same(emoji: Collection) -> None:
    pictures = Counter(
        (split, image["bytes"]) for split, image in zip(emoji.splits, emoji.dataset["image"], strict=True)
    )
    assert max(pictures.values()) == 1


def test_loading_again_gives_the_same(emoji: Collection) -> None:
    again = load_emoji()
    assert again.dataset.data.table.equals(emoji.dataset.data.table)
    Image.open(io.BytesIO(again.dataset[0]["image"]["bytes"])).verify()


def test_tiny_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="choose a size of 8 or more"):
        load_emoji(size=4)
