"""Captions in a file beside each picture: a text file, or the json that img2dataset and others write."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from boresight.data.assemble import assemble
from boresight.data.columns import Columns, cell_of, texts_in
from boresight.data.files import Listing, lines_of
from boresight.data.images import orientation_in
from boresight.data.problems import Problem
from boresight.data.rows import SourceRow
from boresight.data.splits import normal_split, split_of_path
from boresight.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset


def read_text_files(listing: Listing, columns: Columns, *, name: str) -> tuple[Dataset, list[Problem]]:
    """`a.jpg` with `a.txt` beside it, at any depth; each line of the text that is not blank is a caption.

    A json beside the picture ('a.json') holds further columns, and the captions where it has a list of them or there is
    no text. Of img2dataset, which calls a picture by its key, the key is the id.
    """
    if not listing.beside.infos:
        columns.check_none_named(f"{name} (a text file for each picture)")
    return assemble(_rows(listing, columns), lambda file: file, name=name)


def holds_text_files(listing: Listing) -> bool:
    """Whether any picture has a text file, or a json with captions, beside it."""
    beside = listing.beside
    if any(stem in beside.texts for picture in beside.pictures for stem in _stems(picture)):
        return True
    jsons = (beside.infos[stem] for picture in beside.pictures for stem in _stems(picture) if stem in beside.infos)
    first = next(jsons, None)
    return first is not None and bool(Columns().captions_in(_info(first)))


def captions_beside(
    info: Mapping[str, Any], lines: Mapping[str, list[str]], columns: Columns
) -> tuple[list[Any], tuple[str, ...]]:
    """The captions of one sample, and the keys of its json that hold captions.

    They come from the columns that the user named; else from a list in the json; else from the text; else from the
    json.

    Args:
        info: its json.
        lines: of its texts, by what the user would name them, the one to read by default first.
        columns: takes note of what was read.
    """
    named = "captions" in columns.named
    used = tuple(columns.captions) if named else columns.captions_in(info)
    cells = [lines[one] if one in lines and one not in info else cell_of(info, one) for one in used]
    texts = [text for one, cell in zip(used, cells, strict=True) for text in texts_in(cell, one)]
    if named or len(cells) > 1 or any(isinstance(cell, list) for cell in cells):
        columns.read.update(dict.fromkeys(used))
        return texts, used
    suffix = next(iter(lines), None)
    own = [] if suffix is None else lines[suffix]
    if not own or own == texts:
        columns.read.update(dict.fromkeys(used))
    if suffix is not None:
        columns.read[suffix] = None
    return own or texts, used


def _stems(picture: str) -> tuple[str, str]:
    """What the files beside `a.jpg` are called, without their suffix: 'a', or 'a.jpg'."""
    return picture.rpartition(".")[0], picture


def _rows(listing: Listing, columns: Columns) -> Iterator[SourceRow | Problem]:
    start = len(listing.folder) + 1
    texts, infos = listing.beside.texts, listing.beside.infos
    read: set[str] = set()
    for file in listing.beside.pictures:
        relative, stems = file[start:], _stems(file)
        beside = [text for stem in stems if stem in texts for text in texts[stem]]
        sidecar = next((infos[stem] for stem in stems if stem in infos), None) if infos else None
        read.update(stems)
        if file in listing.broken:
            yield Problem("missing file", relative)
            continue
        lines: list[str] | None = None
        where = relative
        if beside:
            text, *others = sorted(beside, key=lambda one: (len(one), one)) if len(beside) > 1 else beside
            yield from (Problem("second caption file", other[start:]) for other in others)
            where = text[start:]
            try:
                lines = lines_of(_bytes(text)) or [""]
            except OSError as error:
                yield Problem("unreadable file", f"{where}: {error.strerror}")
                continue
        if sidecar is None and lines is None:
            yield Problem("image without captions", relative)
            continue
        if sidecar is None:
            yield SourceRow(relative, file, lines or (), where, split=split_of_path(relative))
            continue
        try:
            info = _info(sidecar)
        except InputError as error:
            yield Problem("malformed row", str(error).replace(f"{listing.folder}{os.sep}", ""))
            continue
        yield _row_with(info, file, relative, lines, where, columns)
    columns.check_named(listing.folder)
    for stem in sorted(texts.keys() - read):
        yield from (Problem("caption for an unknown image", text[start:]) for text in texts[stem])


def _row_with(
    info: Mapping[str, Any], file: str, relative: str, lines: list[str] | None, where: str, columns: Columns
) -> SourceRow:
    roles = columns.roles(info)
    captions, used = captions_beside(info, {} if lines is None else {"txt": lines}, columns)
    own = next((info[name] for name in roles.split if info[name]), None)
    identity = info.get(columns.id[0]) if "id" in columns.named else _key_of_img2dataset(info, relative)
    return SourceRow(
        key=relative,
        path=file,
        captions=captions,
        where=where,
        id=None if identity is None else str(identity),
        split=split_of_path(relative) if own is None else normal_split(own),
        orientation=orientation_in(info.get("exif")),
        extras={name: value for name, value in info.items() if name not in used and name not in roles.split},
    )


def _key_of_img2dataset(info: Mapping[str, Any], relative: str) -> str | None:
    """The key of a picture that lies as img2dataset lays it, '00012/000120034.jpg', or in one of these folders."""
    folder, _, name = relative.rpartition("/")
    stem, key = os.path.splitext(name)[0], info.get("key")
    return stem if key == stem and "/" not in folder and stem.startswith(folder) else None


def _bytes(file: str) -> bytes:
    # There is one for each picture, and `open` would take three times as long.
    handle, parts = os.open(file, os.O_RDONLY), []
    try:
        while part := os.read(handle, 1 << 16):
            parts.append(part)
    finally:
        os.close(handle)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _info(file: str) -> dict[str, Any]:
    try:
        content = json.loads(_bytes(file))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} is no json ({error})") from error
    return content if isinstance(content, dict) else {}
