"""Captions json: COCO's images and annotations, Karpathy's sentences, a list of images, captions by name of picture."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boresight.data.assemble import assemble
from boresight.data.columns import Columns, captions_of, texts_in
from boresight.data.files import Find, Listing, finder, folder_of_images, key_of
from boresight.data.formats.tables import row_of
from boresight.data.images import is_picture, suffixes
from boresight.data.problems import Problem
from boresight.data.rows import SourceRow
from boresight.data.splits import normal_split, split_of_name
from boresight.errors import InputError
from boresight.progress import say

if TYPE_CHECKING:
    from datasets import Dataset

_HALF_FALSE = ("danger", "diff_concept", "same_concept", "rand_voca")  # RoCOCO's files, which look like Karpathy's


def read_jsons(
    files: Sequence[Path],
    columns: Columns,
    *,
    format: str | None = None,
    name: str,
    images: str | os.PathLike[str] | None = None,
    listing: Listing | None = None,
) -> tuple[Dataset, list[Problem]]:
    """Captions json, one file or one for each split, each as `rows_of_json` reads it.

    Pictures are looked for in `images`, else beside the json, beside its folder, and in each of the two places in
    `images/` and in a folder named as the end of the file's name ('val2017' of `captions_val2017.json`); else, by
    their name alone, anywhere in `listing`, the folder that the user named as the source.
    """

    def rows() -> Iterator[SourceRow | Problem]:
        for file in files:
            find = finder(image_folders(file, images), listing if images is None else None)
            for row in rows_of_json(_read_json(file), file, columns, format=format):
                if isinstance(row, SourceRow):
                    row.file = _found(row.path, find)
                    row.id, row.key = row.identity, row.file or f"{file.name}: {row.key}"
                yield row

    return assemble(rows(), lambda _: None, name=name)


def read_json_content(
    content: Any, file: Path, *, format: str | None = None, name: str, images: str | os.PathLike[str] | None = None
) -> tuple[Dataset, list[Problem]]:
    """As `read_jsons`, of one file whose content is at hand."""
    return assemble(
        rows_of_json(content, file, Columns(), format=format), finder(image_folders(file, images)), name=name
    )


def _found(name: str, find: Find) -> str | None:
    """The file of a picture whose name may lack its suffix."""
    named = (name,) if is_picture(name) else (name, *(name + suffix for suffix in sorted(suffixes())))
    return next((file for one in named if (file := find(one))), None)


def rows_of_json(
    content: Any, file: Path, columns: Columns, *, format: str | None = None
) -> Iterator[SourceRow | Problem]:
    """The rows of captions json in any of its four forms; with `format`, 'coco' or 'karpathy', not of the other.

    COCO's has `{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}`: ids are the images' ids.
    Karpathy's original is `{"images": [{"filepath", "filename", "split", "sentences": [{"raw"}], "cocoid"}]}`: ids are
    `cocoid`, else `imgid`, else the relative path; splits are kept, among them 'restval'. The list is
    `[{"image": "val2014/a.jpg", "caption": [...]}]`, or one caption a row. The last form is an object with names of
    pictures, with or without a suffix, and what is written about each: kohya's `meta_cap.json`. But for Karpathy's, the
    split is read from the file's name.
    """
    is_object = isinstance(content, dict)
    if format == "coco" or (format is None and is_object and "annotations" in content):
        columns.check_none_named(f"The COCO json {file.name}")
        entries, annotations = ((content.get(key) if is_object else None) for key in ("images", "annotations"))
        if not isinstance(entries, list) or not isinstance(annotations, list):
            raise InputError(f"{file} is no COCO captions file: it lacks the lists 'images' and 'annotations'.")
        if annotations and not any(isinstance(one, dict) and "caption" in one for one in annotations):
            raise InputError(f"{file} holds annotations but no captions; pass COCO's captions_*.json.")
        return _coco_rows(entries, annotations, file)
    if isinstance(content, list):
        if file.stem in _HALF_FALSE and any(isinstance(one, dict) and _is_long(one.get("caption")) for one in content):
            say(
                f"{file.name}: as RoCOCO publishes it, the last five captions of every image are altered so that they "
                "are false of it, and they are read as its captions here. To measure with them, run 'boresight "
                f"evaluate rococo-{file.stem.replace('_', '-')}'."
            )
        return _list_rows(content, file, columns)
    if is_object and isinstance(content.get("images"), list):
        columns.check_none_named(f"The Karpathy json {file.name}")
        return _karpathy_rows(content["images"], file)
    if is_object and format is None and any(_is_named(name, entry) for name, entry in content.items()):
        return _named_rows(content, file, columns)
    raise InputError(f"{file} is no Karpathy json: neither a list of images nor an object with 'images'.")


def _is_long(captions: Any) -> bool:
    """Whether these are RoCOCO's: five true captions or six, and five altered ones."""
    return isinstance(captions, list) and len(captions) in (10, 11)


def image_folders(file: Path, images: str | os.PathLike[str] | None) -> list[Path]:
    """Where the pictures of a captions json may lie; see `read_jsons`."""
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


def _is_named(name: str, entry: Any) -> bool:
    """Whether an entry of an object is what is written about a picture of this name."""
    return is_picture(name) or (isinstance(entry, dict) and ("caption" in entry or "tags" in entry))


def _named_rows(content: Mapping[str, Any], file: Path, columns: Columns) -> Iterator[SourceRow | Problem]:
    """Kohya's: captions, or else tags, by the name of the picture."""
    split = split_of_name(file.stem)
    for name, entry in content.items():
        values = entry if isinstance(entry, dict) else {"caption": entry}
        roles = columns.roles(values)
        used = roles.captions or (("tags",) if "tags" in values else ())
        columns.read.update(dict.fromkeys(used))
        captions, whole = captions_of(values, used)
        extras = {key: value for key, value in values.items() if key not in used}
        where = f"'{name}' of {file.name}"
        yield SourceRow(key_of(name), name, captions, where, whole, split=split, extras=extras)
    columns.check_named(file.name)


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read as json ({error}); mend or fetch it again.") from error
