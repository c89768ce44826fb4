"""Tables of captions: json lines, csv, tsv, and the token files of Flickr8k and Flickr30k."""

from __future__ import annotations

import ast
import contextlib
import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from boresight.data.assemble import assemble
from boresight.data.columns import Columns, captions_of, column_of
from boresight.data.files import TEXT_SUFFIXES, Listing, encoding_of, finder, folder_of_images, key_of
from boresight.data.images import is_picture
from boresight.data.problems import Problem
from boresight.data.rows import SourceRow
from boresight.data.splits import NO_SPLIT, normal_split, split_of_file, split_of_path
from boresight.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

# One parsed row: where it stands, and its values by column, or in their place what is wrong with it.
Parsed = tuple[str, Mapping[str, Any] | str]
_TOKEN = re.compile(r"(.+\.\w+)#\d+\t(.*)")
_DECODER = json.JSONDecoder()  # `json.loads` looks at each line twice more
_CLOSE = "close it, or write it twice where it is part of a caption that stands in quotes"
Cells = tuple[str, list[str] | str]  # likewise, of a row whose columns are not named yet


def read_tables(
    files: Sequence[Path],
    columns: Columns,
    *,
    kind: str,
    name: str,
    images: str | os.PathLike[str] | None = None,
    listing: Listing | None = None,
) -> tuple[Dataset, list[Problem]]:
    """Captions tables, `kind` 'jsonl', 'csv', 'tsv' or 'token'; pictures lie beside their table, or in its `images/`.

    A row with one caption string adds it to its image; so does a list, but for one that the image has already. A
    'token' file is one of Flickr8k or Flickr30k, 'a.jpg#0' and a caption after a tab.

    Args:
        images: the folder of the pictures, when it is elsewhere.
        listing: of the folder that the user named as the source: its pictures that no row names are reported.
    """
    root = files[0].parent if listing is None else Path(listing.folder)

    def rows() -> Iterator[SourceRow | Problem]:
        for file in files:
            label = os.path.relpath(file, root)
            split = split_of_file(label)
            above = "" if split_of_path(label) == NO_SPLIT else os.path.dirname(label)
            with _opened(file) as handle:
                for where, values in _parsed(handle, kind, label, columns):
                    if isinstance(values, str):
                        yield Problem("malformed row", f"{where}: {values}")
                    else:
                        yield row_of(values, where, columns, above=above, split=split)
        columns.check_named(name)

    if images is None:
        tops = dict.fromkeys([root, *(file.parent for file in files)])
        bases = [top / below for top in tops for below in ("", "images", "Images")]
    else:
        bases, listing = [folder_of_images(images)], None
    return assemble(rows(), finder(bases, listing), name=name, listing=listing)


def kind_of_text(file: Path) -> str | None:
    """Whether a text file is a table: 'csv' or 'tsv' where its first line names columns, 'token'; else None."""
    with _opened(file) as handle:
        first = handle.readline(10_000)
    if _TOKEN.fullmatch(first.rstrip("\r\n")):
        return "token"
    columns = Columns()
    cells = [cell.strip() for cell in first.split(_delimiter(first))]
    if columns.column("image", cells) is None or not columns.captions_in(cells):
        return None
    return "tsv" if _delimiter(first) == "\t" else "csv"


def _parsed(handle: TextIO, kind: str, label: str, columns: Columns) -> Iterator[Parsed]:
    """The rows of a table, whatever its kind."""
    if kind == "jsonl":
        yield from _json_lines(handle, label)
    elif kind == "token":
        columns.check_none_named(f"{label} (lines 'a.jpg#0', a tab and a caption)")
        yield from _token_lines(handle, label)
    else:
        first = handle.readline()
        sign = "\t" if kind == "tsv" else _delimiter(first)
        lines = chain([first] if first else [], handle)
        if sign not in ",;":
            cells = _line_cells(lines, label, sign)
        elif label.lower().endswith(TEXT_SUFFIXES):
            cells = _loose_cells(lines, label, sign)
        else:
            cells = _csv_cells(lines, label, sign)
        yield from _by_header(cells, label, columns, sign)


def _delimiter(header: str) -> str:
    """What stands between the names of columns."""
    return "," if "," in header else next((sign for sign in "|;\t" if sign in header), ",")


def row_of(values: Mapping[str, Any], where: str, columns: Columns, *, above: str, split: str) -> SourceRow | Problem:
    """A row from values by column; its path starts from the folder `above`, and `split` serves when it names none."""
    roles = columns.roles(values)
    image = _filled(values, roles.image)
    name = None if image is None else values[image]
    if not isinstance(name, str) or not name.strip():
        return Problem("malformed row", f"{where} names no picture")
    for column in roles.captions:
        columns.read[column] = None
    captions, whole = captions_of(values, roles.captions)
    id_column = _filled(values, roles.id) if roles.id else None
    split_column = _filled(values, roles.split) if roles.split else None
    identity = None if id_column is None else values[id_column]
    path = os.path.join(above, name) if above else name
    own = (image, id_column, split_column)
    return SourceRow(
        key=key_of(path),
        path=path,
        captions=captions,
        where=where,
        whole=whole,
        id=None if identity is None else str(identity),
        split=split if split_column is None else normal_split(values[split_column]),
        extras={name: values[name] for name in roles.others if name not in own},
    )


def _filled(values: Mapping[str, Any], candidates: Sequence[str]) -> str | None:
    """The first of the columns that holds something."""
    for name in candidates:
        if values[name] not in (None, ""):
            return name
    return None


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[TextIO]:
    try:
        with open(file, "rb") as binary:
            encoding, errors = encoding_of(binary.read(2))
        handle = open(file, encoding=encoding, errors=errors, newline="")  # noqa: SIM115
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); check the path and its permissions.") from error
    with handle:
        yield handle


def _json_lines(handle: TextIO, label: str) -> Iterator[Parsed]:
    for number, line in enumerate(handle, 1):
        line = line.strip()
        if not line:
            continue
        where = f"line {number} of {label}"
        try:
            values, end = _DECODER.raw_decode(line)
            if end != len(line):
                raise ValueError(f"more behind its end, in column {end + 1}")
        except (ValueError, RecursionError) as error:  # a ValueError of its own for a number of 4,301 digits
            yield where, f"no json ({error})"
            continue
        yield where, values if isinstance(values, dict) else "no json object"


def _token_lines(handle: TextIO, label: str) -> Iterator[Parsed]:
    for number, line in enumerate(handle, 1):
        if line.strip():
            match = _TOKEN.fullmatch(line.rstrip("\r\n"))
            values = {"image": match[1], "caption": match[2]} if match else "not of the form 'a.jpg#0<tab>caption'"
            yield f"line {number} of {label}", values


def _line_cells(lines: Iterable[str], label: str, sign: str) -> Iterator[Cells]:
    """One line a row. A cell in quotes with doubled quotes inside is unquoted; any other quote is a quote."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            cells = line.rstrip("\r\n").split(sign)
            # People set spaces around '|' as they do after a comma; a tab is no such sign.
            yield f"line {number} of {label}", [_unquoted(cell if sign == "\t" else cell.strip()) for cell in cells]


def _loose_cells(lines: Iterable[str], label: str, sign: str) -> Iterator[Cells]:
    """One line a row, quoted or not: without quotes, what stands in the last column may have commas."""
    columns = 0
    for number, line in enumerate(lines, 1):
        where, line = f"line {number} of {label}", line.rstrip("\r\n")
        if '"' in line:
            yield from ((where, cells) for _, cells in _csv_cells([line], label, sign))
        elif line.strip():
            cells = line.split(sign, columns - 1)
            columns = columns or len(cells)
            yield where, cells


def _csv_cells(lines: Iterable[str], label: str, sign: str) -> Iterator[Cells]:
    limit = csv.field_size_limit(2**31 - 1)
    try:
        reader = csv.reader(lines, strict=True, skipinitialspace=True, delimiter=sign)
        while True:
            where = f"line {reader.line_num + 1} of {label}"
            try:
                yield where, next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                if "end of data" in str(error) and f"line {reader.line_num} of {label}" != where:
                    raise InputError(
                        f"The quote that opens in {where} is not closed and swallows all rows up to line "
                        f"{reader.line_num}, its end; {_CLOSE}."
                    ) from error
                yield where, f"{error}, up to line {reader.line_num}"
    finally:
        csv.field_size_limit(limit)


def _by_header(rows: Iterable[Cells], label: str, columns: Columns, sign: str) -> Iterator[Parsed]:
    """Rows of cells as values by column; the first row of cells names the columns.

    Raises InputError for a cell of several lines of which one is a row of a picture: its quote was closed too late.
    """
    header: list[str] | None = None
    for where, cells in rows:
        if isinstance(cells, str):
            yield where, cells
        elif header is None:
            cells = [cell.strip() for cell in cells]
            columns.check(cells, label)
            for name, count in Counter(cells).items():
                if count > 1 and name:  # spreadsheets leave empty columns at the end, without a name
                    raise InputError(f"{label} has {count} columns called '{name}'; rename all but one.")
            header = cells
            place = header.index(columns.column("image", header) or "")
        elif (swallowed := _picture_within(cells, place, sign)) is not None:
            raise InputError(f"A quote that opens in {where} swallows the rows from '{swallowed}' on; {_CLOSE}.")
        elif cells and len(cells) != len(header):
            yield where, f"{len(cells)} cells for {len(header)} columns, starting '{cells[0]}'"
        elif cells:
            values: dict[str, Any] = dict(zip(header, cells, strict=True))
            holders = [column_of(name, header) for name in columns.captions_in(header)]
            yield where, values | {name: _parsed_cell(values[name]) for name in holders}


def _picture_within(cells: Sequence[str], place: int, sign: str) -> str | None:
    """The first picture that a line of a cell, but for its first, names at the place of the column of pictures."""
    lines = (line.split(sign) for cell in cells if "\n" in cell for line in cell.split("\n")[1:])
    names = (parts[place].strip() for parts in lines if len(parts) > max(1, place))
    return next((name for name in names if is_picture(name)), None)


def _unquoted(cell: str) -> str:
    inner = cell[1:-1]
    if len(cell) >= 2 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return cell


def _parsed_cell(cell: str) -> Any:
    """A json or Python list of strings as that list, a json object as that, any other cell as it is."""
    ends = cell[:1] + cell[-1:]
    if ends not in ("[]", "{}"):
        return cell
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if (isinstance(value, dict) and value) or (
            isinstance(value, list) and all(isinstance(part, str) for part in value)
        ):
            return value
    return cell
