"""A matrix on disk that grows by whole rows: an ordinary .npy file whose header is filled in at the end."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boresight.errors import ArtefactError

BLOCK = 1 << 24  # bytes read or written at once
AGAIN = "make the embeddings again."


def header(rows: int, width: int, dtype: str) -> bytes:
    """The .npy header of a (rows, width) matrix; its length does not depend on `rows`."""
    buffer = io.BytesIO()
    described = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(buffer, {"descr": described, "fortran_order": False, "shape": (rows, width)})
    return buffer.getvalue()


class RowFile:
    """Rows appended to `file`, starting after the first `rows` of what is there; anything beyond them is cut off.

    Until `finish` the header says that there are no rows. `parts` lists [number of rows so far, sha256 of the rows
    since the last entry], one entry for each `seal`.
    """

    def __init__(self, file: Path, width: int, dtype: str, parts: list[list[Any]] | None = None) -> None:
        self.width = width
        self.dtype = dtype
        self.parts = list(parts or [])
        self.rows = self.parts[-1][0] if self.parts else 0
        self._sha = hashlib.sha256()
        start = header(0, width, dtype)
        expected = len(start) + self.rows * width * np.dtype(dtype).itemsize
        if self.rows and (not file.is_file() or file.stat().st_size < expected):
            raise ArtefactError(f"{file} has lost rows that were finished; delete its folder and start again.")
        self._handle = file.open("r+b" if self.rows else "w+b")
        self._handle.write(start)
        self._handle.truncate(expected)
        self._handle.seek(expected)

    def append(self, rows: Tensor) -> None:
        """Write `rows` (n, width), cast to the file's dtype, behind the others."""
        data = np.ascontiguousarray(rows.to(getattr(torch, self.dtype)).numpy()).data.cast("B") if len(rows) else b""
        self._handle.write(data)
        self._sha.update(data)
        self.rows += len(rows)

    def seal(self) -> list[Any]:
        """Force what was appended to the disk as one part; returns its entry in `parts`."""
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self.parts.append([self.rows, self._sha.hexdigest()])
        self._sha = hashlib.sha256()
        return self.parts[-1]

    def finish(self) -> dict[str, Any]:
        """Fill in the header and force it to the disk; returns what the manifest says of the file."""
        self._handle.seek(0)
        self._handle.write(header(self.rows, self.width, self.dtype))
        self._handle.flush()
        os.fsync(self._handle.fileno())
        return {"rows": self.rows, "width": self.width, "dtype": self.dtype, "parts": self.parts}

    def __enter__(self) -> RowFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        # What counts was forced to the disk by `seal` and `finish`; after a failed write, closing fails once more.
        with contextlib.suppress(OSError):
            self._handle.close()


def map_rows(file: Path, said: dict[str, Any], again: str = AGAIN) -> Tensor:
    """The matrix in `file`, memory-mapped, after a check of its header and size against what the manifest `said`.

    Writing to the tensor changes memory, never the file. Raises ArtefactError when the file is missing or torn.
    """
    shape, dtype = (said["rows"], said["width"]), np.dtype(said["dtype"])
    start = header(*shape, said["dtype"])
    size = len(start) + shape[0] * shape[1] * dtype.itemsize
    try:
        with open(file, "rb") as handle:
            torn = handle.read(len(start)) != start or os.fstat(handle.fileno()).st_size != size
    except OSError as error:
        raise ArtefactError(f"{file} cannot be read ({error.strerror}); {again}") from error
    if torn:
        raise ArtefactError(f"{file} is torn or of another shape than its manifest says; {again}")
    if not shape[0]:
        return torch.empty(shape, dtype=getattr(torch, said["dtype"]))
    return torch.from_numpy(np.memmap(file, dtype=dtype, mode="c", offset=len(start), shape=shape))


def verify_rows(file: Path, said: dict[str, Any], again: str = AGAIN) -> None:
    """Read the whole file and compare every part's hash. Raises ArtefactError naming the first that differs."""
    row_bytes = said["width"] * np.dtype(said["dtype"]).itemsize
    with open(file, "rb") as handle:
        handle.seek(len(header(0, said["width"], said["dtype"])))
        done = 0
        for rows, expected in said["parts"]:
            sha, left = hashlib.sha256(), (rows - done) * row_bytes
            while left and (data := handle.read(min(left, BLOCK))):
                sha.update(data)
                left -= len(data)
            if sha.hexdigest() != expected:
                raise ArtefactError(f"Rows {done} to {rows - 1} of {file} were altered; {again}")
            done = rows
