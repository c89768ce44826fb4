"""What tells the pictures of rows apart: their bytes, or else their files."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc


def picture_keys(columns: Sequence[pa.ChunkedArray]) -> list[list[str | None]]:
    """For each row of each column of pictures its key, the same for equal pictures; None for one that is not there.

    Length and end tell most bytes apart, so that only those which agree in both have to be read whole.

    columns: structs of `bytes` and `path`, and `offset` where a file holds several pictures.
    """
    keys = [_short(column) for column in columns]
    counts = Counter(key for some in keys for key in some)
    for column, some in zip(columns, keys, strict=True):
        for row, cell in enumerate(pc.struct_field(column, "bytes")):
            key = some[row]
            if key is not None and counts[key] > 1 and cell.is_valid:
                some[row] = f"{key} {hashlib.sha256(cell.as_buffer()).hexdigest()}"
    return keys


def _short(column: pa.ChunkedArray) -> list[str | None]:
    data, paths = (pc.struct_field(column, name) for name in ("bytes", "path"))
    inside = column.type.get_field_index("offset") >= 0
    offsets = pc.struct_field(column, "offset").to_pylist() if inside else [None] * len(column)
    ends = pc.binary_slice(data, -32, None).to_pylist()
    lengths = pc.fill_null(pc.binary_length(data), 0).to_pylist()
    files = [path if path and os.path.isfile(path) else None for path in paths.to_pylist()]
    return [
        f"{length} {end.hex()}" if length else file if offset is None else f"{file} {offset}"
        for length, end, file, offset in zip(lengths, ends, files, offsets, strict=True)
    ]
