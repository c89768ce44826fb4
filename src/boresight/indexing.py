"""Rows that a user names, by number or by mask; one rule for collections and embeddings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boresight.errors import InputError, first_line


def row_numbers(rows: Tensor | np.ndarray | Sequence[int], n: int) -> Tensor:
    """(m,) int64 in [0, n), from row numbers, negative ones counted from the end, or a mask of `n` booleans.

    Raises InputError for a row out of range, a mask of another length, or what is neither.
    """
    chosen = as_tensor(rows, "rows")
    if chosen.dtype == torch.bool:
        if chosen.shape != (n,):
            raise InputError(f"A mask of {chosen.numel()} booleans cannot select among {n} images; pass {n} of them.")
        return chosen.nonzero()[:, 0]
    if chosen.ndim != 1 or (chosen.is_floating_point() and chosen.numel()):
        raise InputError(
            f"rows has shape {tuple(chosen.shape)} and dtype {chosen.dtype}; a list of integers is needed."
        )
    chosen = chosen.long()
    outside = (chosen < -n) | (chosen >= n)
    if outside.any():
        raise InputError(f"Row {int(chosen[outside][0])} does not exist; there are {n} images (0 to {n - 1}).")
    return torch.where(chosen < 0, chosen + n, chosen)


def as_tensor(values: Tensor | np.ndarray | Sequence[Any], label: str) -> Tensor:
    """`values`, or rows of them, on the CPU, sharing memory where they can.

    Raises InputError naming `label` when they are no numbers.
    """
    if isinstance(values, str) or (isinstance(values, list | tuple) and values and isinstance(values[0], str)):
        raise InputError(f"{label} cannot be read as numbers (it holds text); pass a numpy array or a tensor.")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable")  # nothing here writes to what the user owns
            if isinstance(values, np.ndarray):
                values = np.ascontiguousarray(values)
            if (
                isinstance(values, list | tuple)
                and values
                and all(isinstance(row, Tensor | np.ndarray) for row in values)
            ):
                values = torch.stack([torch.as_tensor(row) for row in values])
            return torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{label} cannot be read as numbers ({first_line(error)}); pass a numpy array or a tensor."
        ) from error


def as_row(values: Tensor | np.ndarray | Sequence[float], label: str) -> Tensor:
    """(1, d) of a vector (d,), or of a matrix of one row. Raises InputError naming `label` for anything else."""
    row = values if isinstance(values, Tensor) else as_tensor(values, label)
    if row.ndim not in (1, 2) or (row.ndim == 2 and len(row) != 1):
        raise InputError(f"{label} has shape {tuple(row.shape)}; one row (d,) is needed.")
    return row.reshape(1, -1)
