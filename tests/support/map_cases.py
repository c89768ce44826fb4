"""Small maps and masks with known truth, and what measures must say of them by plain loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cover_by_loops(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Every pixel split into gh x gw equal parts, every part given to the patch that it lies in."""
    fine = mask.repeat_interleave(grid[0], 0).repeat_interleave(grid[1], 1).double()
    height, width = mask.shape
    cells = [
        [fine[r * height : (r + 1) * height, c * width : (c + 1) * width].mean() for c in range(grid[1])]
        for r in range(grid[0])
    ]
    return torch.tensor(cells, dtype=torch.float64)


def cells_of(grid: Tensor, cover: Tensor) -> list[tuple[float, float]]:
    """(weight, cover) of each patch that there is."""
    return [(w, c) for w, c in zip(grid.flatten().tolist(), cover.flatten().tolist(), strict=True) if not math.isnan(w)]


def covered(cells: list[tuple[float, float]]) -> list[int]:
    least = min(0.5, max(c for _, c in cells))
    return [i for i, (_, c) in enumerate(cells) if c >= least]


def auc(first: list[float], second: list[float]) -> float:
    return float(np.mean([(a > b) + (a == b) / 2 for a in first for b in second]))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, list[tuple[int, int]], Tensor, Tensor]:
    """Up to 3 maps of few distinct weights, some with a smaller grid of their own and holes, and two kinds of masks."""
    seed, pairs = draw(st.integers(0, 10**6)), draw(st.integers(1, 3))
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(2, 4))
    height, width = draw(st.integers(3, 9)), draw(st.integers(3, 9))
    numbers = random(seed)
    maps = torch.randint(-2, 4, (pairs, rows, columns), generator=numbers) * 0.3
    grids = []
    for grid in maps:
        own = (draw(st.integers(1, rows)), draw(st.integers(2, columns)))
        grid[own[0] :] = torch.nan
        grid[:, own[1] :] = torch.nan
        if own[0] * own[1] > 3 and draw(st.booleans()):
            grid[0, 0] = torch.nan
        grids.append(own)
    masks = torch.zeros(2, pairs, height, width, dtype=torch.bool)
    for kind, pair in itertools.product(range(2), range(pairs)):  # boxes at the lower right: on patches that there are
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        masks[kind, pair, top:, left : left + draw(st.integers(1, width))] = True
        masks[kind, pair, -1, -1] = True
    return maps, grids, masks[0], masks[1]


def slow_cells(maps: Tensor, grids: list[tuple[int, int]], masks: Tensor) -> list[list[tuple[float, float]]]:
    return [
        cells_of(grid[: own[0], : own[1]], cover_by_loops(mask, own))
        for grid, own, mask in zip(maps, grids, masks, strict=True)
    ]


def boxes(pairs: int, grid: int = 7, patch: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Targets of 2 x 2 patches and distractors of 1 x 2, on whole patches, apart."""
    targets, distractors = torch.zeros(2, pairs, grid * patch, grid * patch, dtype=torch.bool)
    for pair in range(pairs):
        row, column = torch.randint(grid - 1, (2,), generator=random(seed + pair)).tolist()
        targets[pair, row * patch : (row + 2) * patch, column * patch : (column + 2) * patch] = True
        row = (row + 3) % grid
        distractors[pair, row * patch : (row + 1) * patch, column * patch : (column + 2) * patch] = True
    return targets, distractors & ~targets
