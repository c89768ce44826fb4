"""Pairs of known truth in the generated world."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from boresight.data.worlds.scene_world import ATTRIBUTES, COLOURS, draw_scene
from boresight.errors import InputError
from worlds.grounded import GroundedPairs, scene_pairs


@pytest.fixture(scope="module")
def scenes() -> GroundedPairs:
    return scene_pairs(25, seed=0, size=48)


def true_of(caption: str, objects: list, attributes: tuple[str, ...]) -> list[int]:
    """The objects that a caption is true of, read from its words."""
    found = []
    for row, thing in enumerate(objects):
        told = [thing.shape, *(getattr(thing, attribute) for attribute in attributes)]
        if all(f" {word} " in f" {caption} " for word in told):
            found.append(row)
    return found


@pytest.mark.parametrize("attributes", [("colour",), (), ("texture", "size"), ATTRIBUTES[:3]])
def test_captions_of_scenes_are_true_of_one_object_and_masks_are_its_pixels(attributes: tuple[str, ...]) -> None:
    pairs = scene_pairs(12, seed=5, size=96, attributes=attributes, objects=(3, 4))
    drawn = (draw_scene(5, "test", index, (3, 4))[0] for index in itertools.count())
    for row in range(len(pairs)):
        sides = ((pairs.captions, pairs.targets), (pairs.other_captions, pairs.distractors))
        for scene in drawn:
            found = [true_of(texts[row], list(scene.things), attributes) for texts, _ in sides]
            looks = [(t.shape, *(getattr(t, a) for a in attributes)) for t in scene.things]
            if sum(looks.count(look) == 1 for look in looks) >= 2:
                break
        assert [len(objects) for objects in found] == [1, 1]
        assert found[0] != found[1]
        for (_, masks), (number,) in zip(sides, found, strict=True):
            thing = scene.things[number]
            ys, xs = masks[row].nonzero(as_tuple=True)
            assert abs(ys - thing.y * 96).max() <= thing.radius * 96 + 1
            assert abs(xs - thing.x * 96).max() <= thing.radius * 96 + 1
            if "colour" in attributes:
                pixels = torch.from_numpy(np.array(pairs.images[row]))[masks[row]].int()
                near = (pixels - torch.tensor(COLOURS[thing.colour])).abs().amax(1) < 12
                assert near.double().mean() > 0.2


def test_scene_pairs_are_reproducible_and_grow_at_the_end(scenes: GroundedPairs) -> None:
    fewer = scene_pairs(10, seed=0, size=48)
    assert len(scenes) == 25
    assert scenes.captions[:10] == fewer.captions
    assert torch.equal(scenes.distractors[:10], fewer.distractors)
    assert scenes.captions != scene_pairs(25, seed=1, size=48).captions
    assert not (scenes.targets & scenes.distractors).any()
    assert {image.size for image in scenes.images} == {(48, 48)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scene_pairs(0, seed=0), "0 pairs"),
        (lambda: scene_pairs(1, seed=0, size=8), "24 pixels"),
        (lambda: scene_pairs(1, seed=0, objects=(1, 4)), "2 to 9 objects"),
        (lambda: scene_pairs(1, seed=0, split="nowhere"), "no split 'nowhere'"),
        (lambda: scene_pairs(1, seed=0, attributes=("shape",)), "size, texture, colour, place"),
        (lambda: scene_pairs(1, seed=0, attributes="colour"), "pass a list"),
    ],
)
def test_pairs_that_cannot_be_made_are_refused(call: Callable, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts: parts.update(captions=["a"]), "2 images and 1 captions"),
        (lambda parts: parts.update(targets=parts["targets"].float()), "must be booleans"),
        (lambda parts: parts.update(targets=parts["targets"] & False), "empty"),
        (lambda parts: parts.update(targets=parts["targets"][:, :2]), "several sizes"),
        (lambda parts: parts.update(targets=parts["distractors"]), "share pixels"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(change: Callable, message: str) -> None:
    masks = torch.zeros(2, 2, 4, 4, dtype=torch.bool)
    masks[0, :, :2] = masks[1, :, 2:] = True
    parts = {
        "images": [Image.new("RGB", (4, 4))] * 2,
        "captions": ["a", "b"],
        "targets": masks[0],
        "other_captions": ["b", "a"],
        "distractors": masks[1],
        "name": "test",
    }
    assert len(GroundedPairs(**parts)) == 2
    change(parts)
    with pytest.raises(InputError, match=message):
        GroundedPairs(**parts)
