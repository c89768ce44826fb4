"""Captions beside the pictures of a folder: in a table of json lines, csv or tsv, or in a text file a picture."""

from __future__ import annotations

import ast
import codecs
import contextlib
import csv
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from boresight.data.assemble import assemble
from boresight.data.columns import Columns, captions_of
from boresight.data.files import TEXT_SUFFIXES, finder, folder_of_images, key_of, walk
from boresight.data.images import is_picture
from boresight.data.problems import Problem
from boresight.data.rows import SourceRow
from boresight.data.splits import normal_split, split_of_file, split_of_path
from boresight.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

# One parsed row: where it stands, and its values by column, or in their place what is wrong with it.
Parsed = tuple[str, Mapping[str, Any] | str]
Cells = tuple[str, list[str] | str]  # likewise, of a row whose columns are not named yet


def read_tables(
    files: Sequence[Path],
    columns: Columns,
    *,
    kind: str,
    name: str,
    images: str | os.PathLike[str] | None = None,
    folder: Path | None = None,
) -> tuple[Dataset, list[Problem]]:
    """Captions tables, `kind` 'jsonl', 'csv' or 'tsv'; pictures lie beside their table, or in `images/` of the source.

    A row with one caption string adds it to its image; a row with a list of captions is its image's whole list.

    Args:
        images: the folder of the pictures, when it is elsewhere.
        folder: the folder that the user named as the source; its unmentioned pictures are reported.
    """
    root = folder or files[0].parent

    def rows() -> Iterator[SourceRow | Problem]:
        for file in files:
            label = os.path.relpath(file, root)
            split = split_of_file(label)
            with _opened(file) as handle:
                if kind == "jsonl":
                    parsed = _json_lines(handle, label)
                else:
                    cells = _csv_cells(handle, label) if kind == "csv" else _tsv_cells(handle, label)
                    parsed = _by_header(cells, label, columns)
                for where, values in parsed:
                    if isinstance(values, str):
                        yield Problem("malformed row", f"{where}: {values}")
                    else:
                        yield row_of(values, where, columns, above=os.path.dirname(label), split=split)
        columns.check_named(name)

    bases = [root, root / "images"] if images is None else [folder_of_images(images)]
    return assemble(rows(), finder(bases), name=name, folder=None if images else folder)


def read_text_files(folder: Path, *, name: str) -> tuple[Dataset, list[Problem]]:
    """`a.jpg` with `a.txt` beside it, at any depth; each line of the text that is not blank is a caption."""
    return assemble(_text_rows(folder), lambda file: file, name=name)


def lines_of(data: bytes) -> list[str]:
    """The lines of a caption file that are not blank; bytes that are not UTF-8 become lone surrogates."""
    text = data.decode(*_encoding(data)).replace("\r\n", "\n").replace("\r", "\n")
    return [line for line in text.split("\n") if line.strip()]


def holds_text_files(files: Iterable[str]) -> bool:
    """Whether any of the pictures among `files` has a text file beside it."""
    texts, pictures = _texts_and_pictures(files)
    return any(text for picture in pictures for text in _names_of_text(picture) if text in texts)


def _names_of_text(picture: str) -> tuple[str, str]:
    """What the text file of `a.jpg` is called, without its suffix: 'a', or 'a.jpg'."""
    return os.path.splitext(picture)[0], picture


def _texts_and_pictures(files: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Text files by their path without suffix, in the order of TEXT_SUFFIXES, and pictures."""
    texts: dict[str, list[str]] = defaultdict(list)
    pictures = []
    for file in files:
        stem, suffix = os.path.splitext(file)
        if suffix.lower() in TEXT_SUFFIXES:
            texts[stem].append(file)
        elif is_picture(file):
            pictures.append(file)
    return texts, pictures


def row_of(values: Mapping[str, Any], where: str, columns: Columns, *, above: str, split: str) -> SourceRow | Problem:
    """A row from values by column; its path starts from the folder `above`, and `split` serves when it names none."""
    roles = columns.roles(values)
    image = _filled(values, roles.image)
    name = None if image is None else values[image]
    if not isinstance(name, str) or not name.strip():
        return Problem("malformed row", f"{where} names no picture")
    columns.read.update(dict.fromkeys(roles.captions))
    captions, whole = captions_of(values, roles.captions)
    id_column, split_column = _filled(values, roles.id), _filled(values, roles.split)
    identity = None if id_column is None else values[id_column]
    path = os.path.join(above, name)
    return SourceRow(
        key=key_of(path),
        path=path,
        captions=captions,
        where=where,
        whole=whole,
        id=None if identity is None else str(identity),
        split=split if split_column is None else normal_split(values[split_column]),
        extras={
            name: value
            for name, value in values.items()
            if name not in roles.captions and name not in (image, id_column, split_column)
        },
    )


def _filled(values: Mapping[str, Any], candidates: Sequence[str]) -> str | None:
    """The first of the columns that holds something."""
    return next((name for name in candidates if values[name] not in (None, "")), None)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[TextIO]:
    try:
        with open(file, "rb") as binary:
            encoding, errors = _encoding(binary.read(2))
        handle = open(file, encoding=encoding, errors=errors, newline="")  # noqa: SIM115
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); check the path and its permissions.") from error
    with handle:
        yield handle


def _encoding(start: bytes) -> tuple[str, str]:
    """The encoding of a file that starts so, and what becomes of its errors.

    Bytes that are not UTF-8 become lone surrogates, so that only the rows that hold them are set aside. UTF-16 knows no
    such escape: of a file cut in the middle of a character the rest is a replacement character.
    """
    wide = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return ("utf-16", "replace") if wide else ("utf-8-sig", "surrogateescape")


def _json_lines(handle: TextIO, label: str) -> Iterator[Parsed]:
    for number, line in enumerate(handle, 1):
        if not line.strip():
            continue
        where = f"line {number} of {label}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:  # a ValueError of its own for a number of 4,301 digits
            yield where, f"no json ({error})"
            continue
        yield where, values if isinstance(values, dict) else "no json object"


def _tsv_cells(handle: TextIO, label: str) -> Iterator[Cells]:
    """One line a row. A cell in quotes with doubled quotes inside is unquoted; any other quote is a quote."""
    for number, line in enumerate(handle, 1):
        if line.strip():
            yield f"line {number} of {label}", [_unquoted(cell) for cell in line.rstrip("\r\n").split("\t")]


def _csv_cells(handle: TextIO, label: str) -> Iterator[Cells]:
    limit = csv.field_size_limit(2**31 - 1)
    try:
        reader = csv.reader(handle, strict=True, skipinitialspace=True)
        while True:
            where = f"line {reader.line_num + 1} of {label}"
            try:
                yield where, next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                yield where, f"{error}, up to line {reader.line_num}"
    finally:
        csv.field_size_limit(limit)


def _by_header(rows: Iterable[Cells], label: str, columns: Columns) -> Iterator[Parsed]:
    """Rows of cells as values by column; the first row of cells names the columns."""
    header: list[str] | None = None
    for where, cells in rows:
        if isinstance(cells, str):
            yield where, cells
        elif header is None:
            columns.check(cells, label)
            for name, count in Counter(cells).items():
                if count > 1 and name:  # spreadsheets leave empty columns at the end, without a name
                    raise InputError(f"{label} has {count} columns called '{name}'; rename all but one.")
            header = cells
        elif cells and len(cells) != len(header):
            yield where, f"{len(cells)} cells for {len(header)} columns, starting '{cells[0]}'"
        elif cells:
            values: dict[str, Any] = dict(zip(header, cells, strict=True))
            yield where, values | {name: _list_or_text(values[name]) for name in columns.captions_in(header)}


def _unquoted(cell: str) -> str:
    inner = cell[1:-1]
    if len(cell) >= 2 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return cell


def _list_or_text(cell: str) -> list[str] | str:
    """A json or Python list of strings as that list, any other cell as it is."""
    if not (cell.startswith("[") and cell.endswith("]")):
        return cell
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            return value
    return cell


def _text_rows(folder: Path) -> Iterator[SourceRow | Problem]:
    texts, pictures = _texts_and_pictures(walk(folder))
    read: set[str] = set()
    for file in pictures:
        relative = os.path.relpath(file, folder)
        names = _names_of_text(file)
        beside = [text for name in names for text in texts.get(name, ())]
        read.update(names)
        if not beside:
            yield Problem("image without captions", relative)
        elif not os.path.isfile(file):  # a link to nowhere
            yield Problem("missing file", relative)
        else:
            text, *others = sorted(beside, key=lambda one: (len(one), one))
            yield from (Problem("second caption file", os.path.relpath(other, folder)) for other in others)
            where = os.path.relpath(text, folder)
            try:
                captions = lines_of(Path(text).read_bytes()) or [""]
            except OSError as error:
                yield Problem("unreadable file", f"{where}: {error.strerror}")
                continue
            yield SourceRow(key=relative, path=file, captions=captions, where=where, split=split_of_path(relative))
    for stem in sorted(texts.keys() - read):
        yield from (Problem("caption for an unknown image", os.path.relpath(text, folder)) for text in texts[stem])
