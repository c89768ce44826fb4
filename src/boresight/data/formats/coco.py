"""COCO captions json: `images` and `annotations`, joined by the image's id."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from boresight.data.assemble import Row, assemble
from boresight.data.collection import Problem
from boresight.data.files import finder, folder_of_images
from boresight.data.splits import split_of_name
from boresight.errors import InputError


def read_coco(
    content: Any, file: Path, *, name: str, images: str | os.PathLike[str] | None = None
) -> tuple[Dataset, list[Problem]]:
    """`content` is the json in `file`. Ids are the images' ids; the split is read from the file's name.

    Pictures are looked for in `images`, else beside the json, beside its folder, and in each of the two places in
    `images/` and in a folder named as the end of the file's name ('val2017' of `captions_val2017.json`).
    """
    entries, annotations = (
        content.get(key) if isinstance(content, dict) else None for key in ("images", "annotations")
    )
    if not isinstance(entries, list) or not isinstance(annotations, list):
        raise InputError(f"{file} is no COCO captions file: it lacks the lists 'images' and 'annotations'.")
    if annotations and not any(isinstance(one, dict) and "caption" in one for one in annotations):
        raise InputError(f"{file} holds annotations but no captions; pass COCO's captions_*.json.")

    def rows() -> Iterator[Row | Problem]:
        captions: dict[str, list[Any]] = defaultdict(list)
        for number, one in enumerate(annotations):
            if not isinstance(one, dict) or one.get("image_id") is None:
                yield Problem("malformed row", f"annotation {number} of {file.name} names no image")
            else:
                captions[str(one["image_id"])].append(one.get("caption"))
        split = split_of_name(file.stem)
        known = set()
        for number, entry in enumerate(entries):
            path = entry.get("file_name") if isinstance(entry, dict) else None
            if not isinstance(path, str) or entry.get("id") is None:
                yield Problem("malformed row", f"image {number} of {file.name} lacks an id or a file_name")
                continue
            key = str(entry["id"])
            known.add(key)
            yield Row(key=key, path=path, captions=captions.get(key, []), where=f"image {key}", split=split)
        for key in sorted(captions.keys() - known):
            for _ in captions[key]:
                yield Problem("caption for an unknown image", key)

    return assemble(rows(), finder(image_folders(file, images)), name=name)


def image_folders(file: Path, images: str | os.PathLike[str] | None) -> list[Path]:
    """Where the pictures of a captions json may lie; see `read_coco`."""
    if images is not None:
        return [folder_of_images(images)]
    end = re.split(r"[_\-.]", file.stem)[-1]
    return [base / part for base in (file.parent, file.parent.parent) for part in ("", "images", end)]
