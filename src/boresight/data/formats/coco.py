"""Captions json: COCO's images and annotations, Karpathy's sentences, and the list of images with their captions."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boresight.data.assemble import assemble
from boresight.data.columns import Columns, texts_in
from boresight.data.files import finder, folder_of_images, key_of
from boresight.data.formats.tables import row_of
from boresight.data.problems import Problem
from boresight.data.rows import SourceRow
from boresight.data.splits import normal_split, split_of_name
from boresight.errors import InputError
from boresight.progress import say

if TYPE_CHECKING:
    from datasets import Dataset

_HALF_FALSE = ("danger", "diff_concept", "same_concept", "rand_voca")  # RoCOCO's files, which look like Karpathy's


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
    return assemble(_coco_rows(entries, annotations, file), finder(image_folders(file, images)), name=name)


def read_karpathy(
    content: Any, file: Path, columns: Columns, *, name: str, images: str | os.PathLike[str] | None = None
) -> tuple[Dataset, list[Problem]]:
    """`content` is the json in `file`, in either form; pictures are looked for as for COCO captions.

    The original form is `{"images": [{"filepath", "filename", "split", "sentences": [{"raw"}], "cocoid"}]}`: ids are
    `cocoid`, else `imgid`, else the relative path; splits are kept, among them 'restval'. The list form is
    `[{"image": "val2014/a.jpg", "caption": [...]}]`, or one caption a row, which are grouped by image; its split is
    read from the file's name.
    """
    if isinstance(content, list):
        if file.stem in _HALF_FALSE and any(isinstance(one, dict) and _is_long(one.get("caption")) for one in content):
            say(
                f"{file.name}: as RoCOCO publishes it, the last five captions of every image are altered so that they "
                "are false of it, and they are read as its captions here. To measure with them, run 'boresight "
                f"evaluate rococo-{file.stem.replace('_', '-')}'."
            )
        rows = _list_rows(content, file, columns)
    elif isinstance(content, dict) and isinstance(content.get("images"), list):
        columns.check_none_named(f"The Karpathy json {file.name}")
        rows = _karpathy_rows(content["images"], file)
    else:
        raise InputError(f"{file} is no Karpathy json: neither a list of images nor an object with 'images'.")
    return assemble(rows, finder(image_folders(file, images)), name=name)


def _is_long(captions: Any) -> bool:
    """Whether these are RoCOCO's: five true captions or six, and five altered ones."""
    return isinstance(captions, list) and len(captions) in (10, 11)


def image_folders(file: Path, images: str | os.PathLike[str] | None) -> list[Path]:
    """Where the pictures of a captions json may lie; see `read_coco`."""
    if images is not None:
        return [folder_of_images(images)]
    end = re.split(r"[_\-.]", file.stem)[-1]
    return [base / part for base in (file.parent, file.parent.parent) for part in ("", "images", end)]


def _coco_rows(entries: Sequence[Any], annotations: Sequence[Any], file: Path) -> Iterator[SourceRow | Problem]:
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
        yield SourceRow(key=key, path=path, captions=captions.get(key, []), where=f"image {key}", split=split)
    for key in sorted(captions.keys() - known):
        for _ in captions[key]:
            yield Problem("caption for an unknown image", key)


def _karpathy_rows(entries: Sequence[Any], file: Path) -> Iterator[SourceRow | Problem]:
    for number, entry in enumerate(entries):
        where = f"image {number} of {file.name}"
        if not isinstance(entry, Mapping) or not isinstance(entry.get("filename"), str):
            yield Problem("malformed row", f"{where} lacks a filename")
            continue
        path = os.path.join(str(entry.get("filepath") or ""), entry["filename"])
        identity = next((entry[key] for key in ("cocoid", "imgid") if entry.get(key) is not None), None)
        yield SourceRow(
            key=key_of(path),
            path=path,
            captions=texts_in(entry.get("sentences")),
            where=where,
            id=None if identity is None else str(identity),
            split=normal_split(entry.get("split")),
        )


def _list_rows(entries: Sequence[Any], file: Path, columns: Columns) -> Iterator[SourceRow | Problem]:
    split = split_of_name(file.stem)
    for number, entry in enumerate(entries):
        where = f"row {number} of {file.name}"
        if isinstance(entry, Mapping):
            yield row_of(entry, where, columns, above="", split=split)
        else:
            yield Problem("malformed row", f"{where} is no object")
    columns.check_named(file.name)
