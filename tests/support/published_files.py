"""Files of benchmarks in the layouts in which they are published, written by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COCO = {f"COCO_val2014_{number:012}.jpg": [f"{number}, {word}." for word in "abcdef"[: 5 + number % 2]]
        for number in (391895, 60623, 483108)}  # fmt: skip


FLICKR = {
    "1007129816.jpg": ["A man, in a hat.", 'The "hat", of a.jpg, is orange.', "c", "d", "e"],
    "1009434119.jpg": ["A dog, runs .", "b", "c", "d", "e"],
}


def write(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def lines(file: Path, rows: list[dict]) -> None:
    put(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def content(collection) -> dict[str, list[str]]:
    """Captions by the name of the picture that is shown, which must be there."""
    names = [Path(cell["path"]) for cell in collection.dataset["image"]]
    assert all(name.is_file() for name in names)
    return {name.name: captions for name, captions in zip(names, collection.captions, strict=True)}


def karpathy(pictures: dict[str, list[str]], filepath: str | None, identity: str) -> str:
    """The original json: other splits too, whose pictures nobody has to have."""
    rows = [
        {"filename": name, "split": split, identity: number, "sentences": [{"raw": raw, "tokens": []} for raw in raws]}
        | ({"filepath": filepath} if filepath else {})
        for number, (name, raws, split) in enumerate(
            [("x.jpg", ["train"], "train"), *((*one, "test") for one in pictures.items()), ("y.jpg", ["r"], "restval")]
        )
    ]
    return json.dumps({"images": rows, "dataset": "toy"})


def coco_captions(pictures: dict[str, list[str]], folder: str = "") -> str:
    images = [{"id": 100 + place, "file_name": folder + name} for place, name in enumerate(pictures)]
    annotations = [
        {"id": 1, "image_id": 100 + place, "caption": caption}
        for place, captions in enumerate(pictures.values())
        for caption in captions
    ]
    return json.dumps({"images": images, "annotations": annotations[::-1]})


def put_noise(file: Path, width: int, height: int) -> np.ndarray:
    pixels = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return pixels


def published(name: str) -> Path:
    """The folder of that name below $BORESIGHT_PUBLISHED, real files of benchmarks; the test is skipped without it."""
    folder = Path(os.environ.get("BORESIGHT_PUBLISHED", "")) / name
    if not os.environ.get("BORESIGHT_PUBLISHED") or not folder.is_dir():
        pytest.skip(f"needs the published files of {name}: name the folder above theirs in BORESIGHT_PUBLISHED")
    return folder
