"""Pairs of image and caption that come with the pixels the caption tells of, and with a rival on the same image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from boresight.data.worlds.scene_pictures import render
from boresight.data.worlds.scene_world import ATTRIBUTES, PLACES, Described, Scene, caption_of, draw_scene, shuffled
from boresight.data.worlds.scenes import check_drawing
from boresight.errors import InputError


@dataclass(frozen=True, eq=False)
class CaptionedImages:
    """P pictures of any size with a caption each, of which nothing more is known."""

    images: list[Image.Image]
    captions: list[str]
    name: str


@dataclass(frozen=True, eq=False)
class GroundedPairs:
    """P pairs whose truth is known. Checked when made: InputError when the parts do not fit together.

    Attributes:
        images: P pictures, RGB, all of W x H pixels.
        captions: of each, true of its target alone.
        targets: (P, H, W) booleans, the pixels that the caption tells of.
        other_captions: of each, true of its distractor alone: another thing on the same picture.
        distractors: (P, H, W) booleans, apart from `targets`.
        name: what to call them.
    """

    images: list[Image.Image]
    captions: list[str]
    targets: Tensor
    other_captions: list[str]
    distractors: Tensor
    name: str

    def __len__(self) -> int:
        return len(self.images)

    def __post_init__(self) -> None:
        parts = ("captions", "targets", "other_captions", "distractors")
        for part in parts:
            if len(getattr(self, part)) != len(self.images):
                raise InputError(
                    f"{self.name} has {len(self.images)} images and {len(getattr(self, part))} {part}; "
                    "every image needs one of each."
                )
        for part in ("targets", "distractors"):
            masks = getattr(self, part)
            if masks.ndim != 3 or masks.dtype != torch.bool:
                raise InputError(f"{part} of {self.name} must be booleans, (pairs, height, width).")
            if not bool(masks.flatten(1).any(1).all()):
                raise InputError(f"A mask among {part} of {self.name} is empty; leave that pair out.")
        sizes = {image.size for image in self.images} | {
            (masks.shape[2], masks.shape[1]) for masks in (self.targets, self.distractors)
        }
        if len(sizes) > 1:
            listed = ", ".join(f"{width} x {height}" for width, height in sorted(sizes))
            raise InputError(f"Images and masks of {self.name} have several sizes ({listed}); make them one size.")
        if bool((self.targets & self.distractors).any()):
            raise InputError(f"A target and its distractor in {self.name} share pixels; make their masks disjoint.")


def scene_pairs(
    n: int,
    *,
    seed: int,
    size: int = 96,
    split: str = "test",
    objects: tuple[int, int] = (2, 4),
    attributes: Sequence[str] = ("colour",),
) -> GroundedPairs:
    """`n` scenes of the generated world, two objects of each told apart: 'a red star', 'a blue ring'.

    Either caption names an object by its shape and `attributes` (of ATTRIBUTES; none for the shape alone) and is true
    of no other object in the scene; scenes of fewer than two such objects are passed over. Scenes are those of
    `make_scenes` with the same seed, split, size and `objects` = (fewest, most). Pair i depends on no later one.

    Raises InputError when a number, a size, a split or an attribute makes no sense.
    """
    check_scenes(n, size, objects, split, least=2)
    unknown = [attribute for attribute in attributes if attribute not in ATTRIBUTES]
    if isinstance(attributes, str) or unknown:
        raise InputError(f"attributes is {attributes!r}; pass a list of names among {', '.join(ATTRIBUTES)}.")
    images: list[Image.Image] = []
    captions: tuple[list[str], list[str]] = ([], [])
    masks: tuple[list[Tensor], list[Tensor]] = ([], [])
    for index in itertools.count():
        if len(images) == n:
            break
        scene, numbers = draw_scene(seed, split, index, objects)
        named = _told_apart(scene, attributes)
        if len(named) < 2:
            continue
        picture, labels = render(scene, size)
        images.append(Image.fromarray(picture))
        for row, texts, shown in zip(shuffled(named, numbers)[:2], captions, masks, strict=True):
            texts.append(caption_of(scene, Described({row: tuple(attributes)}, background=False)))
            shown.append(torch.from_numpy(labels == row + 1))
    return GroundedPairs(
        images, captions[0], torch.stack(masks[0]), captions[1], torch.stack(masks[1]), f"scenes, {split}"
    )


def check_scenes(n: int, size: int, objects: tuple[int, int], split: str, *, least: int) -> None:
    """Raises InputError unless `n` pairs can be drawn on scenes of `size` pixels with `objects`, `least` or more."""
    fewest, most = objects
    if not least <= fewest <= most <= len(PLACES):
        raise InputError(f"A pair needs {least} to {len(PLACES)} objects, not {fewest} to {most}; change `objects`.")
    check_drawing(n, size, objects, split, what="pair")


def _told_apart(scene: Scene, attributes: Sequence[str]) -> list[int]:
    """The objects that no other object of the scene equals in shape and `attributes`."""
    looks = [(thing.shape, *(getattr(thing, attribute) for attribute in attributes)) for thing in scene.things]
    return [row for row, look in enumerate(looks) if looks.count(look) == 1]
