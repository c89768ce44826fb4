"""From the rows of any source to the dataset of a collection; what cannot be used is set aside and named.

The dataset is built row by row in Arrow, so that a million rows fit in memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from boresight.data.files import Find, walk_pictures
from boresight.data.problems import Problem, is_unicode
from boresight.data.splits import NO_SPLIT
from boresight.progress import progress

if TYPE_CHECKING:
    from datasets import Dataset

CHUNK = 10_000
CAPTIONS_TYPE = pa.list_(pa.string())
IMAGE_TYPE = pa.struct({"bytes": pa.binary(), "path": pa.string(), "offset": pa.int64(), "size": pa.int64()})
FIXED = {"id": pa.string(), "image": IMAGE_TYPE, "captions": CAPTIONS_TYPE, "split": pa.string()}


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row of a source: a picture and what is written about it.

    Attributes:
        key: what tells this picture from others in the source: its relative path or its number there.
        path: the picture's file as the source names it, or the tar file that holds it.
        captions: as they stand there: strings, and None or other things where a caption should be.
        where: how to name the row to the user.
        whole: the row holds all captions of its image, so a second row for it is a duplicate; otherwise its
            captions join those of earlier rows with the same key.
        id: the image's id where the source gives one; else `key` serves.
        offset, size: start and length in bytes of the picture within a tar file.
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
        """The id of its image."""
        return self.id or self.key


def assemble(
    rows: Iterable[SourceRow | Problem], find: Find, *, name: str, folder: str | os.PathLike[str] | None = None
) -> tuple[Dataset, list[Problem]]:
    """The dataset of a collection, one row an image, in the order of first mention; and all that was wrong.

    Args:
        rows: rows, and problems that the reader itself met.
        find: from a picture's name in the source to its file, None when there is none.
        name: what is read, for the progress bar.
        folder: report the pictures below it that no row names.
    """
    problems: list[Problem] = []
    numbers: dict[str, int] = {}  # from a key to its row in the table; -1 for an image that was set aside
    ids: set[str] = set()
    files: set[str] = set()
    table = Table()
    for row in progress(rows, what=f"reading {name}", unit="row", delay=1.0):
        if isinstance(row, Problem):
            problems.append(row)
            continue
        number, file = numbers.get(row.key), None
        if number is None:
            file = row.path if row.offset is not None else find(row.path)
            if folder is not None and file is not None:
                files.add(file)
            problem = _set_aside(row, file, ids)
            if problem is not None:
                problems.append(problem)
                numbers[row.key] = -1
                continue
        elif row.whole:
            problems.append(Problem("duplicate id", f"{row.identity}, {row.where}"))
            continue
        elif number < 0:
            continue
        texts, wrong = clean(row.captions, row.where)
        problems += wrong if row.captions else [Problem("image without captions", f"{row.path}, {row.where}")]
        if not texts:
            continue
        if number is None:
            ids.add(row.identity)
            image = {"bytes": None, "path": file, "offset": row.offset, "size": row.size}
            number = numbers[row.key] = table.add_image(row.identity, image, row.split, row.extras)
        table.add_captions(number, texts)
    if folder is not None:
        unnamed = (file for file in walk_pictures(folder) if file not in files)
        problems += [Problem("image without captions", os.path.relpath(file, folder)) for file in unnamed]
    return table.finish(), problems


def _set_aside(row: SourceRow, file: str | None, ids: set[str]) -> Problem | None:
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


class CaptionLists:
    """M captions in any order, each with the row of its image; `finish` gives one list per image.

    The texts of a chunk go to Arrow as soon as it is full: a fifth of the memory of Python strings in lists.
    """

    def __init__(self) -> None:
        self._pending: list[str] = []
        self._chunks: list[pa.Array] = []
        self._owners = array("q")

    def add(self, row: int, texts: Sequence[str]) -> None:
        """Append captions to the image at `row`."""
        self._pending.extend(texts)
        self._owners.extend([row] * len(texts))
        if len(self._pending) >= CHUNK:
            self._flush()

    def finish(self, n_images: int) -> pa.ChunkedArray:
        """(n_images,) lists of strings; the captions of an image stand in the order in which they were added."""
        self._flush()
        texts = pa.chunked_array(self._chunks, pa.large_string())
        owners = np.frombuffer(self._owners, dtype=np.int64) if self._owners else np.zeros(0, np.int64)
        order = np.argsort(owners, kind="stable")
        ends = np.searchsorted(owners, np.arange(n_images + 1), sorter=order)
        lists = []
        for start in range(0, n_images, CHUNK):
            offsets = ends[start : start + CHUNK + 1]
            values = texts.take(pa.array(order[offsets[0] : offsets[-1]])).combine_chunks().cast(pa.string())
            lists.append(pa.ListArray.from_arrays(pa.array(offsets - offsets[0], pa.int32()), values))
        return pa.chunked_array(lists, CAPTIONS_TYPE)

    def _flush(self) -> None:
        self._chunks.append(pa.array(self._pending, pa.large_string()))
        self._pending = []


class Table:
    """Takes images in order and captions in any order; `finish` gives the dataset."""

    def __init__(self) -> None:
        self._captions = CaptionLists()
        self._images = 0
        self._pending: list[tuple[str, Mapping[str, Any], str, Mapping[str, Any]]] = []
        self._chunks: list[dict[str, pa.Array]] = []

    def add_image(self, id: str, image: Mapping[str, Any], split: str, extras: Mapping[str, Any]) -> int:
        """Append an image and return its row. `extras` under a name of the collection's own are left out."""
        if len(self._pending) == CHUNK:
            self._flush()
        self._pending.append((id, image, split, extras))
        self._images += 1
        return self._images - 1

    def add_captions(self, row: int, texts: Sequence[str]) -> None:
        """Append captions to the image at `row`."""
        self._captions.add(row, texts)

    def finish(self) -> Dataset:
        """One row an image; further columns, sorted by name, hold None where an image has no such extra."""
        self._flush()
        own = ("id", "image", "split")
        columns = {name: pa.chunked_array([chunk[name] for chunk in self._chunks], FIXED[name]) for name in own}
        columns["captions"] = self._captions.finish(self._images)
        for name in {name for chunk in self._chunks for name in chunk} - FIXED.keys():
            columns[name] = _one_type([c[name] if name in c else pa.nulls(len(c["id"])) for c in self._chunks])
        return dataset_of(pa.table({name: columns[name] for name in [*FIXED, *sorted(columns.keys() - FIXED.keys())]}))

    def _flush(self) -> None:
        ids, images, splits, extras = zip(*self._pending, strict=True) if self._pending else ((), (), (), ())
        chunk = {"id": pa.array(ids, pa.string()), "image": pa.array(images, IMAGE_TYPE)}
        chunk["split"] = pa.array(splits, pa.string())
        for name in {name for values in extras for name in values} - FIXED.keys():
            chunk[name] = _typed([values.get(name) for values in extras])
        self._chunks.append(chunk)
        self._pending = []


def dataset_of(table: pa.Table) -> Dataset:
    """A dataset over an Arrow table. Left to itself `datasets` would pickle the whole table for a fingerprint."""
    from datasets import Dataset

    return Dataset(table, fingerprint=uuid.uuid4().hex)


def _typed(values: Sequence[Any]) -> pa.Array:
    """Scalars and flat lists keep their type where it is the same in all rows; all else becomes json text."""
    if not any(_nested(value) for value in values):
        try:
            return pa.array(values)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            pass
    return pa.array([_text(value) for value in values], pa.string())


def _one_type(chunks: Sequence[pa.Array]) -> pa.ChunkedArray:
    types = {chunk.type for chunk in chunks} - {pa.null()}
    if types == {pa.int64(), pa.float64()}:
        types = {pa.float64()}
    if len(types) <= 1:
        kind = types.pop() if types else pa.null()
        with contextlib.suppress(pa.ArrowInvalid):  # an integer that no float64 is equal to
            return pa.chunked_array([chunk.cast(kind) for chunk in chunks], kind)
    texts = [pa.array([_text(value) for value in chunk.to_pylist()], pa.string()) for chunk in chunks]
    return pa.chunked_array(texts, pa.string())


def _nested(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(isinstance(part, (list, tuple, Mapping)) for part in value)
    return isinstance(value, Mapping)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return json.dumps(value, default=str)
