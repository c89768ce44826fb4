"""The generated world: what it says about itself is what it shows."""

from __future__ import annotations

import io
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from boresight.data.collection import Collection
from boresight.data.worlds.scene_pictures import distance, render
from boresight.data.worlds.scene_world import (
    ATTRIBUTES,
    COLOURS,
    HELD_OUT,
    PLACES,
    SHAPES,
    Described,
    Scene,
    Thing,
    caption_of,
    draw_described,
    draw_scene,
)
from boresight.data.worlds.scenes import SPLITS, load_scenes, make_scenes
from boresight.errors import InputError


@pytest.fixture(scope="module")
def scenes() -> Collection:
    return make_scenes(150)


def masks_of(row: dict) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(row["masks"])))


def test_a_scene_depends_on_seed_and_index_alone(scenes: Collection) -> None:
    assert make_scenes(40).dataset.data.table.equals(scenes.dataset.data.table.slice(0, 40))
    assert make_scenes(40, seed=1).captions != scenes.captions[:40]
    assert make_scenes(40, split="validation").captions != scenes.captions[:40]
    larger = make_scenes(40, size=48)
    assert larger.captions == scenes.captions[:40]
    assert larger.image(0).size == (48, 48)


def test_masks_agree_with_the_told_places_and_sizes(scenes: Collection) -> None:
    cell = 96 / 3
    for row in scenes.dataset:
        labels = masks_of(row)
        assert labels.shape == (96, 96)
        objects = json.loads(row["attributes"])["objects"]
        assert set(np.unique(labels)) == {*range(len(objects) + 1)}
        assert len({thing["place"] for thing in objects}) == len(objects)
        for number, thing in enumerate(objects, start=1):
            ys, xs = np.nonzero(labels == number)
            line, column = PLACES[thing["place"]]
            assert line * cell <= ys.min() <= ys.max() < (line + 1) * cell
            assert column * cell <= xs.min() <= xs.max() < (column + 1) * cell
            assert max(np.ptp(ys), np.ptp(xs)) + 1 == pytest.approx(2 * thing["radius"] * 96, rel=0.22)


# Areas in squared radii, by geometry: a star has ten triangles, a heart a square and two half discs, and so on.
AREAS = {
    "circle": math.pi,
    "ring": math.pi * (1 - 0.25),
    "square": 1.7**2,
    "diamond": 2.0,
    "triangle": 0.95 * 1.75,
    "cross": 4 * 0.33 * (2 - 0.33),
    "heart": 1.15**2 * (1 + math.pi / 4),
    "star": 5 * 0.45 * math.sin(math.pi / 5),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_have_the_area_geometry_gives_them(shape: str) -> None:
    thing = Thing(shape, "large", "solid", "blue", "centre", 0.5, 0.5, 0.45)
    _, labels = render(Scene((thing,), "white"), 400)
    assert labels.sum() / (0.45 * 400) ** 2 == pytest.approx(AREAS[shape], rel=0.01)
    assert (labels == labels[:, ::-1]).mean() > 0.999


@pytest.mark.parametrize("shape", SHAPES)
def test_distances_have_slope_one_near_the_outline(shape: str) -> None:
    grid = np.linspace(-1.2, 1.2, 481, dtype=np.float64)
    values = distance(shape, grid[None, :], grid[:, None])
    slope = np.hypot(*np.gradient(values, grid, grid))
    near = np.abs(values) < 0.02
    assert near.any()
    assert np.median(slope[near]) == pytest.approx(1, abs=0.02)


def test_pictures_show_the_told_colours() -> None:
    for colour, rgb in COLOURS.items():
        thing = Thing("square", "large", "solid", colour, "centre", 0.5, 0.5, 0.16)
        picture, labels = render(Scene((thing,), "cream"), 96)
        assert (picture[44:52, 44:52] == rgb).all()
        assert (picture[:20] == (250, 236, 205)).all()
        assert (picture[labels == 0] != rgb).any()


def test_textures_differ_from_each_other_inside_the_same_mask() -> None:
    seen = {}
    for texture in ("solid", "striped", "dotted", "checked"):
        thing = Thing("circle", "large", texture, "red", "centre", 0.5, 0.5, 0.16)
        picture, labels = render(Scene((thing,), "white"), 96)
        seen[texture] = picture.astype(int), labels
    for one in seen:
        for other in seen:
            assert (seen[one][1] == seen[other][1]).all()
            if one != other:
                assert np.abs(seen[one][0] - seen[other][0]).mean() > 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9))
def test_captions_tell_what_is_recorded_and_nothing_else(index: int, most: int) -> None:
    scene, numbers = draw_scene(3, "train", index, (1, most))
    told = draw_described(scene, numbers)
    for less, more in itertools.pairwise(told):
        assert all(set(attributes) <= set(more.objects[row]) for row, attributes in less.objects.items())
        assert more.background >= less.background
    assert [len(part) for part in told[0].objects.values()] == [1]
    assert len(told[1].objects) == math.ceil(len(scene.things) / 2)
    assert told[2] == Described(dict.fromkeys(told[2].objects, ATTRIBUTES), background=True)
    assert set(told[2].objects) == set(range(len(scene.things)))
    for part in told:
        words = caption_of(scene, part)
        for row, attributes in part.objects.items():
            thing = scene.things[row]
            assert thing.shape in words
            assert all(getattr(thing, attribute) in words for attribute in attributes)
        assert ("background" in words) == part.background


def test_captions_read_well() -> None:
    heart = Thing("heart", "small", "solid", "orange", "left", 0.2, 0.5, 0.1)
    star = Thing("star", "large", "striped", "red", "top right", 0.8, 0.2, 0.1)
    scene = Scene((heart, star), "cream")
    assert caption_of(scene, Described({0: ("colour",)}, False)) == "an orange heart"
    assert caption_of(scene, Described({0: ("place",), 1: ("size", "colour")}, False)) == (
        "a heart on the left and a large red star"
    )
    assert caption_of(scene, Described({1: ATTRIBUTES, 0: ATTRIBUTES}, True)) == (
        "a large striped red star at the top right and a small solid orange heart on the left, on a cream background"
    )
    faded = Scene((heart,), "yellow to rose")
    assert caption_of(faded, Described({0: ("size",)}, True)) == (
        "a small heart, on a background that fades from yellow to rose"
    )


def test_richness_chooses_one_of_the_captions(scenes: Collection) -> None:
    for position, kind in enumerate(("short", "medium", "long")):
        one = make_scenes(10, richness=kind)
        assert one.captions == [[captions[position]] for captions in scenes.captions[:10]]
        assert one.dataset["caption_kinds"][0] == [kind]
        assert [len(json.loads(told)) for told in one.dataset["described"]] == [1] * 10


def test_held_out_pairs_occur_in_their_test_alone() -> None:
    assert len(HELD_OUT) == len(COLOURS)
    collection = load_scenes(60, 50, 40, 30)
    assert {split: collection.splits.count(split) for split in SPLITS} == {
        "encoder": 60, "train": 50, "validation": 40, "test": 30, "test-combination": 30
    }  # fmt: skip
    assert len(set(collection.ids)) == len(collection) == len({row["bytes"] for row in collection.dataset["image"]})
    for row in collection.dataset:
        objects = json.loads(row["attributes"])["objects"]
        held = [thing for thing in objects if HELD_OUT[thing["colour"]] == thing["shape"]]
        assert len(held) == (row["split"] == "test-combination")
        assert row["held_out"] == ("combination" if held else "")


def test_training_shows_every_word_of_the_held_out_pairs() -> None:
    drawn = [thing for row in range(400) for thing in draw_scene(0, "train", row, (1, 4))[0].things]
    assert {thing.colour for thing in drawn} == set(COLOURS)
    assert {thing.shape for thing in drawn} == set(SHAPES)
    counts = [len(draw_scene(0, "train", row, (2, 3))[0].things) for row in range(100)]
    assert set(counts) == {2, 3}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"n": 0}, "ask for at least 1 scene"),
        ({"size": 10}, "at least 24 pixels"),
        ({"objects": (0, 4)}, "between 1 and 9 objects, not 0 to 4"),
        ({"objects": (4, 3)}, "between 1 and 9 objects, not 4 to 3"),
        ({"objects": (1, 10)}, "between 1 and 9 objects, not 1 to 10"),
        ({"split": "tset"}, "no split 'tset'; choose from encoder"),
        ({"richness": "rich"}, "no captions of richness 'rich'; choose from short"),
    ],
)
def test_nonsense_is_refused_with_a_sentence(options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make_scenes(**{"n": 2, **options})
