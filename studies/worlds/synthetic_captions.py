"""Captions to train with, written from what the emoji collection and the scenes know of each picture.

A *synthetic caption* stands for what a large captioner writes of a picture: 60 to 120 tokens in several sentences, with
nothing false in them. It is one fixed text for each picture. The opening names the picture's main thing, or how many
shapes there are; all else is told once, in sentences of shuffled order and varied phrasing:

    emoji   person or gender, skin tones, hair, other details, up to three colours read off the pixels, keywords, other
            names, group and subgroup, artist's style, background
    scenes  every object with size, texture, colour and place, in one sentence (two where there are few objects); the
            background; how objects stand to each other; the largest

Where that is short, sentences that are true of every such picture fill it up, as captioners do; where it is long, what
stands last in the lists above is left out, in whole sentences. Objects and the background of a scene never are.

A *web caption* stands for the text found beside a picture on the web: at most 20 words. Of the words that the
collection has for the picture each is dropped with probability 0.35; the rest stand in their order (half of the
captions), in another order with commas (a quarter), or as the name of a file (a quarter). In half of the captions
words follow that have nothing to do with the picture, such as "free download png 512". With probability 0.06 it is
another picture's caption, of the same split; with probability 0.04 it says as good as nothing ("untitled image").

All of it depends on the seed, the picture's row, and for stray web captions the rows of its own split: so a caption of
one split never tells of another split's picture.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from boresight.data.assemble import dataset_of
from boresight.data.collection import Collection
from boresight.data.worlds.emoji.concepts import word_set
from boresight.data.worlds.scene_world import ATTRIBUTES, PLACES, SIZES, Thing, pick, shuffled, thing_phrase
from boresight.errors import InputError
from boresight.seeds import generator

WEB, SYNTHETIC = "web", "synthetic"
FEWEST_WORDS, MOST_WORDS = 56, 76
DROPPED, STRAY, EMPTY = 0.35, 0.06, 0.04
JUNK = (
    *("free download png 512", "hd stock photo", "clipart", "icon pack vector", "transparent background png"),
    *("| best wallpapers", "royalty free image 1080p", "buy now - ships free", "sticker sheet", "pin by admin"),
)
NOTHING = ("untitled image", "img 2093", "picture 1", "file", "click to enlarge", "image result")
HUES = {
    **{"red": (215, 45, 45), "orange": (245, 140, 40), "yellow": (252, 210, 60), "green": (70, 160, 70)},
    **{"teal": (30, 160, 160), "blue": (50, 110, 210), "purple": (130, 80, 180), "pink": (240, 130, 175)},
    **{"brown": (115, 75, 50), "black": (35, 35, 38), "grey": (145, 145, 150), "beige": (235, 200, 165)},
}
STYLES = {"fluent-3d": "soft three-dimensional", "fluent-flat": "flat geometric", "noto": "softly shaded"}
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FILLING = {
    "emoji": (
        "The background is plain white.",
        "Nothing else can be seen around it.",
        "The outline is clean and the drawing easy to read at a small size.",
        "It fills most of the square picture.",
        "The overall mood is simple and friendly.",
        "There is no frame and no shadow on the ground.",
        "It looks like something people send in a message.",
    ),
    "scenes": (
        "The rest of the picture is empty.",
        "All edges are crisp and the drawing is flat.",
        "There is no text anywhere in the picture.",
        "The composition is simple and abstract.",
        "Nothing overlaps and nothing is cut off.",
        "It looks like a page from a book about shapes.",
        "The light is even and there are no shadows.",
    ),
}

Row = Mapping[str, Any]
Numbers = Iterator[float]


def with_training_captions(collection: Collection, *, seed: int = 0) -> Collection:
    """The emoji collection or scenes with two more columns, `web` and `synthetic`, a string each.

    Raises InputError for another collection.
    """
    columns = {WEB: web_captions(collection, seed=seed), SYNTHETIC: synthetic_captions(collection, seed=seed)}
    dataset = collection.dataset.flatten_indices() if collection.dataset._indices else collection.dataset
    table = dataset.data.table
    for name, texts in columns.items():
        table = table.append_column(name, pa.array(texts))
    return Collection(dataset_of(table), collection.name, collection.problems)


def synthetic_captions(collection: Collection, *, seed: int = 0) -> list[str]:
    """A long caption for each picture. Raises InputError for a collection that is neither emoji nor scenes."""
    world, texts = _world(collection), []
    for row, cells in enumerate(_cells(collection)):
        numbers = _numbers(seed, f"synthetic caption {cells['id']}")
        if world == "emoji":
            opening, told = _of_emoji(cells, colours_of(collection.image(row)), numbers)
        else:
            opening, told = _of_scene(cells, numbers)
        texts.append(_long(opening, told, FILLING[world], numbers))
    return texts


def web_captions(collection: Collection, *, seed: int = 0, astray: bool = True) -> list[str]:
    """A short noisy caption for each picture; without `astray` none that is another's or says nothing.

    Raises InputError for a collection that is neither emoji nor scenes.
    """
    words = {"emoji": _words_of_emoji, "scenes": _words_of_scene}[_world(collection)]
    own, fate, of_split = [], [], defaultdict(list)
    for row, cells in enumerate(_cells(collection)):
        numbers = _numbers(seed, f"web caption {cells['id']}")
        fate.append((next(numbers), next(numbers), cells["split"]))
        own.append(_short(words(cells, numbers), numbers))
        of_split[cells["split"]].append(row)
    if not astray:
        return own
    texts = []
    for text, (chance, which, split) in zip(own, fate, strict=True):
        if chance < STRAY:
            text = own[of_split[split][int(which * len(of_split[split]))]]
        elif chance < STRAY + EMPTY:
            text = NOTHING[int(which * len(NOTHING))]
        texts.append(text)
    return texts


def colours_of(picture: Image.Image, least: float = 0.15) -> list[str]:
    """Names in HUES of up to three colours, most of it first, that cover `least` of what is not white."""
    pixels = np.asarray(picture.convert("RGB").resize((32, 32)), dtype=np.int64).reshape(-1, 3)
    pixels = pixels[pixels.min(axis=1) < 240]
    if not len(pixels):
        return []
    nearest = ((pixels[:, None] - np.array(list(HUES.values()))) ** 2).sum(-1).argmin(1)
    shares = np.bincount(nearest, minlength=len(HUES)) / len(pixels)
    return [list(HUES)[hue] for hue in np.argsort(-shares, kind="stable")[:3] if shares[hue] >= least]


def _of_emoji(cells: Row, colours: Sequence[str], numbers: Numbers) -> tuple[str, list[str]]:
    known = json.loads(cells["attributes"])
    family, told = cells["family"], []
    opening = _one(
        numbers,
        f"The image shows an emoji of {family}.",
        f"This is a small picture of {family}.",
        f"A drawing of {family} stands in the middle of the picture.",
        f"In this image we see {family}.",
    )
    if known["gender"] in ("woman", "man"):
        person = known["gender"]
        told.append(_one(numbers, f"The person drawn is a {person}.", f"It is a {person}.", f"We look at a {person}."))
    elif known["gender"] == "mixed":
        told.append(_one(numbers, "A woman and a man are together.", "One is a woman and the other is a man."))
    if tones := known["skin_tones"]:
        skin = " and ".join(tones)
        told.append(_one(numbers, f"The skin tone is {skin}.", f"The skin has a {skin} tone.", f"{skin} skin is seen."))
    if hair := known["hair"]:
        told.append(
            _one(numbers, "The head is bald.", "There is no hair on the head: it is bald.")
            if hair == "bald"
            else _one(numbers, f"One can make out {hair}.", f"The face comes with {hair}.")
        )
    _, _, details = cells["label"].partition(": ")
    kept = [part for part in details.split(", ") if part and "skin tone" not in part and part != hair]
    if kept and not word_set(" ".join(kept)) <= word_set(family):
        told.append(f"More exactly, it shows {_listed(kept)}.")
    if colours:
        seen = _listed(colours)
        told.append(_one(numbers, f"One notices {seen} at once.", f"It is drawn mostly in {seen}."))
    if tags := shuffled(known["tags"], numbers)[:9]:
        told.append(_one(numbers, f"It brings to mind {_listed(tags[:5])}.", f"It stands for {_listed(tags[:5])}."))
        if tags[5:]:
            told.append(_one(numbers, f"It may also suggest {_listed(tags[5:])}.", f"Think of {_listed(tags[5:])}."))
    if aliases := known["aliases"][:3]:
        told.append(_one(numbers, f"Some people call it {_listed(aliases)}.", f"Other names are {_listed(aliases)}."))
    group, subgroup = known["group"], known["subgroup"]
    told.append(_one(numbers, f"It belongs to {group}, under {subgroup}.", f"It is one of the {subgroup} in {group}."))
    style = STYLES[cells["style"]]
    told.append(_one(numbers, f"The style is {style}.", f"It is rendered in a {style} manner."))
    return opening, told


def _of_scene(cells: Row, numbers: Numbers) -> tuple[str, list[str]]:
    known = json.loads(cells["attributes"])
    things = shuffled([Thing(**each) for each in known["objects"]], numbers)
    count = NUMBERS[len(things)]
    shapes = "one shape" if len(things) == 1 else f"{count} shapes"
    told: list[str] = []
    opening = _one(
        numbers,
        f"The picture shows {shapes} on a simple ground.",
        f"We see {shapes} and little else.",
        f"This image holds {shapes}.",
        f"There {'is' if len(things) == 1 else 'are'} {shapes} in this drawing.",
    )
    for thing in things:
        whole, bare = thing_phrase(thing, ATTRIBUTES), thing_phrase(thing, ("colour",))
        if len(things) > 2:
            told.append(_one(numbers, f"There is {whole}.", f"One can see {whole}.", f"{_upper(whole)} is drawn."))
            continue
        place = thing_phrase(thing, ("colour", "place"))
        told.append(_one(numbers, f"There is {place}.", f"{_upper(place)} is drawn.", f"One can see {place}."))
        fill = _one(numbers, f"is {thing.size} and {thing.texture}", f"is {thing.texture} and of {thing.size} size")
        told.append(f"The {bare.split(' ', 1)[1]} {fill}.")
    ground = known["background"]
    told.append(
        f"The background fades from {ground}."
        if " to " in ground
        else _one(numbers, f"The background is {ground}.", f"Everything lies on a {ground} background.")
    )
    told += [_relation(first, second) for first, second in pairwise(things)]
    largest = [thing for thing in things if thing.size == max((one.size for one in things), key=list(SIZES).index)]
    if len(largest) == 1 < len(things):
        told.append(f"The largest of them is {thing_phrase(largest[0], ('colour',))}.")
    return opening, told


def _relation(first: Thing, second: Thing) -> str:
    (row, column), (other_row, other_column) = PLACES[first.place], PLACES[second.place]
    if column != other_column:
        where = "to the left of" if column < other_column else "to the right of"
    else:
        where = "above" if row < other_row else "below"
    return f"{_upper(thing_phrase(first, ('colour',)))} is {where} {thing_phrase(second, ('colour',))}."


def _words_of_emoji(cells: Row, numbers: Numbers) -> list[str]:
    known = json.loads(cells["attributes"])
    names = [cells["label"], *known["aliases"]]
    name = names[0] if next(numbers) < 0.8 else names[pick(len(names), numbers)]
    return [*name.replace(":", "").replace(",", "").split(), *shuffled(known["tags"], numbers)[:3]]


def _words_of_scene(cells: Row, numbers: Numbers) -> list[str]:
    things = shuffled([Thing(**each) for each in json.loads(cells["attributes"])["objects"]], numbers)[:2]
    return [word for thing in things for word in (thing.size, thing.texture, thing.colour, thing.shape)]


def _short(words: Sequence[str], numbers: Numbers) -> str:
    kept = [word for word in words if next(numbers) >= DROPPED][:12] or [words[pick(len(words), numbers)]]
    form = next(numbers)
    if form < 0.5:
        text = " ".join(kept)
    elif form < 0.75:
        text = ", ".join(shuffled(kept, numbers))
    else:
        text = f"{'_'.join(kept)}_{pick(900, numbers) + 100}.png"
    return f"{text} {JUNK[pick(len(JUNK), numbers)]}" if next(numbers) < 0.5 else text


def _long(opening: str, told: Sequence[str], filling: Sequence[str], numbers: Numbers) -> str:
    """`opening`, then what of `told` fits into MOST_WORDS, first come first, and the `filling` FEWEST_WORDS needs."""
    length = len(opening.split())
    sentences = []
    for sentence in told:
        if length + len(sentence.split()) <= MOST_WORDS:
            sentences.append(_upper(sentence))
            length += len(sentence.split())
    for sentence in shuffled(filling, numbers):
        if length < FEWEST_WORDS:
            sentences.append(sentence)
            length += len(sentence.split())
    return " ".join([opening, *shuffled(sentences, numbers)])


def _world(collection: Collection) -> str:
    for world, column in (("emoji", "family"), ("scenes", "described")):
        if {column, "attributes"} <= set(collection.dataset.column_names):
            return world
    raise InputError(
        f"Captions can be written for emoji and scenes alone, and {collection.name or 'this collection'} is neither; "
        "pass what load_emoji or make_scenes gives."
    )


def _cells(collection: Collection) -> Iterator[Row]:
    wanted = ("id", "split", "attributes", "family", "label", "style")
    return iter(collection.dataset.select_columns([name for name in wanted if name in collection.dataset.column_names]))


def _numbers(seed: int, stream: str) -> Numbers:
    return iter(torch.rand(160, generator=generator(seed, stream), dtype=torch.float64).tolist())


def _one(numbers: Numbers, *phrasings: str) -> str:
    return phrasings[pick(len(phrasings), numbers)]


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
