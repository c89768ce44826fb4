"""Rows that a user names, by number or by mask; one rule for collections and embeddings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

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


def as_tensor(values: Tensor | np.ndarray | Sequence[int], label: str) -> Tensor:
    """`values` on the CPU, sharing memory where they can. Raises InputError naming `label` when they are no numbers."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable")  # nothing here writes to what the user owns
            if isinstance(values, np.ndarray):
                values = np.ascontiguousarray(values)
            return torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{label} cannot be read as numbers ({first_line(error)}); pass a numpy array or a tensor."
        ) from error
