"""The index of `boresight demo --open`: pictures that come with boresight, under an editor that is fitted already."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from boresight.data import Collection, load_emoji, load_scenes
from boresight.data.assemble import dataset_of
from boresight.editing import CaptionEditor
from boresight.embeddings import embed
from boresight.encoders import load_encoder
from boresight.models import World, default_editor_path, default_model_path, default_names_path
from boresight.sae import LatentNames
from boresight.search import SearchIndex

LEARNT, NEW = 1200, 200  # pictures that the editor learnt from and remembers, and of each test split


def cache_folder() -> Path:
    """Where these indexes are kept for the next time: $BORESIGHT_CACHE, else ~/.cache/boresight, and `pages` in it."""
    return Path(os.environ.get("BORESIGHT_CACHE") or "~/.cache/boresight").expanduser() / "pages"


def example_index(world: World, cache: Path, *, learnt: int = LEARNT, new: int = NEW) -> SearchIndex:
    """The index of a part of 'emoji' or 'scenes', made in the folder `cache` where it is not there yet.

    Args:
        learnt: how many pictures that the editor was fitted on, which its memory can then show.
        new: how many of each test split.

    Raises InputError where the emoji packages cannot be had.
    """
    encoder = load_encoder(str(default_model_path()), dtype="float32")
    editor = CaptionEditor.load(default_editor_path(world), "cpu")
    folder = cache / f"{world}-{editor.fingerprint}.index"
    if folder.exists():
        return SearchIndex.open(folder, encoder=encoder, editor=editor)
    whole, columns = _scenes(learnt, new) if world == "scenes" else (load_emoji(), ["style", "family", "held_out"])
    chosen = [
        rows[:most]
        for split, most in (("train", learnt), ("test", new), ("test-combination", new), ("test-style", new))
        if len(rows := np.flatnonzero(np.array(whole.splits) == split))
    ]
    some = _with_one_caption(whole.select(np.concatenate(chosen)), columns)
    cache.mkdir(parents=True, exist_ok=True)
    return SearchIndex.create(
        folder,
        embed(encoder, some),
        editor=editor,
        names=LatentNames.load(default_names_path(world)),
        collection=some,
        encoder=encoder,
    )


def _scenes(learnt: int, new: int) -> tuple[Collection, list[str]]:
    """Scenes, with columns that a filter can use: how many objects there are, and the colour of the background."""
    drawn = load_scenes(1, learnt, 1, new)
    truth = [json.loads(each) for each in drawn.dataset["attributes"]]
    table = drawn.dataset.with_format("arrow")[:]
    table = table.append_column("objects", pa.array([len(each["objects"]) for each in truth]))
    table = table.append_column("background", pa.array([each["background"] for each in truth]))
    return Collection(dataset_of(table), drawn.name), ["objects", "background", "held_out"]


def _with_one_caption(collection: Collection, columns: list[str]) -> Collection:
    """The captions of medium length alone, which are quick to embed and enough to read, and these columns."""
    table = collection.dataset.with_format("arrow")[:]
    medium = pc.list_slice(table["captions"], 1, 2)
    table = table.set_column(table.column_names.index("captions"), "captions", medium)
    return Collection(dataset_of(table.select(["id", "image", "captions", "split", *columns])), collection.name)
