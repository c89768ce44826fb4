"""Captions that describe a chosen part of a scene, with a record of the part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from boresight.data.worlds.scene_world import ATTRIBUTES, Scene, Thing, pick, shuffled

KINDS = ("short", "medium", "long")


@dataclass(frozen=True)
class Described:
    """What a caption tells: of which objects (by their number) which attributes, and whether the background.

    `objects` is in the order of mention; every mentioned object's shape is told.
    """

    objects: Mapping[int, Sequence[str]]
    background: bool


def choose(scene: Scene, numbers: Iterator[float]) -> list[Described]:
    """What the captions of KINDS tell; each tells all that the one before it does.

    short: one object by one attribute. medium: half of the objects (rounded up), that one among them, by two
    attributes each. long: all objects by all attributes, and the background.
    """
    order = shuffled(range(len(scene.things)), numbers)
    told = {row: _in_order(shuffled(ATTRIBUTES, numbers)[:2]) for row in order[: (len(order) + 1) // 2]}
    first = order[0]
    short = Described({first: (told[first][pick(2, numbers)],)}, background=False)
    long = Described(dict.fromkeys(order, ATTRIBUTES), background=True)
    return [short, Described(told, background=False), long]


def say(scene: Scene, described: Described) -> str:
    """'a large striped red star at the top left and a ring in the centre on a cream background'."""
    names = [name(scene.things[row], attributes) for row, attributes in described.objects.items()]
    text = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    if not described.background:
        return text
    if " to " in scene.background:
        return f"{text}, on a background that fades from {scene.background}"
    return f"{text}, on a {scene.background} background"


def name(thing: Thing, attributes: Sequence[str]) -> str:
    """An object by its shape and the given attributes: 'a small orange heart on the left'."""
    words = [getattr(thing, attribute) for attribute in ATTRIBUTES if attribute in attributes and attribute != "place"]
    text = " ".join((*words, thing.shape))
    article = "an" if text[0] in "aeiou" else "a"
    if "place" not in attributes:
        return f"{article} {text}"
    before = {"left": "on", "right": "on", "centre": "in"}.get(thing.place, "at")
    return f"{article} {text} {before} the {thing.place}"


def _in_order(attributes: Sequence[str]) -> tuple[str, ...]:
    return tuple(attribute for attribute in ATTRIBUTES if attribute in attributes)
