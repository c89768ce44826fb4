"""The table of a collection, built row by row in Arrow, so that a million rows fit in memory."""

from __future__ import annotations

import contextlib
import json
import uuid
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

CHUNK = 10_000
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string(), "offset": pa.int64(), "size": pa.int64()})
CAPTIONS = pa.list_(pa.string())
FIXED = {"id": pa.string(), "image": IMAGE, "captions": CAPTIONS, "split": pa.string()}


class Captions:
    """M captions in any order, each with the row of its image; `finish` gives one list per image.

    The texts of a chunk go to Arrow as soon as it is full: a fifth of the memory of Python strings in lists.
    """

    def __init__(self) -> None:
        self._pending: list[str] = []
        self._chunks: list[pa.Array] = []
        self._owners = array("q")

    def add(self, row: int, texts: Sequence[str]) -> None:
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
        return pa.chunked_array(lists, CAPTIONS)

    def _flush(self) -> None:
        self._chunks.append(pa.array(self._pending, pa.large_string()))
        self._pending = []


class Table:
    """Takes images in order and captions in any order; `finish` gives the dataset."""

    def __init__(self) -> None:
        self._captions = Captions()
        self._images = 0
        self._pending: dict[str, list[Any]] = {"id": [], "image": [], "split": []}
        self._extras: dict[str, list[Any]] = {}
        self._chunks: list[dict[str, pa.Array]] = []

    def add_image(self, id: str, image: Mapping[str, Any], split: str, extras: Mapping[str, Any]) -> int:
        """Append an image and return its row. `extras` under a name of the collection's own are left out."""
        pending = len(self._pending["id"])
        if pending == CHUNK:
            self._flush()
            pending = 0
        for column, value in (("id", id), ("image", image), ("split", split)):
            self._pending[column].append(value)
        for name in extras.keys() - FIXED.keys():
            self._extras.setdefault(name, [None] * pending)
        for name, values in self._extras.items():
            values.append(extras.get(name))
        self._images += 1
        return self._images - 1

    def add_captions(self, row: int, texts: Sequence[str]) -> None:
        """Append captions to the image at `row`."""
        self._captions.add(row, texts)

    def finish(self) -> Dataset:
        self._flush()
        columns = {name: pa.chunked_array([c[name] for c in self._chunks], FIXED[name]) for name in self._pending}
        columns["captions"] = self._captions.finish(self._images)
        for name in self._extras:
            columns[name] = _one_type([c[name] if name in c else pa.nulls(len(c["id"])) for c in self._chunks])
        order = [*FIXED, *sorted(self._extras)]
        return dataset_of(pa.table({name: columns[name] for name in order}))

    def _flush(self) -> None:
        chunk = {name: pa.array(values, FIXED[name]) for name, values in self._pending.items()}
        self._chunks.append(chunk | {name: _typed(values) for name, values in self._extras.items()})
        self._pending = {name: [] for name in self._pending}
        self._extras = {name: [] for name in self._extras}


def dataset_of(table: pa.Table) -> Dataset:
    """A dataset over an Arrow table. Left to itself `datasets` would pickle the whole table for a fingerprint."""
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
