"""Vectors of pgvector and columns of tables as PostgreSQL reads and sends them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format
from psycopg.types import TypeInfo

from boresight.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

MOST_NONZERO = 16_000
"""Elements other than 0 that a sparsevec may have."""
KINDS = ("vector", "halfvec", "sparsevec")
_FLOATS = {"vector": ">f4", "halfvec": ">f2"}


class Encoded(bytes):
    """A value in PostgreSQL's binary form; the subclasses say of which type."""


class Vector(Encoded):
    """A vector, float32."""


class Halfvec(Encoded):
    """A halfvec, float16."""


class Sparsevec(Encoded):
    """A sparsevec: indices and float32 values other than 0."""


_CLASSES = {"vector": Vector, "halfvec": Halfvec, "sparsevec": Sparsevec}


def fetched_oids(connection: Any) -> dict[str, int]:
    """Kind -> number of the type in this database; without those that it lacks."""
    found = {kind: TypeInfo.fetch(connection, kind) for kind in KINDS}
    return {kind: info.oid for kind, info in found.items() if info is not None}


def register(connection: Any, oids: dict[str, int]) -> None:
    """Send `Encoded` values as they are, and read vectors as arrays."""
    for kind, oid in oids.items():
        dumper = type(f"{kind}Dumper", (_Dumper,), {"oid": oid})
        connection.adapters.register_dumper(_CLASSES[kind], dumper)
        connection.adapters.register_dumper(None, dumper)
        connection.adapters.register_loader(oid, {"vector": _Vectors, "halfvec": _Halfvecs}.get(kind, _Sparsevecs))


def dense(rows: np.ndarray, kind: str) -> list[Encoded]:
    """Rows (N, d) as vectors or halfvecs."""
    head = struct.pack(">HH", rows.shape[1], 0)
    body = np.ascontiguousarray(rows.astype(_FLOATS[kind]))
    return [_CLASSES[kind](head + row.tobytes()) for row in body]


def sparse(indices: np.ndarray, values: np.ndarray, width: int) -> list[Encoded]:
    """Rows of (N, k) indices and values as sparsevecs; zeros are left out."""
    order = np.argsort(indices, axis=1, kind="stable")
    places = np.take_along_axis(indices, order, axis=1).astype(">i4")
    amounts = np.take_along_axis(values, order, axis=1).astype(">f4")
    rows = []
    for place, amount in zip(places, amounts, strict=True):
        kept = amount != 0
        head = struct.pack(">iii", width, int(kept.sum()), 0)
        rows.append(Sparsevec(head + place[kept].tobytes() + amount[kept].tobytes()))
    return list(rows)


def weights(latent: np.ndarray) -> list[Encoded]:
    """(L,) weights of latents as sparsevecs that sum to them, since one holds no more than `MOST_NONZERO`."""
    at = np.flatnonzero(latent)
    parts = [at[start : start + MOST_NONZERO] for start in range(0, len(at), MOST_NONZERO)]
    return [sparse(part[None], latent[part][None], len(latent))[0] for part in parts]


def aligned(codes: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Sparse columns of the same N rows as (N, k) int64 indices and, for each column, (N, k) float32 values."""
    unions = [np.unique(np.concatenate([places for places, _ in row])) for row in zip(*codes, strict=True)]
    slots = max(1, *(len(union) for union in unions), 1) if unions else 1
    indices = np.zeros((len(unions), slots), dtype=np.int64)
    values = [np.zeros((len(unions), slots), dtype=np.float32) for _ in codes]
    for row, union in enumerate(unions):
        indices[row, : len(union)] = union
        for column, out in zip(codes, values, strict=True):
            places, amounts = column[row]
            out[row, np.searchsorted(union, places)] = amounts
    return indices, values


def sql_type(field: pa.Field) -> str:
    """The type of a user's column. Text is compared by its bytes. Raises InputError where there is none."""
    import pyarrow.types as types

    kind = field.type.value_type if types.is_dictionary(field.type) else field.type
    known = {
        types.is_string: 'text COLLATE "C"',
        types.is_large_string: 'text COLLATE "C"',
        types.is_boolean: "boolean",
        types.is_uint64: "numeric(20)",
        types.is_integer: "bigint",
        types.is_floating: "double precision",
        types.is_date: "date",
        types.is_time: "time",
    }
    if types.is_timestamp(kind):
        return "timestamp" if kind.tz is None else "timestamptz"
    for test, name in known.items():
        if test(kind):
            return name
    raise InputError(f"The column '{field.name}' holds {field.type}, which PostgreSQL is not given; leave it out.")


class _Dumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Any) -> Any:
        return obj


class _Vectors(Loader):
    format = Format.BINARY
    floats = _FLOATS["vector"]

    def load(self, data: Any) -> Any:
        return np.frombuffer(bytes(data), self.floats, offset=4).astype(self.floats[1:])


class _Halfvecs(_Vectors):
    floats = _FLOATS["halfvec"]


class _Sparsevecs(Loader):
    format = Format.BINARY

    def load(self, data: Any) -> Any:
        raw = bytes(data)
        count = struct.unpack_from(">i", raw, 4)[0]
        places = np.frombuffer(raw, ">i4", count, 12).astype(np.int64)
        return places, np.frombuffer(raw, ">f4", count, 12 + 4 * count).astype(np.float32)


def version_of(connection: Any) -> tuple[int, ...] | None:
    """Of pgvector in this database; None where it is not there."""
    found = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    return None if found is None else tuple(int(part) for part in found[0].split("."))
