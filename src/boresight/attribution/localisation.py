"""How well attribution maps find what a caption tells of, where the truth is known: measures over raw maps and masks.

Maps are (P, gh, gw), one per pair of image and caption, raw and signed. A NaN is no patch: it never counts. A pair's
own grid ends with the last row and the last column that hold a number, and spans the whole of its mask, so pictures of
several shapes may lie padded in one tensor. Masks are (P, H, W) booleans over the pixels that the model saw.

Three sets of patches, by the share of a patch's pixels that lie in the mask: *covered*, at least half, or, where no
patch reaches that, the most covered ones; *uncovered*, none at all; *hits*, at least half of the largest share, so that
an object smaller than a patch can be hit. All arithmetic is in float64 on the CPU, comparisons of shares are exact, and
ties are shared in expectation: a uniform map gets what chance would give.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from boresight.attribution.grids import own_grids
from boresight.errors import InputError
from boresight.indexing import as_tensor

Array = Tensor | np.ndarray
PAIRS_AT_ONCE = 256  # masks are widened to float64, eight times their size


def patch_cover(masks: Array, grid: tuple[int, int]) -> Tensor:
    """(P, gh, gw) float64, the share of each patch that lies in the mask; (gh, gw) = `grid`.

    H and W need not be multiples of the grid: a pixel on a border counts for either patch by its area there.
    Raises InputError for masks that are not (P, H, W) booleans or a grid without patches.
    """
    regions = _masks(masks)
    if min(grid) < 1:
        raise InputError(f"A grid of {grid[0]} x {grid[1]} has no patches; pass the rows and columns of the map.")
    height, width = regions.shape[1:]
    down, across = _overlaps(height, grid[0]), _overlaps(width, grid[1])
    # Overlaps are whole numbers, so sums are exact and a patch that is half covered is so without rounding.
    parts = [down @ part.double() @ across.T / (height * width) for part in regions.split(PAIRS_AT_ONCE)]
    return torch.cat(parts) if parts else torch.zeros(0, *grid, dtype=torch.float64)


def as_maps(maps: Array, label: str = "maps") -> Tensor:
    """(P, gh, gw) float64 on the CPU.

    Raises InputError, naming `label`, for another number of dimensions, no floats, infinity, a pair of nothing but NaN.
    """
    values = as_tensor(maps, label)
    if values.ndim != 3 or not values.is_floating_point() or 0 in values.shape[1:]:
        raise InputError(
            f"{label} has shape {tuple(values.shape)} and dtype {values.dtype}; "
            "pass floats, one map a pair, (pairs, rows, columns)."
        )
    rows = values.flatten(1)
    _refuse(rows.isinf().any(1), f"of {label} holds infinity; look at the method that made it", "Map")
    _refuse(rows.isnan().all(1), f"of {label} holds no number; drop the pair", "Map")
    return values.double()


def pointing_game(maps: Array, masks: Array) -> Tensor:
    """(P,) 1 where the top patch is a hit, else 0; of several top patches the share that hits.

    After Zhang et al. 2016 (arXiv 1608.00507, 'pointing game'), with patches for points and no tolerance around them.
    Raises InputError for shapes that do not fit and a mask that touches no patch, as all measures here do.
    """
    values, cover = maps_and_shares(maps, masks)
    top = values == _lowered(values).amax(1, keepdim=True)
    hits = cover >= cover.nan_to_num().amax(1, keepdim=True) / 2
    return (top & hits).sum(1).double() / top.sum(1)


def energy_in_mask(maps: Array, masks: Array) -> Tensor:
    """(P,) share in [0, 1] of the positive weight that lies in the mask, each patch's by the share of it that does.

    The energy-based pointing game of Score-CAM (Wang et al. 2020, arXiv 1910.01279), on patches. A map without a
    positive weight counts as uniform.
    """
    values, cover = maps_and_shares(maps, masks)
    mass = values.clamp(min=0).nan_to_num()
    mass = torch.where(mass.any(1, keepdim=True), mass, (~values.isnan()).double())
    return (mass * cover.nan_to_num()).sum(1) / mass.sum(1)


def iou(maps: Array, masks: Array) -> Tensor:
    """(P,) intersection over union of the n covered patches with the n top patches of the map.

    Where several patches tie for the last places, the mean over all ways of choosing among them.
    """
    values, cover = maps_and_shares(maps, masks)
    truth = covered(cover)
    n = truth.sum(1, keepdim=True)
    last = _lowered(values).sort(1, descending=True).values.gather(1, n - 1)
    above, tied = values > last, values == last
    sure, left = (above & truth).sum(1, keepdim=True), n - above.sum(1, keepdim=True)
    right, all_tied = (tied & truth).sum(1, keepdim=True), tied.sum(1, keepdim=True)
    drawn = torch.arange(int(right.max()) + 1 if len(right) else 1)
    # How many of the covered patches among the tied come along is hypergeometric; impossible numbers get weight 0.
    chance = torch.from_numpy(stats.hypergeom.pmf(drawn, all_tied, right, left))
    both = sure + drawn
    return (chance * both / (2 * n - both).clamp(min=1)).sum(1)


def roc_auc(maps: Array, masks: Array) -> Tensor:
    """(P,) chance that a covered patch has more weight than an uncovered one, ties half; patches between do not count.

    Raises InputError where a mask leaves no patch uncovered.
    """
    values, cover = maps_and_shares(maps, masks)
    uncovered = cover == 0
    _refuse(~uncovered.any(1), "leaves no patch uncovered; drop the pair or use a model with smaller patches")
    return pairwise_auc(values, covered(cover), uncovered)


def maps_and_shares(maps: Array, *masks: Array) -> tuple[Tensor, ...]:
    """The maps (P, n), and for each kind of mask the share (P, n) of each patch that it covers, NaN for no patch."""
    values = as_maps(maps)
    grids = own_grids(values)
    covers = []
    for regions in map(_masks, masks):
        if len(regions) != len(values):
            raise InputError(f"There are {len(values)} maps and {len(regions)} masks; pass one mask for each map.")
        cover = torch.full_like(values, torch.nan)
        for rows, columns in grids.unique(dim=0).tolist():
            here = ((grids[:, 0] == rows) & (grids[:, 1] == columns)).nonzero()[:, 0]
            cover[here, :rows, :columns] = patch_cover(regions[here], (rows, columns))
        cover = cover.masked_fill(values.isnan(), torch.nan).flatten(1)
        _refuse(~(cover > 0).any(1), "touches no patch of its map; drop the pair")
        covers.append(cover)
    return values.flatten(1), *covers


def _masks(masks: Array) -> Tensor:
    tensor = as_tensor(masks, "masks")
    if tensor.ndim != 3 or tensor.dtype != torch.bool or 0 in tensor.shape[1:]:
        raise InputError(
            f"masks has shape {tuple(tensor.shape)} and dtype {tensor.dtype}; pass booleans, (pairs, height, width)."
        )
    return tensor


def _refuse(bad: Tensor, reason: str, what: str = "The mask of pair") -> None:
    if bad.any():
        raise InputError(f"{what} {int(bad.nonzero()[0])} {reason}.")


def _overlaps(length: int, parts: int) -> Tensor:
    """(parts, length) float64: what each of `length` pixels shares with each of `parts` patches, in 1/parts pixels."""
    pixels, patches = torch.arange(length) * parts, torch.arange(parts)[:, None] * length
    return (torch.minimum(pixels + parts, patches + length) - torch.maximum(pixels, patches)).clamp(min=0).double()


def covered(cover: Tensor) -> Tensor:
    """(P, n) bool, the covered patches."""
    return cover >= cover.nan_to_num().amax(1, keepdim=True).clamp(max=0.5)


def _lowered(values: Tensor) -> Tensor:
    """With what is no patch below all patches."""
    return values.masked_fill(values.isnan(), -torch.inf)


def pairwise_auc(values: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(P,) mean over all pairs of a patch of `first` and one of `second` of whether the former has more, ties half."""
    rivals = values.masked_fill(~second, torch.inf).sort(1).values
    asked = values.nan_to_num().contiguous()
    won = torch.searchsorted(rivals, asked) + torch.searchsorted(rivals, asked, right=True)
    return (won * first).sum(1).double() / (2 * first.sum(1) * second.sum(1))
