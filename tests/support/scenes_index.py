"""A small index of drawn scenes, with pictures, captions, columns, an editor and names."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa

from boresight.data import load_collection, make_scenes
from boresight.editing import CaptionEditor
from boresight.embeddings import embed
from boresight.encoders import Encoder
from boresight.sae import name_latents
from boresight.search import SearchIndex
from tiny_editor import TINY_EDITOR

SCENES = 60
ODD_IDS = ("../x", "%2e%2e", "a b?c=d&e#f", "Käfer/grün ☂", "..", "/etc/hosts", "a\\b'c\"d", "<b>bold</b>")
"""Ids of the first scenes: what an address would take for a path, a sign of its own, or another name."""


def make_scenes_index(folder: Path, encoder: Encoder) -> Path:
    """Folder of an index of 60 scenes; columns: year (int), place (string, null in every fifth)."""
    drawn = make_scenes(SCENES, seed=1, split="test")
    lines = []
    for row, captions in enumerate(drawn.captions):
        drawn.image(row).save(folder / f"{row}.png")
        name = ODD_IDS[row] if row < len(ODD_IDS) else f"scene-{row:02d}"
        lines.append({"id": name, "image": f"{row}.png", "captions": captions, "split": "test"})
    file = folder / "captions.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    collection = load_collection(file)
    embeddings = embed(encoder, collection, workers=0, dtype="float32")
    editor = CaptionEditor.load(TINY_EDITOR)
    index = SearchIndex.create(
        folder / "scenes.index",
        embeddings,
        editor=editor,
        names=name_latents(editor.sae, embeddings=embeddings),
        collection=collection,
        metadata=pa.table(
            {
                "id": embeddings.ids,
                "year": [2000 + row % 25 for row in range(SCENES)],
                "place": [None if row % 5 == 0 else ("Oslo", "Rome")[row % 2] for row in range(SCENES)],
            }
        ),
        encoder=encoder,
    )
    return index.folder
