"""Attribution put to the test on the model itself: what becomes of its score as parts of the input are taken away.

The model comes in through closures over pairs; nothing here knows how it scores. A measure that needs no truth is
easily flattered: read each beside the same measure of a random and of a uniform map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from boresight.attribution.grids import own_grids, resized
from boresight.attribution.localisation import Array, as_maps
from boresight.errors import InputError
from boresight.indexing import as_tensor
from boresight.seeds import generator

SINGLY = 50


@dataclass(frozen=True, eq=False)
class Curves:
    """Scores of P pairs while units go and while they come, in order of decreasing weight.

    Attributes:
        deletion, insertion: (P,) float64, mean score over the share of units gone, or come, from 0 to 1 (trapezoid).
        deletion_curve: (P, S + 1) float64, score after each step; step 0 has all units. NaN after a pair's own last.
        insertion_curve: the same; step 0 has none.
    """

    deletion: Tensor
    insertion: Tensor
    deletion_curve: Tensor
    insertion_curve: Tensor


def deletion_insertion(
    weights: Array, score: Callable[[Tensor], Tensor], steps: int | None = None, *, seed: int = 0
) -> Curves:
    """What taking the heaviest units away does to the score, and what putting them back in first does.

    RISE's deletion and insertion (Petsiuk et al. 2018, arXiv 1806.07421, 'evaluation metrics') over any units, patches
    or tokens, and on the raw score. A faithful map has low deletion and high insertion. `score` is called 2 S times.

    Args:
        weights: (P, n) floats. NaN is no unit: it is never taken away.
        score: keep (P, n) booleans, on the device of `weights`, to (P,) scores of the pairs with only the kept units.
        steps: equal groups (to one unit) that a pair's units go in, no more than it has units; left out, one by one
            up to SINGLY units and in SINGLY groups above.
        seed: of the order among units of equal weight; row i's depends on (seed, i, n).

    Raises:
        InputError: weights of another shape, with infinity or with a row of nothing but NaN; fewer than 1 step; a score
            that is not (P,) finite numbers.
    """
    values = as_tensor(weights, "weights")
    if values.ndim != 2 or 0 in values.shape or not values.is_floating_point():
        raise InputError(f"weights has shape {tuple(values.shape)}, dtype {values.dtype}; pass floats, (pairs, units).")
    if steps is not None and steps < 1:
        raise InputError(f"Units cannot go in {steps} steps; ask for 1 or more, or leave `steps` out.")
    values = as_maps(values[:, None], "weights")[:, 0]
    device = weights.device if isinstance(weights, Tensor) else torch.device("cpu")
    unit, rank = ~values.isnan(), ranks(values, seed, "equal weights")
    count = unit.sum(1)
    groups = count.clamp(max=SINGLY if steps is None else steps)
    points = torch.arange(int(groups.max()) + 1)
    # After step k of S floor(k n / S) units have moved; a pair with fewer steps than others waits at its last one.
    moved = points.minimum(groups[:, None]) * count[:, None] // groups[:, None]

    def ask(keep: Tensor) -> Tensor:
        scores = as_tensor(score(keep.to(device)), "score")
        if scores.shape != (len(values),) or not bool(torch.isfinite(scores).all()):
            raise InputError(
                f"score gave shape {tuple(scores.shape)} or a number that is not finite; "
                f"it must give {len(values)} finite numbers, one a pair."
            )
        return scores.double()

    full, empty = ask(torch.ones_like(unit)), ask(~unit)
    between = moved.T[1:-1, :, None]
    gone = torch.stack([full, *(ask(~unit | (rank >= some)) for some in between), empty], 1)
    come = torch.stack([empty, *(ask(~unit | (rank < some)) for some in between), full], 1)
    share, after = moved.double() / count[:, None], points > groups[:, None]
    return Curves(
        deletion=torch.trapezoid(gone, share),
        insertion=torch.trapezoid(come, share),
        deletion_curve=gone.masked_fill(after, torch.nan),
        insertion_curve=come.masked_fill(after, torch.nan),
    )


def confidence(score_full: Array, score_masked: Array) -> tuple[Tensor, Tensor]:
    """(P,) drop and (P,) increase in percent: 100 max(0, s - s') and 100 [s' > s]; their means are what is published.

    s is the score of the whole pair, s' that of the pair masked by its own map (`soft_mask`). M2IB's Confidence Drop
    and Increase (Wang et al. 2023, arXiv 2312.17174, experiments), after Grad-CAM++ (arXiv 1710.11063), whose drop is
    a share of s where this one is absolute. A spread-out map of any origin has a small drop.

    Raises InputError for scores that are not two rows of equal length of finite numbers.
    """
    full, masked = as_tensor(score_full, "score_full").double(), as_tensor(score_masked, "score_masked").double()
    if full.ndim != 1 or full.shape != masked.shape:
        raise InputError(
            f"score_full has shape {tuple(full.shape)} and score_masked {tuple(masked.shape)}; pass one score a pair."
        )
    if not bool(torch.isfinite(full + masked).all()):
        raise InputError("score_full or score_masked holds NaN or infinity; look at the model's scores.")
    return 100 * (full - masked).clamp(min=0), 100 * (masked > full).double()


def soft_mask(maps: Array, size: tuple[int, int]) -> Tensor:
    """(P, H, W) float32 in [0, 1] with (H, W) = `size`: what published Confidence Drops multiply the pixels with.

    Each map (gh, gw) is resized bilinearly and then brought to [0, 1] by its least and its largest value; a constant
    map becomes ones. A pair's own grid fills the whole of `size`; a NaN inside it counts as its least value.
    Raises InputError as `localisation.as_maps` does, or for a size without pixels.
    """
    if min(size) < 1:
        raise InputError(f"A mask of {size[0]} x {size[1]} has no pixels; pass the height and width of the pictures.")
    values = as_maps(maps)
    masks = torch.ones(len(values), *size)
    for row, (grid, (height, width)) in enumerate(zip(values, own_grids(values).tolist(), strict=True)):
        own = grid[:height, :width]
        own = own.nan_to_num(own[~own.isnan()].min().item())
        large = resized(own, size)
        low, high = large.aminmax()
        if own.min() < own.max() and low < high:
            masks[row] = (large - low) / (high - low)
    return masks


def ranks(values: Tensor, seed: int, stream: str) -> Tensor:
    """(P, n) int64, each unit's rank from 0 when the heaviest comes first; equal ones in random order, NaN behind all.

    seed, stream: of that order, as `seeds.generator` takes them.
    """
    shuffled = torch.rand(values.shape, generator=generator(seed, stream)).argsort(1)
    weights = values.masked_fill(values.isnan(), -torch.inf).gather(1, shuffled)
    return shuffled.gather(1, weights.argsort(dim=1, descending=True, stable=True)).argsort(1)
