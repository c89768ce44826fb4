"""A world of attributes on simple shapes, whose captions tell as many of them as one asks: the study of imbalance.

It is that of "Two Effects, One Trigger" (Schrodi et al., arXiv 2404.07983: MAD). A picture has a class and
five attributes, FACTORS, drawn evenly: 24 forms by 7 colours. A caption tells the class and exactly k attributes; the
fewer it tells, the more of the picture has no words: information imbalance, from k = 0 to none at k = 5.

What differs from theirs: captions are phrases ('a thick red seven, broken and small') where theirs join words with
hyphens; one picture has one form, one colour and one choice of what is told where theirs draw them anew at each look;
gray is gray, theirs white; and the shapes are digits drawn by us (`worlds.glyphs`) unless others are
passed. On filled shapes such as Fashion-MNIST the operations still do what they say, but mean less: thickening swells
the outline, thinning leaves scraps of a shirt, and half-bright cloth has no ink to begin with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from boresight.data.assemble import dataset_of
from boresight.data.collection import Collection
from boresight.data.images import png
from boresight.data.worlds.scene_world import pick, shuffled
from boresight.errors import InputError
from boresight.progress import progress
from boresight.seeds import generator
from worlds import morphology
from worlds.glyphs import draw_glyph
from worlds.idx import load_idx

FACTORS: Mapping[str, Mapping[str, str]] = {
    "thickness": {"none": "regular", "thickening": "thick", "thinning": "thin"},
    "swelling": {"none": "even", "swelling": "swollen"},
    "fracture": {"none": "whole", "fracture": "broken"},
    "scale": {"large": "large", "small": "small"},
    "colour": {name: name for name in ("gray", "red", "green", "blue", "cyan", "magenta", "yellow")},
}
"""Attribute -> its values as the published data calls them -> their words in captions."""
COLOURS = {
    **{"gray": (160, 160, 160), "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)},
    **{"cyan": (0, 255, 255), "magenta": (255, 0, 255), "yellow": (255, 255, 0)},
}
THICKNESS, STRENGTH, RADIUS, CUTS, SMALL = 0.7, 3.0, 7.0, 3, 0.75
SPLITS = {
    "encoder": "for fitting the encoder",
    "train": "for fitting the SAE and the editor",
    "validation": "for choosing",
    "test": "for reporting",
}
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("captions", pa.list_(pa.string())),
        ("split", pa.string()),
        ("attributes", pa.string()),
        ("described", pa.string()),
        ("caption_kinds", pa.list_(pa.string())),
    ]
)

Source = Callable[[str, int], tuple[np.ndarray, str]]
"""source(split, index): a (28, 28) uint8 picture, light on black, and the name of its class."""


def make_mad(
    n: int,
    split: str = "train",
    k: int | Sequence[int] = 5,
    seed: int = 0,
    source: Source | str | Path | None = None,
) -> Collection:
    """`n` pictures of 28 x 28 pixels, each with a caption that tells `k` attributes, or one for each of several `k`.

    Picture i and what its captions tell depend on (seed, split, i) and the source alone. What k attributes tell is part
    of what more of them do. Splits share no shape: drawn ones differ, and those of files are dealt out.

    Args:
        source: nothing for drawn digits; a folder of MNIST or Fashion-MNIST in IDX form; or what `load_idx` gave.

    Columns beside those of every collection: `attributes` (json: class, thickness, swelling, fracture, scale, colour);
    `described` (json, one entry a caption: the told ones of FACTORS, in order of mention); `caption_kinds` (each
    caption's k). Raises InputError when a number or split makes no sense, or as `load_idx` does.
    """
    told = (k,) if isinstance(k, int) else tuple(k)
    if n < 1 or split not in SPLITS:
        raise InputError(
            f"{n} pictures of the split '{split}' cannot be made; choose 1 or more of {', '.join(SPLITS)}."
        )
    if not told or not all(0 <= each <= len(FACTORS) for each in told):
        raise InputError(f"Captions tell 0 to {len(FACTORS)} attributes; k is {k}.")
    if isinstance(source, (str, Path)):
        source = load_idx(source)
    shapes: Source = source or partial(draw_glyph, seed)
    steps: Iterator[int] = iter(progress(range(n), what=f"Drawing shapes for {split}", unit="picture", delay=2))
    rows = [_row(seed, split, index, told, shapes) for index in steps]
    return Collection(dataset_of(pa.Table.from_pylist(rows, schema=SCHEMA)), "mad")


def draw(shape: np.ndarray, values: Mapping[str, str], numbers: Iterator[float]) -> np.ndarray:
    """(28, 28) uint8 -> (28, 28, 3) uint8 with the `values` of FACTORS; `numbers` are random, in [0, 1)."""
    operations: list[morphology.Operation] = []
    if values["thickness"] != "none":
        change = morphology.thicken if values["thickness"] == "thickening" else morphology.thin
        operations.append(partial(change, amount=THICKNESS))
    if values["swelling"] != "none":
        operations.append(partial(morphology.swell, strength=STRENGTH, radius=RADIUS, numbers=numbers))
    if values["fracture"] != "none":
        operations.append(partial(morphology.fracture, count=CUTS, numbers=numbers))
    picture = morphology.perturb(shape, *operations)
    if values["scale"] == "small":
        picture = morphology.rescale(picture, SMALL, numbers)
    return np.rint(picture[..., None] / 255 * np.array(COLOURS[values["colour"]])).astype(np.uint8)


def phrase(name: str, words: Sequence[str], before: int) -> str:
    """'a thick red seven, broken and small': the first `before` words stand before the name."""
    text = " ".join((*words[:before], name))
    after = list(words[before:])
    listed = " and ".join(filter(None, (", ".join(after[:-1]), *after[-1:])))
    vowel = text[0] in "aeiou" and not text.startswith("one")
    return f"{'an' if vowel else 'a'} {text}{', ' if listed else ''}{listed}"


def _row(seed: int, split: str, index: int, told: Sequence[int], shapes: Source) -> dict[str, Any]:
    numbers = iter(torch.rand(40, generator=generator(seed, f"mad/{split}/{index}"), dtype=torch.float64).tolist())
    values = {name: list(words)[pick(len(words), numbers)] for name, words in FACTORS.items()}
    order = shuffled(list(FACTORS), numbers)
    places = [next(numbers) for _ in range(len(FACTORS) + 1)]
    shape, name = shapes(split, index)
    captions = [
        phrase(name, [FACTORS[each][values[each]] for each in order[:k]], math.floor(places[k] * (k + 1))) for k in told
    ]
    return {
        "id": f"mad-{seed}/{split}/{index}",
        "image": {"bytes": png(draw(shape, values, numbers)), "path": None},
        "captions": captions,
        "split": split,
        "attributes": json.dumps({"class": name, **values}),
        "described": json.dumps([order[:k] for k in told]),
        "caption_kinds": [str(k) for k in told],
    }
