"""Captions of two phrases, one true of the image and one false: words that an explanation has to tell apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image

from boresight.data.collection import Collection
from boresight.data.worlds.scene_pictures import render
from boresight.data.worlds.scene_world import COLOURS, HELD_OUT, SHAPES, Scene, draw_scene, pick, thing_phrase
from boresight.errors import InputError
from boresight.sae.vocabulary import WORD, is_content
from boresight.seeds import generator
from worlds.grounded import check_scenes

Span = tuple[int, int]
_BETWEEN = " and "


@dataclass(frozen=True, eq=False)
class GroundedTexts:
    """P images with captions whose truth is known by phrase. Checked when made: InputError when parts do not fit.

    Attributes:
        images: P pictures, RGB.
        captions: of each, a phrase that is true of it and one that is false, in any order.
        true: (start, end) of each caption, the characters of the phrase that is true of the image.
        false: the same, of the phrase that is not.
        name: what to call them.
    """

    images: list[Image.Image]
    captions: list[str]
    true: list[Span]
    false: list[Span]
    name: str

    def __len__(self) -> int:
        return len(self.images)

    def __post_init__(self) -> None:
        for part in ("captions", "true", "false"):
            if len(getattr(self, part)) != len(self.images):
                raise InputError(
                    f"{self.name} has {len(self.images)} images and {len(getattr(self, part))} {part}; "
                    "every image needs one of each."
                )
        for row, (caption, *spans) in enumerate(zip(self.captions, self.true, self.false, strict=True)):
            (start, end), (later, last) = sorted(spans)
            if not 0 <= start < end <= later < last <= len(caption):
                raise InputError(
                    f"The phrases {spans} of caption {row} of {self.name} overlap, are empty or reach beyond its "
                    f"{len(caption)} characters; give two stretches of it."
                )


def scene_texts(
    n: int, *, seed: int, size: int = 96, split: str = "test", objects: tuple[int, int] = (1, 3)
) -> GroundedTexts:
    """`n` scenes of the generated world under captions like 'a red star and a blue ring', one of which is not there.

    The true phrase names an object of the scene by colour and shape. In the false one, neither the colour nor the shape
    occurs in the scene or its background, and the two are no held-out combination. Scenes are those of `make_scenes`
    with the same seed, split, size and `objects` = (fewest, most); one that leaves nothing false to say is passed over.
    Pair i depends on no later one.

    Raises InputError when a number, a size or a split makes no sense.
    """
    check_scenes(n, size, objects, split, least=1)
    images: list[Image.Image] = []
    made: list[tuple[str, Span, Span]] = []
    for index in itertools.count():
        if len(images) == n:
            break
        scene, numbers = draw_scene(seed, split, index, objects)
        absent = _absent(scene)
        if not absent:
            continue
        images.append(Image.fromarray(render(scene, size)[0]))
        thing = scene.things[pick(len(scene.things), numbers)]
        colour, shape = absent[pick(len(absent), numbers)]
        phrases = (thing_phrase(each, ("colour",)) for each in (thing, replace(thing, colour=colour, shape=shape)))
        made.append(_joined(*phrases, true_first=next(numbers) < 0.5))
    return _texts(images, made, f"scenes, {split}")


def emoji_texts(n: int, *, seed: int, collection: Collection) -> GroundedTexts:
    """`n` pictures under a caption of their own joined with one of another picture, which is false of them.

    The false phrase shares no content word with any caption of the picture. Phrases are short captions, where the
    column `caption_kinds` tells, else each picture's shortest; pictures without a content word in theirs are left out.
    Pair i depends on the seed, i and the collection. Restrict the collection to a split that the model has not seen.

    Raises InputError for n < 1 or a collection without two such pictures.
    """
    if n < 1:
        raise InputError(f"{n} pictures with captions cannot be made; ask for 1 or more.")
    phrases = _short_captions(collection)
    said = [_content(phrase) for phrase in phrases]
    known = [set().union(*map(_content, captions)) for captions in collection.captions]
    images: list[Image.Image] = []
    made: list[tuple[str, Span, Span]] = []
    for index in range(n):
        random = generator(seed, f"emoji texts/{index}")
        order = [row for row in torch.randperm(len(phrases), generator=random).tolist() if said[row]]
        strangers = next(((row, other) for row in order for other in order if not known[row] & said[other]), None)
        if strangers is None:
            raise InputError(
                f"{collection.name or 'The collection'} ({len(phrases)} pictures) holds no two pictures whose captions "
                "share no word; pass more of it."
            )
        row, other = strangers
        images.append(collection.image(row))
        made.append(_joined(phrases[row], phrases[other], true_first=bool(torch.rand((), generator=random) < 0.5)))
    return _texts(images, made, collection.name)


def _absent(scene: Scene) -> list[tuple[str, str]]:
    """Colours and shapes that the scene does not show."""
    colours = {thing.colour for thing in scene.things} | set(scene.background.split())
    shapes = {thing.shape for thing in scene.things}
    pairs = itertools.product((c for c in COLOURS if c not in colours), (s for s in SHAPES if s not in shapes))
    return [(colour, shape) for colour, shape in pairs if HELD_OUT[colour] != shape]


def _joined(true: str, false: str, *, true_first: bool) -> tuple[str, Span, Span]:
    first, second = (true, false) if true_first else (false, true)
    spans = (0, len(first)), (len(first) + len(_BETWEEN), len(first) + len(_BETWEEN) + len(second))
    return f"{first}{_BETWEEN}{second}", spans[not true_first], spans[true_first]


def _texts(images: list[Image.Image], made: Sequence[tuple[str, Span, Span]], label: str) -> GroundedTexts:
    captions, true, false = map(list, zip(*made, strict=True))
    return GroundedTexts(images, captions, true, false, label)


def _content(text: str) -> set[str]:
    return {match.group() for match in WORD.finditer(text.lower()) if is_content(match.group())}


def _short_captions(collection: Collection) -> list[str]:
    """Each picture's first caption of the kind 'short'; its shortest where there is none, or where kinds are not told.

    '' for a picture without captions.
    """
    captions = collection.captions
    has_kinds = "caption_kinds" in collection.dataset.column_names
    kinds = collection.dataset["caption_kinds"][:] if has_kinds else [[""] * len(texts) for texts in captions]
    chosen = []
    for texts, of_texts in zip(captions, kinds, strict=True):
        short = [text for text, kind in zip(texts, of_texts, strict=True) if kind == "short"]
        chosen.append((short or sorted(texts, key=len) or [""])[0].strip(" ."))
    return chosen
