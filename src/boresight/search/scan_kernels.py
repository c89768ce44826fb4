"""Scores of one block of rows: matrix products, and sums over the latents of each row."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.editing.scoring import MIN_LENGTH
from boresight.errors import InputError

if TYPE_CHECKING:
    from boresight.search.scan import LinearQueries, Rows

BLOCK = 1024
"""Rows of a block; each matrix product has so many, because it may round each shape differently."""


@dataclass(frozen=True)
class Prepared:
    """Columns as tensors, ready for products with rows."""

    matrix: int
    dense_DC: Tensor
    latent_LC: tuple[Tensor | None, ...]
    gate_DC: Tensor | None
    exponent: float
    combine_CT: Tensor | None


def prepared_for(rows: Sequence[Rows], queries: LinearQueries) -> tuple[list[Prepared], LinearQueries]:
    """The queries as tensors, after a check that they fit every segment."""
    for columns in queries.columns:
        n_columns, width = columns.dense.shape
        tables = [latent for latent in columns.latent if latent is not None]
        for segment in rows:
            if segment.dense[columns.matrix].shape[1] != width:
                raise InputError(
                    f"The index holds vectors of width {segment.dense[columns.matrix].shape[1]}, and the query of "
                    f"width {width}; ask with the model that made the index."
                )
            if columns.latent and len(columns.latent) != len(segment.values):
                raise InputError(
                    f"The query has latent parts for {len(columns.latent)} kinds of values, and the index holds "
                    f"{len(segment.values)}; ask with the model that made the index."
                )
        if columns.combine.shape != (n_columns, len(queries)) or any(each.shape[1] != n_columns for each in tables):
            raise InputError(f"The parts of {n_columns} columns and {len(queries)} queries do not fit each other.")
    return [
        Prepared(
            columns.matrix,
            _tensor(np.ascontiguousarray(columns.dense.T, dtype=np.float32)),
            tuple(None if latent is None else _tensor(np.ascontiguousarray(latent)) for latent in columns.latent),
            _tensor(np.square(columns.gate.T, dtype=np.float32))
            if columns.gate is not None and columns.exponent
            else None,
            columns.exponent,
            None if _is_identity(columns.combine) else _tensor(columns.combine),
        )
        for columns in queries.columns
    ], queries


def _is_identity(combine: np.ndarray) -> bool:
    return combine.shape[0] == combine.shape[1] and np.array_equal(combine, np.eye(len(combine)))


def block_scores(rows: Rows, prepared: tuple[list[Prepared], LinearQueries], ids: np.ndarray) -> np.ndarray:
    """(B, T) float32 scores of at most BLOCK rows; `ids` are their numbers in the whole index."""
    columns, queries = prepared
    scores = np.zeros((len(rows), len(queries)), dtype=np.float32)
    out = torch.from_numpy(scores)
    matrices = {number: _filled(rows.dense[number]) for number in {each.matrix for each in columns}}
    for each in columns:
        dense = matrices[each.matrix]
        product = (dense @ each.dense_DC)[: len(rows)]
        for latent, values in zip(each.latent_LC, rows.values, strict=bool(each.latent_LC)):
            if latent is not None:
                product += F.embedding_bag(
                    _slots(rows, len(latent), ids), latent, per_sample_weights=_tensor(values).float(), mode="sum"
                )
        if each.gate_DC is not None:
            lengths = (dense.square() @ each.gate_DC)[: len(rows)].clamp_min_(MIN_LENGTH**2).sqrt_()
            product /= lengths if each.exponent == 1 else lengths.pow_(each.exponent)
        out += product if each.combine_CT is None else product @ each.combine_CT
    if rows.bias is not None and queries.bias.any():
        scores -= rows.bias[:, None] * queries.bias
    scores += queries.constant
    if not np.isfinite(scores.sum()):
        bad = ids[~np.isfinite(scores).all(axis=1)]
        raise InputError(f"Row {bad[0]} has a score that is not finite; its vector is damaged, so index it again.")
    return scores


def _filled(block: np.ndarray) -> Tensor:
    """(BLOCK, d) float32: a shorter block is filled up with zeros."""
    if len(block) == BLOCK:
        return _tensor(block).float()
    out = torch.zeros(BLOCK, block.shape[1])
    out[: len(block)] = _tensor(block)
    return out


def _slots(rows: Rows, n_latents: int, ids: np.ndarray) -> Tensor:
    """(B, K) int32 latents of a block, each one that there is."""
    if rows.indices is None:
        raise InputError("The query has latent parts, and the index holds no latents.")
    indices = rows.indices.astype(np.int32)
    outside = (indices < 0) | (indices >= n_latents)
    if outside.any():
        bad = ids[outside.any(axis=1)][0]
        raise InputError(f"Row {bad} has a latent outside the {n_latents:,} of the query's model.")
    return torch.from_numpy(indices)


def _tensor(array: np.ndarray) -> Tensor:
    """The array as a tensor on the same memory; nothing here writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")
        return torch.from_numpy(array)
