"""Karpathy's splits as json: the original form by sentences, and the list of images with their captions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from boresight.data.assemble import Row, assemble
from boresight.data.collection import Problem
from boresight.data.columns import Columns, texts_in
from boresight.data.files import finder, key_of
from boresight.data.formats.coco import image_folders
from boresight.data.formats.tables import row_of
from boresight.data.splits import normal_split, split_of_name
from boresight.errors import InputError


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
        rows = _rows_of_list(content, file, columns)
    elif isinstance(content, dict) and isinstance(content.get("images"), list):
        columns.check_none_named(f"The Karpathy json {file.name}")
        rows = _rows_of_sentences(content["images"], file)
    else:
        raise InputError(f"{file} is no Karpathy json: neither a list of images nor an object with 'images'.")
    return assemble(rows, finder(image_folders(file, images)), name=name)


def _rows_of_sentences(entries: Sequence[Any], file: Path) -> Iterator[Row | Problem]:
    for number, entry in enumerate(entries):
        where = f"image {number} of {file.name}"
        if not isinstance(entry, Mapping) or not isinstance(entry.get("filename"), str):
            yield Problem("malformed row", f"{where} lacks a filename")
            continue
        path = os.path.join(str(entry.get("filepath") or ""), entry["filename"])
        identity = next((entry[key] for key in ("cocoid", "imgid") if entry.get(key) is not None), None)
        yield Row(
            key=key_of(path),
            path=path,
            captions=texts_in(entry.get("sentences")),
            where=where,
            id=None if identity is None else str(identity),
            split=normal_split(entry.get("split")),
        )


def _rows_of_list(entries: Sequence[Any], file: Path, columns: Columns) -> Iterator[Row | Problem]:
    split = split_of_name(file.stem)
    seen: set[str] = set()
    for number, entry in enumerate(entries):
        where = f"row {number} of {file.name}"
        if isinstance(entry, Mapping):
            seen.update(entry)
            yield row_of(entry, where, columns, above="", split=split)
        else:
            yield Problem("malformed row", f"{where} is no object")
    if seen:
        columns.check_named(sorted(seen), file.name)
