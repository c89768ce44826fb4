"""Scores of one block of rows: products with the columns, sums over latents, lengths.

Up to four columns go through compiled loops where numba is installed (`boresight.search.scan_numba`), more of them, or
all without numba, through matrix products. The results agree to rounding.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from boresight.editing.scoring import MIN_LENGTH
from boresight.errors import InputError

try:
    from boresight.search import scan_numba as loops
except ImportError:  # without the extra [search]
    loops = None  # type: ignore[assignment]
if TYPE_CHECKING:
    from boresight.search.scan import Columns, LinearQueries, Rows

PRODUCT_ROWS, LOOP_ROWS = 2048, 16384
"""Rows of a block for matrix products, which should stay in the cache, and for compiled loops, which read once."""

_WHOLE = 16
"""Widths are filled up to a multiple of this for matrix products: MKL rounds odd and even rows apart at others."""


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=".*not writable")
    # torch warns once a process of memory it must not write to, such as a mapped file; nothing here writes to it.
    torch.from_numpy(np.frombuffer(b"0", dtype=np.uint8))


class BlockScorer:
    """Scores blocks of rows.

    A row's score does not depend on its place in a block: matrix products always have `size` rows, and a width
    that fills registers, because a library may round each shape differently; the rest is done row by row.

    Args:
        rows: The segments that will be scored.
        queries: T queries.

    Raises:
        InputError: The queries do not fit the segments.
    """

    def __init__(self, rows: Sequence[Rows], queries: LinearQueries) -> None:
        for columns in queries.columns:
            _check(rows, columns, len(queries))
        self.queries = queries
        self.columns = [_Prepared(columns) for columns in queries.columns]
        self.size = LOOP_ROWS if all(each.in_loops for each in self.columns) else PRODUCT_ROWS

    def __call__(self, rows: Rows, ids: np.ndarray) -> np.ndarray:
        """(B, T) float32 scores of at most `size` rows; `ids` are their numbers in the whole index."""
        scores: np.ndarray | None = None
        for each in self.columns:
            product = np.zeros((self.size, each.n_columns), dtype=np.float32)
            squares = np.zeros_like(product) if len(each.gate_CD) else None
            (each.by_loops if each.in_loops else each.by_products)(rows, ids, product, squares)
            if squares is not None:
                lengths = np.sqrt(np.maximum(squares, MIN_LENGTH**2, out=squares), out=squares)
                product /= lengths if each.exponent == 1 else lengths**each.exponent
            mine = product[: len(rows)]
            if each.combine is not None:
                mine = np.zeros((len(rows), len(self.queries)), dtype=np.float32)
                for column, (reached, weights) in enumerate(each.combine):
                    mine[:, reached] += product[: len(rows), column, None] * weights
            scores = mine if scores is None else scores + mine
        if scores is None:
            scores = np.zeros((len(rows), len(self.queries)), dtype=np.float32)
        if rows.bias is not None and self.queries.bias.any():
            scores -= rows.bias[:, None] * self.queries.bias
        if self.queries.constant.any():
            scores += self.queries.constant
        if not np.isfinite(scores.sum()):
            bad = ids[~np.isfinite(scores).all(axis=1)]
            raise InputError(f"Row {bad[0]} has a score that is not finite; its vector is damaged, so index it again.")
        return scores


class _Prepared:
    """Columns, laid out for the loops or the products that will read them."""

    def __init__(self, columns: Columns) -> None:
        self.n_columns, width = columns.dense.shape
        self.in_loops = loops is not None and self.n_columns <= loops.MOST_COLUMNS
        self.matrix, self.exponent = columns.matrix, columns.exponent
        self.query_CD = _floats(columns.dense)
        gate = None if columns.exponent == 0 else columns.gate
        self.gate_CD = np.zeros((0, width), np.float32) if gate is None else np.square(_floats(gate))
        self.latent = [
            None if latent is None else _floats(latent.T if self.in_loops else latent) for latent in columns.latent
        ]
        identity = columns.combine.shape[0] == columns.combine.shape[1] and np.array_equal(
            columns.combine, np.eye(self.n_columns)
        )
        # Sums of few columns one after the other: a product with so short an inner side may round each row differently.
        reached = [np.flatnonzero(weights) for weights in columns.combine]
        weights = [row[some].astype(np.float32) for row, some in zip(columns.combine, reached, strict=True)]
        self.combine = None if identity else list(zip(reached, weights, strict=True))

    def by_loops(self, rows: Rows, ids: np.ndarray, product_BC: np.ndarray, squares_BC: np.ndarray | None) -> None:
        """Adds the products of the rows to the zeros of `product`, and the squared lengths to those of `squares`."""
        squares_BC = product_BC[:0] if squares_BC is None else squares_BC
        loops.products(loops.plain(rows.dense[self.matrix]), self.query_CD, self.gate_CD, product_BC, squares_BC)
        for latent_CL, values in zip(self.latent, rows.values, strict=bool(self.latent)):
            if latent_CL is not None:
                indices = _checked(rows, latent_CL.shape[1], ids)
                loops.add_latents(loops.plain(indices), loops.plain(values), latent_CL, product_BC)

    def by_products(self, rows: Rows, ids: np.ndarray, product_BC: np.ndarray, squares_BC: np.ndarray | None) -> None:
        """As `by_loops`."""
        dense = rows.dense[self.matrix]
        filled = torch.from_numpy(dense).float()
        missing, widened = len(product_BC) - len(dense), -dense.shape[1] % _WHOLE
        if missing or widened:
            filled = F.pad(filled, (0, widened, 0, missing))
        # A query a row, turned: for few columns a library is far slower when they are laid out the other way.
        query_DC, gate_DC = (F.pad(torch.from_numpy(each), (0, widened)).t() for each in (self.query_CD, self.gate_CD))
        product = torch.mm(filled, query_DC, out=torch.from_numpy(product_BC))
        for latent_LC, values in zip(self.latent, rows.values, strict=bool(self.latent)):
            if latent_LC is not None:
                indices = torch.from_numpy(_checked(rows, len(latent_LC), ids).astype(np.int32))
                weights = torch.from_numpy(values).float()
                product[: len(rows)] += F.embedding_bag(
                    indices, torch.from_numpy(latent_LC), per_sample_weights=weights, mode="sum"
                )
        if squares_BC is not None:
            torch.mm(filled.square(), gate_DC, out=torch.from_numpy(squares_BC))


def _check(rows: Sequence[Rows], columns: Columns, n_queries: int) -> None:
    n_columns, width = columns.dense.shape
    for segment in rows:
        stored = segment.dense[columns.matrix].shape[1]
        if stored != width:
            raise InputError(
                f"The index holds vectors of width {stored}, and the query of width {width}; ask with the model that "
                "made the index."
            )
        if columns.latent and len(columns.latent) != len(segment.values):
            raise InputError(
                f"The query has latent parts for {len(columns.latent)} kinds of values, and the index holds "
                f"{len(segment.values)}; ask with the model that made the index."
            )
    tables = [latent for latent in columns.latent if latent is not None]
    gate_fits = columns.gate is None or columns.gate.shape == columns.dense.shape
    if (
        not gate_fits
        or columns.combine.shape != (n_columns, n_queries)
        or any(each.shape[1] != n_columns for each in tables)
    ):
        raise InputError(f"The parts of {n_columns} columns and {n_queries} queries do not fit each other.")


def _checked(rows: Rows, n_latents: int, ids: np.ndarray) -> np.ndarray:
    """The (B, K) latents of a block, each one that there is: the loops read whatever they are told to."""
    if rows.indices is None:
        raise InputError("The query has latent parts, and the index holds no latents.")
    indices = rows.indices
    if indices.size and not 0 <= indices.min() <= indices.max() < n_latents:
        bad = ids[((indices < 0) | (indices >= n_latents)).any(axis=1)]
        raise InputError(f"Row {bad[0]} has a latent outside the {n_latents:,} of the query's model.")
    return indices


def _floats(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=np.float32)
