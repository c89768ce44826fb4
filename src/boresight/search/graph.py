"""A graph over one matrix of a segment, along which near rows are found without reading all: HNSW, by FAISS.

It is over inner products as they are. The textbook way to search rows of unequal length, one more coordinate that makes
them equal, finds far fewer. The file holds the links alone; the rows are those of the segment's own matrix, and both
are memory-mapped.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boresight.errors import ArtefactError, InputError
from boresight.storage import sync, writing

AGAIN = "build the graph (index.build_graph(), or: boresight index --out INDEX --graph)."
_AT_ONCE = 4096  # rows added at once


@dataclass(frozen=True)
class GraphOptions:
    """How a graph is built.

    Attributes:
        m: links of a row, twice as many on the lowest level; a row costs about 8 m bytes. More find more in hard data.
        ef_construction: how many rows are kept in view while a row is linked. More link better, in as much more time.
    """

    m: int = 32
    ef_construction: int = 200

    def __post_init__(self) -> None:
        for name, least, most in (("m", 2, 256), ("ef_construction", 1, 10_000)):
            if not least <= (value := getattr(self, name)) <= most:
                raise InputError(f"{name} is {value}; choose from {least} to {most:,}.")


@dataclass(frozen=True)
class Graph:
    """A graph over the N rows of a matrix (N, d).

    Attributes:
        index: of FAISS, which reads from the two others and does not keep them.
        rows: the matrix as FAISS sees it.
        matrix: float16 or float32, C-contiguous, maybe memory-mapped.
    """

    index: Any
    rows: Any
    matrix: np.ndarray

    def search(
        self, vectors: np.ndarray, k: int, ef_search: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows with about the largest inner products with vectors (T, d).

        Args:
            ef_search: how many rows are kept in view on the way, `k` at least.
            allowed: (N,) bool, the rows that may be found, or None for all.

        Returns (T, k) float32 inner products, best first, and (T, k) int64 rows; -1 where no more were found.
        """
        faiss = _faiss()
        options = faiss.SearchParametersHNSW(efSearch=max(ef_search, k))
        if allowed is not None:
            options.sel = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        return self.index.search(np.ascontiguousarray(vectors, dtype=np.float32), k, params=options)


def write_graph(file: Path, matrix: np.ndarray, options: GraphOptions, bar: Any) -> dict[str, Any]:
    """Build a graph over (N, d) float16 or float32 rows; returns what `open_graph` needs to know. Rows advance `bar`.

    Raises InputError without FAISS, ArtefactError where the file cannot be written.
    """
    faiss = _faiss()
    width = matrix.shape[1]
    graph = (
        faiss.IndexHNSWSQ(width, faiss.ScalarQuantizer.QT_fp16, options.m, faiss.METRIC_INNER_PRODUCT)
        if matrix.dtype == np.float16
        else faiss.IndexHNSWFlat(width, options.m, faiss.METRIC_INNER_PRODUCT)
    )
    graph.hnsw.efConstruction = options.ef_construction
    for start in range(0, len(matrix), _AT_ONCE):
        block = np.ascontiguousarray(matrix[start : start + _AT_ONCE], dtype=np.float32)
        graph.add(block)
        bar.update(len(block))
    # Not written by FAISS itself, which keeps silent where the disk is full at the end.
    links = faiss.VectorIOWriter()
    faiss.write_index(graph, links, faiss.IO_FLAG_SKIP_STORAGE)
    content = faiss.vector_to_array(links.data).data
    with writing(file):
        file.write_bytes(content)
        sync(file)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def open_graph(file: Path, matrix: np.ndarray, said: dict[str, Any]) -> Graph:
    """Map the graph over a matrix that `write_graph` wrote.

    Raises InputError without FAISS, ArtefactError where the file is missing, torn or altered.
    """
    verify_graph(file, said)  # FAISS follows links without a look at where they lead
    faiss = _faiss()
    index = faiss.read_index(str(file), faiss.IO_FLAG_SKIP_STORAGE | faiss.IO_FLAG_MMAP_IFC)
    if (index.ntotal, index.d) != matrix.shape:
        raise ArtefactError(f"{file} is of other images; {AGAIN}")
    rows = _half(faiss, matrix.shape[1]) if matrix.dtype == np.float16 else faiss.IndexFlatIP(matrix.shape[1])
    owner = index.hnsw.neighbors.owner  # of a view there must be one, and it keeps the links; `Graph` keeps the matrix
    rows.codes = faiss.MaybeOwnedVectorUInt8.create_view(_address(faiss, matrix), matrix.nbytes, owner)
    rows.ntotal = len(matrix)
    index.storage, index.own_fields = rows, False
    return Graph(index, rows, matrix)


def verify_graph(file: Path, said: dict[str, Any]) -> None:
    """Read the file once. Raises ArtefactError where it is missing or not what was written."""
    try:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise ArtefactError(f"{file} is missing or cannot be read ({error.strerror}); {AGAIN}") from error
    if digest != said["sha256"]:
        raise ArtefactError(f"{file} is torn or was altered; {AGAIN}")


def _half(faiss: Any, width: int) -> Any:
    return faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)


def _address(faiss: Any, matrix: np.ndarray) -> Any:
    return faiss.swig_ptr(np.asarray(matrix).view(np.uint8).reshape(-1))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            f'Approximate search needs the package faiss ({error}); run: pip install "boresight[search]".'
        ) from error
    return faiss
