"""The generated world: 1 to 4 objects on a background, whose whole truth, masks included, is known."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from boresight.data.assemble import dataset_of
from boresight.data.collection import Collection
from boresight.data.images import png
from boresight.data.worlds.scene_pictures import render
from boresight.data.worlds.scene_world import KINDS, PLACES, caption_of, draw_described, draw_scene
from boresight.errors import InputError
from boresight.progress import progress

SPLITS: Mapping[str, str] = {
    "encoder": "for fitting the encoder",
    "train": "for fitting the SAE and the editor: other scenes of the same world",
    "validation": "for choosing: other scenes of the same world",
    "test": "other scenes of the same world",
    "test-combination": "each scene shows a colour on a shape (scene_world.HELD_OUT) that no other split shows",
}
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("captions", pa.list_(pa.string())),
        ("split", pa.string()),
        ("held_out", pa.string()),
        ("attributes", pa.string()),
        ("described", pa.string()),
        ("caption_kinds", pa.list_(pa.string())),
        ("masks", pa.binary()),
    ]
)


def make_scenes(
    n: int,
    *,
    seed: int = 0,
    size: int = 96,
    objects: tuple[int, int] = (1, 4),
    richness: str | None = None,
    split: str = "train",
) -> Collection:
    """`n` scenes of size x size pixels with `objects` = (fewest, most) objects each.

    Example:
        few = make_scenes(100, objects=(2, 3), richness="long", split="test")
        json.loads(few.dataset[0]["attributes"])["objects"][0]["colour"]

    Relations:
        `load_scenes` gives all splits in one collection. Use `load_emoji` instead for words and pictures of people.

    Scene i depends on (seed, split, i, objects) alone: not on `n`, `size` or `richness`, which chooses one of the
    captions 'short', 'medium', 'long' instead of all three. Only the split 'test-combination' shows the held-out pairs
    of colour and shape.

    Columns beside those of every collection: `held_out` ('combination' or ''); `attributes` (json: `background` and
    `objects`, each with shape, size, texture, colour, place, and x, y, radius in picture sides); `caption_kinds`;
    `described` (json, one entry a caption: `objects`, the number of each mentioned object to its told attributes, and
    `background`, whether it is told); `masks` (PNG of labels, 0 background, i + 1 object i).
    Raises InputError when a size, a number of objects, a split or a richness makes no sense.
    """
    check_drawing(n, size, objects, split)
    if richness not in (None, *KINDS):
        raise InputError(f"Scenes have no captions of richness '{richness}'; choose from {', '.join(KINDS)}.")
    steps: Iterator[int] = iter(progress(range(n), what=f"Drawing scenes for {split}", unit="scene"))
    rows = [_row(seed, split, index, size, objects, richness) for index in steps]
    return Collection(dataset_of(pa.Table.from_pylist(rows, schema=SCHEMA)), "scenes")


def load_scenes(
    n_encoder: int = 4000,
    n_train: int = 3000,
    n_validation: int = 500,
    n_test: int = 1000,
    seed: int = 0,
    size: int = 96,
) -> Collection:
    """One collection with all splits of SPLITS; `n_test` scenes for each of the two tests.

    Raises InputError as `make_scenes` does.
    """
    counts = {"encoder": n_encoder, "train": n_train, "validation": n_validation, "test": n_test}
    parts = [
        make_scenes(n, seed=seed, size=size, split=split) for split, n in {**counts, "test-combination": n_test}.items()
    ]
    return Collection(dataset_of(pa.concat_tables(part.dataset.data.table for part in parts)), "scenes")


def check_drawing(n: int, size: int, objects: tuple[int, int], split: str, *, what: str = "scene") -> None:
    """Raises InputError unless `n` scenes can be drawn; `what` is what the sentence calls that which is made of one."""
    fewest, most = objects
    if n < 1 or size < 24:
        raise InputError(
            f"{n} {what}s of {size} pixels cannot be made; ask for at least 1 {what} of at least 24 pixels."
        )
    if not 1 <= fewest <= most <= len(PLACES):
        raise InputError(f"Scenes hold between 1 and {len(PLACES)} objects, not {fewest} to {most}; change `objects`.")
    if split not in SPLITS:
        raise InputError(f"Scenes have no split '{split}'; choose from {', '.join(SPLITS)}.")


def _row(
    seed: int, split: str, index: int, size: int, objects: tuple[int, int], richness: str | None
) -> dict[str, Any]:
    scene, numbers = draw_scene(seed, split, index, objects)
    described = dict(zip(KINDS, draw_described(scene, numbers), strict=True))
    kinds = list(KINDS) if richness is None else [richness]
    picture, labels = render(scene, size)
    return {
        "id": f"scene-{seed}/{split}/{index}",
        "image": {"bytes": png(picture), "path": None},
        "captions": [caption_of(scene, described[kind]) for kind in kinds],
        "split": split,
        "held_out": "combination" if any(thing.held_out for thing in scene.things) else "",
        "attributes": json.dumps({"background": scene.background, "objects": [asdict(one) for one in scene.things]}),
        "described": json.dumps([vars(described[kind]) for kind in kinds]),
        "caption_kinds": kinds,
        "masks": png(labels),
    }
