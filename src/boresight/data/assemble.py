"""From the rows of any source to the dataset of a collection; what cannot be used is set aside and named.

The dataset is built row by row in Arrow, so that a million rows fit in memory.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import uuid
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from boresight.data.files import Find, Listing
from boresight.data.images import is_picture
from boresight.data.problems import Problem
from boresight.data.rows import Join, SourceRow
from boresight.progress import progress

if TYPE_CHECKING:
    from datasets import Dataset

CHUNK = 10_000
CAPTIONS_TYPE = pa.list_(pa.string())
_WHERE = {"offset": pa.int64(), "size": pa.int64(), "orientation": pa.int8()}
IMAGE_TYPE = pa.struct({"bytes": pa.binary(), "path": pa.string(), **_WHERE})
FIXED = {"id": pa.string(), "image": IMAGE_TYPE, "captions": CAPTIONS_TYPE, "split": pa.string()}


def assemble(
    rows: Iterable[SourceRow | Problem], find: Find, *, name: str, listing: Listing | None = None, bare: bool = False
) -> tuple[Dataset, list[Problem]]:
    """The dataset of a collection, one row an image, in the order of first mention; and all that was wrong.

    Args:
        rows: rows, and problems that the reader itself met.
        find: from a picture's name in the source to its file, None when there is none.
        name: what is read, for the progress bar and for what `boresight.data.rows.Join` has to say.
        listing: of a folder: report its pictures that no row names.
        bare: keep images whose captions are all empty.
    """
    join, table = Join(find, bare=bare), Table()
    with _uncollected():
        for row in progress(rows, what=f"reading {name}", unit="row", delay=1.0):
            if isinstance(row, Problem):
                join.problems.append(row)
            elif joined := join(row):
                number, picture, texts = joined
                if number == len(table):
                    image: dict[str, Any] = {"path": picture}
                    if row.offset is not None:
                        image = {"path": row.path, "offset": row.offset, "size": row.size}
                    if row.orientation is not None:
                        image["orientation"] = row.orientation
                    table.add_image(row.identity, image, row.split, row.extras)
                table.add_captions(number, texts)
    if listing is not None:
        named = join.pictures()
        unnamed = (file for file in listing.files if file not in named and is_picture(file))
        below = [os.path.relpath(file, listing.folder) for file in unnamed]
        join.problems += [Problem("image without captions", where) for where in below]
    join.say(name)
    return table.finish(splits_in_ids=join.ids_restart), join.problems


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's search for cycles: rows make none, and it would look at all of them again and again."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


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

    def __len__(self) -> int:
        return self._images

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

    def finish(self, *, splits_in_ids: bool = False) -> Dataset:
        """One row an image; further columns, sorted by name, hold None where an image has no such extra.

        With `splits_in_ids` each id is written behind its split ('test/0').
        """
        self._flush()
        own = ("id", "image", "split")
        columns = {name: pa.chunked_array([chunk[name] for chunk in self._chunks], FIXED[name]) for name in own}
        if splits_in_ids:
            columns["id"] = pc.binary_join_element_wise(columns["split"], columns["id"], "/")
        columns["captions"] = self._captions.finish(self._images)
        for name in {name for chunk in self._chunks for name in chunk} - FIXED.keys():
            columns[name] = _one_type([c[name] if name in c else pa.nulls(len(c["id"])) for c in self._chunks])
        return dataset_of(pa.table({name: columns[name] for name in [*FIXED, *sorted(columns.keys() - FIXED.keys())]}))

    def _flush(self) -> None:
        ids, images, splits, extras = zip(*self._pending, strict=True) if self._pending else ((), (), (), ())
        filled = set().union(*images)
        cells = [
            pa.array([image.get(one.name) for image in images], one.type) if one.name in filled
            else pa.nulls(len(images), one.type)
            for one in IMAGE_TYPE
        ]  # fmt: skip
        image = pa.StructArray.from_arrays(cells, fields=list(IMAGE_TYPE))
        chunk = {"id": pa.array(ids, pa.string()), "image": image}
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
