"""The words of the generated world, the truth of one scene, and captions that tell a chosen part of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TypeVar

import torch

from boresight.data.sentences import enumeration
from boresight.seeds import generator

T = TypeVar("T")

# The order of the words decides what a seed draws.
_WORDS = json.loads((resources.files("boresight.data.worlds") / "scene_words.json").read_bytes())
COLOURS: dict[str, tuple[int, int, int]] = {name: tuple(rgb) for name, rgb in _WORDS["colours"].items()}
SHAPES, TEXTURES = tuple[str, ...](_WORDS["shapes"]), tuple[str, ...](_WORDS["textures"])
SIZES: dict[str, float] = _WORDS["sizes"]  # radius in cells of the 3 x 3 grid
PLACES: dict[str, tuple[int, int]] = {name: tuple(cell) for name, cell in _WORDS["places"].items()}  # row, column
BACKGROUNDS: dict[str, list[list[int]]] = _WORDS["backgrounds"]  # colour at the top, colour at the bottom
ATTRIBUTES = ("size", "texture", "colour", "place")  # of an object, beside its shape
KINDS = ("short", "medium", "long")  # of captions

# Every colour is held out with one shape, so that each word of a held-out pair occurs in training without the other.
HELD_OUT = {colour: SHAPES[(3 * row + 1) % len(SHAPES)] for row, colour in enumerate(COLOURS)}


@dataclass(frozen=True)
class Thing:
    """One object. `x`, `y` (centre) and `radius` are fractions of the picture's side, `y` downwards."""

    shape: str
    size: str
    texture: str
    colour: str
    place: str
    x: float
    y: float
    radius: float

    @property
    def held_out(self) -> bool:
        """Whether its colour on its shape is a pair that only 'test-combination' shows."""
        return HELD_OUT[self.colour] == self.shape


@dataclass(frozen=True)
class Scene:
    """Objects in different cells of a 3 x 3 grid on a background."""

    things: tuple[Thing, ...]
    background: str


def draw_scene(seed: int, split: str, index: int, objects: tuple[int, int]) -> tuple[Scene, Iterator[float]]:
    """Scene `index` of a split, and what is left of its random numbers, in [0, 1), for its captions.

    A function of its arguments alone. In 'test-combination' the first object is a held-out pair of colour and shape;
    no other object of any split is one.
    """
    numbers = iter(torch.rand(160, generator=generator(seed, f"scenes/{split}/{index}"), dtype=torch.float64).tolist())
    fewest, most = objects
    count = fewest + pick(most - fewest + 1, numbers)
    background = list(BACKGROUNDS)[pick(len(BACKGROUNDS), numbers)]
    places = shuffled(list(PLACES), numbers)[:count]
    held = (split == "test-combination" and row == 0 for row in range(count))
    return Scene(
        tuple(_thing(place, hold, numbers) for place, hold in zip(places, held, strict=True)), background
    ), numbers


def _thing(place: str, held_out: bool, numbers: Iterator[float]) -> Thing:
    colour = list(COLOURS)[pick(len(COLOURS), numbers)]
    shapes = [shape for shape in SHAPES if (HELD_OUT[colour] == shape) == held_out]
    shape = shapes[pick(len(shapes), numbers)]
    size = list(SIZES)[pick(len(SIZES), numbers)]
    texture = TEXTURES[pick(len(TEXTURES), numbers)]
    row, column = PLACES[place]
    slack = 1 - 2 * SIZES[size]  # the object stays inside its cell
    x = (column + 0.5 + slack * (next(numbers) - 0.5)) / 3
    y = (row + 0.5 + slack * (next(numbers) - 0.5)) / 3
    return Thing(shape, size, texture, colour, place, round(x, 4), round(y, 4), SIZES[size] / 3)


@dataclass(frozen=True)
class Described:
    """What a caption tells: of which objects (by their number) which attributes, and whether the background.

    `objects` is in the order of mention; every mentioned object's shape is shown.
    """

    objects: Mapping[int, Sequence[str]]
    background: bool


def draw_described(scene: Scene, numbers: Iterator[float]) -> list[Described]:
    """What the captions of KINDS tell; each tells all that the one before it does.

    short: one object by one attribute. medium: half of the objects (rounded up), that one among them, by two
    attributes each. long: all objects by all attributes, and the background.
    """
    order = shuffled(range(len(scene.things)), numbers)
    shown = {
        row: tuple(sorted(shuffled(ATTRIBUTES, numbers)[:2], key=ATTRIBUTES.index))
        for row in order[: (len(order) + 1) // 2]
    }
    first = order[0]
    short = Described({first: (shown[first][pick(2, numbers)],)}, background=False)
    long = Described(dict.fromkeys(order, ATTRIBUTES), background=True)
    return [short, Described(shown, background=False), long]


def caption_of(scene: Scene, described: Described) -> str:
    """'a large striped red star at the top left and a ring in the centre on a cream background'."""
    names = [thing_phrase(scene.things[row], attributes) for row, attributes in described.objects.items()]
    text = enumeration(names)
    if not described.background:
        return text
    if " to " in scene.background:
        return f"{text}, on a background that fades from {scene.background}"
    return f"{text}, on a {scene.background} background"


def thing_phrase(thing: Thing, attributes: Sequence[str]) -> str:
    """An object by its shape and the given attributes: 'a small orange heart on the left'."""
    words = [getattr(thing, attribute) for attribute in ATTRIBUTES if attribute in attributes and attribute != "place"]
    text = " ".join((*words, thing.shape))
    article = "an" if text[0] in "aeiou" else "a"
    if "place" not in attributes:
        return f"{article} {text}"
    before = {"left": "on", "right": "on", "centre": "in"}.get(thing.place, "at")
    return f"{article} {text} {before} the {thing.place}"


def pick(count: int, numbers: Iterator[float]) -> int:
    """A row in [0, count), by the next of `numbers` in [0, 1)."""
    return math.floor(next(numbers) * count)


def shuffled(items: Sequence[T], numbers: Iterator[float]) -> list[T]:
    """The items in the order of as many of `numbers`."""
    keys = [next(numbers) for _ in items]
    return [items[row] for row in sorted(range(len(items)), key=keys.__getitem__)]
