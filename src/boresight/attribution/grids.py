"""Maps on a model's own grid of patches: put there, padded, resized, brought to one scale. NaN is no patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.errors import InputError

Normalize = Literal["minmax", "maxabs"]


def on_grid(scores: Tensor, grids: tuple[tuple[int, int], ...] | None, prefix: int) -> Tensor:
    """(B, ..., gh, gw) of scores (B, ..., N), the first `prefix` of them left out; NaN outside smaller grids."""
    assert grids is not None
    height, width = map(max, zip(*grids, strict=True))
    out = scores.new_full((*scores.shape[:-1], height, width), torch.nan)
    for row, (rows, columns) in enumerate(grids):
        patches = scores[row, ..., prefix : prefix + rows * columns]
        out[row, ..., :rows, :columns] = patches.unflatten(-1, (rows, columns))
    return out


def joined(parts: Sequence[Tensor], length: int = 0) -> Tensor:
    """(P, T, ...), the rows of all parts (p, t, ...), each as large as the largest: NaN behind its own numbers.

    length: T, if that is more.
    """
    longest, *rest = (max(extents) for extents in zip(*(part.shape[1:] for part in parts), strict=True))
    out = parts[0].new_full((sum(map(len, parts)), max(longest, length), *rest), torch.nan)
    for rows, part in zip(out.split([len(part) for part in parts]), parts, strict=True):
        rows[(slice(None), *map(slice, part.shape[1:]))] = part
    return out


def own_grids(maps: Tensor) -> Tensor:
    """(P, 2) int64, rows and columns of each pair's own grid within maps (P, gh, gw): up to the last number in each."""
    present = ~maps.isnan()
    rows = present.any(2) * torch.arange(1, maps.shape[1] + 1)
    columns = present.any(1) * torch.arange(1, maps.shape[2] + 1)
    return torch.stack([rows.amax(1), columns.amax(1)], 1)


def own_grid(raw: Tensor) -> Tensor:
    """A map (gh, gw) without the rows and columns behind its own grid."""
    rows, columns = own_grids(raw[None])[0].tolist()
    return raw[:rows, :columns]


def resized(raw: Tensor, size: tuple[int, int]) -> Tensor:
    """(gh, gw) -> size, bilinear."""
    return F.interpolate(raw[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


def normalized(values: Tensor, how: Normalize | None) -> Tensor:
    """Into [0, 1] ('minmax') or [-1, 1] ('maxabs'); a constant becomes zeros."""
    if how is None:
        return values
    if how not in get_args(Normalize):
        raise InputError(f"normalize '{how}' is unknown; choose 'minmax', 'maxabs' or None.")
    shifted = values - values.min() if how == "minmax" else values
    top = shifted.abs().max()
    flat = values.max() - values.min() <= 1e-6 * values.abs().max()
    return torch.zeros_like(values) if bool(flat) else shifted / top
