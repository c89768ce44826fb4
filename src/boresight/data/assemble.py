"""From the rows of any source to the dataset of a collection; what cannot be used is set aside and named."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset

from boresight.data.collection import Problem
from boresight.data.files import Find, walk_pictures
from boresight.data.splits import NO_SPLIT
from boresight.data.table import Table
from boresight.progress import progress


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source: a picture and what is written about it.

    Attributes:
        key: what tells this picture from others in the source: its relative path or its number there.
        path: the picture's file as the source names it, or the tar file that holds it.
        captions: as found: strings, and None or other things where a caption should be.
        where: how to name the row to the user.
        whole: the row holds all captions of its image, so a second row for it is a duplicate; otherwise its
            captions join those of earlier rows with the same key.
        id: the image's id where the source gives one; else `key` serves.
        offset, size: place and length in bytes of the picture within a tar file.
    """

    key: str
    path: str
    captions: Sequence[Any]
    where: str
    whole: bool = True
    id: str | None = None
    split: str = NO_SPLIT
    offset: int | None = None
    size: int | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        return self.id or self.key


def assemble(
    rows: Iterable[Row | Problem], find: Find, *, name: str, folder: str | os.PathLike[str] | None = None
) -> tuple[Dataset, list[Problem]]:
    """The dataset of a collection, one row an image, in the order of first mention; and all that was wrong.

    Args:
        rows: rows, and problems that the reader itself met.
        find: from a picture's name in the source to its file, None when there is none.
        name: what is read, for the progress bar.
        folder: report the pictures below it that no row names.
    """
    problems: list[Problem] = []
    place: dict[str, int] = {}  # from a key to its row in the table; -1 for an image that was set aside
    ids: set[str] = set()
    files: set[str] = set()
    table = Table()
    for row in progress(rows, what=f"reading {name}", unit="row", delay=1.0):
        if isinstance(row, Problem):
            problems.append(row)
            continue
        at, file = place.get(row.key), None
        if at is None:
            file = row.path if row.offset is not None else find(row.path)
            if folder is not None and file is not None:
                files.add(file)
            problem = _set_aside(row, file, ids)
            if problem is not None:
                problems.append(problem)
                place[row.key] = -1
                continue
        elif row.whole:
            problems.append(Problem("duplicate id", f"{row.identity}, {row.where}"))
            continue
        elif at < 0:
            continue
        texts, wrong = clean(row.captions, row.where)
        problems += wrong if row.captions else [Problem("image without captions", f"{row.path}, {row.where}")]
        if not texts:
            continue
        if at is None:
            ids.add(row.identity)
            image = {"bytes": None, "path": file, "offset": row.offset, "size": row.size}
            at = place[row.key] = table.add_image(row.identity, image, row.split, row.extras)
        table.add_captions(at, texts)
    if folder is not None:
        unnamed = (file for file in walk_pictures(folder) if file not in files)
        problems += [Problem("image without captions", os.path.relpath(file, folder)) for file in unnamed]
    return table.finish(), problems


def _set_aside(row: Row, file: str | None, ids: set[str]) -> Problem | None:
    """What keeps the image of this row, the first for it, out of the collection."""
    if file is None:
        return Problem("missing file", row.path)
    if row.identity in ids:
        return Problem("duplicate id", f"{row.identity}, {row.where}")
    if not (is_unicode(row.identity) and is_unicode(file)):
        return Problem("malformed row", f"{row.where}: its id or file name is not Unicode")
    return None


def clean(captions: Sequence[Any], where: str) -> tuple[list[str], list[Problem]]:
    """Captions without surrounding white space, otherwise untouched; and those that are empty or no text."""
    texts: list[str] = []
    problems: list[Problem] = []
    for caption in captions:
        if caption is None or (isinstance(caption, str) and not caption.strip()):
            problems.append(Problem("empty caption", where))
        elif not isinstance(caption, str) or not is_unicode(caption):
            problems.append(Problem("malformed caption", f"{where}: {str(caption)[:40]}"))
        else:
            texts.append(caption.strip())
    return texts, problems


def is_unicode(text: str) -> bool:
    """False for text with lone surrogates, as they come from broken escapes or foreign file names; Arrow refuses it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """`text` with lone surrogates spelt out, so that it can be printed and stored."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
