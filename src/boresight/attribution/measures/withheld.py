"""What a dual encoder makes of pairs from which patches or tokens are withheld, many pairs at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.attribution.methods.masking import Words, units_of
from boresight.encoders.towers.tower import Tower


def embedded(tower: Tower, inputs: Mapping[str, Tensor], batch_size: int) -> Tensor:
    """(K, d) float32 of unit length on the CPU, of the K inputs that a tower takes."""
    rows = torch.arange(len(next(iter(inputs.values())))).split(batch_size)
    with torch.no_grad():
        parts = [tower.upper(tower.lower({name: value[some] for name, value in inputs.items()}, 0)) for some in rows]
    return F.normalize(torch.cat(parts), dim=1).cpu()


def with_patches(pixels: Tensor, keep: Tensor, filling: Tensor | float = 0.0) -> Tensor:
    """Pixels (P, C, H, W) where the patches keep (P, gh, gw) are True, elsewhere `filling`, of the same shape or one.

    0 is the mean colour, as pixels are normalised. What the grid leaves over of a picture belongs to its last patches.
    """
    rows, columns = (
        (torch.arange(extent) // (extent // parts)).clamp(max=parts - 1)
        for extent, parts in zip(pixels.shape[2:], keep.shape[1:], strict=True)
    )
    return torch.where(keep[:, None, rows[:, None], columns], pixels, filling)


def blurred(pixels: Tensor, sigma: float) -> Tensor:
    """Pixels (P, C, H, W) under a Gaussian of `sigma` pixels, cut at three of them; edges go on beyond the picture."""
    reach = math.ceil(3 * sigma)
    bell = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    kernel = (bell / bell.sum()).expand(pixels.shape[1], 1, 1, -1)
    for turned in (False, True):
        sides = (0, 0, reach, reach) if turned else (reach, reach, 0, 0)
        along = kernel.transpose(2, 3) if turned else kernel
        pixels = F.conv2d(F.pad(pixels, sides, mode="replicate"), along, groups=pixels.shape[1])
    return pixels


def deletable(tower: Tower, inputs: Mapping[str, Tensor], free: Tensor) -> list[Words]:
    """Each of P captions, of which the tokens free (P, T) bool may be deleted; `inputs` are those of a text tower."""
    captions = []
    for row, places in enumerate(free):
        one = {name: value[row : row + 1] for name, value in inputs.items()}
        units = units_of(tower, tower.lower(one, 0), 0)
        assert isinstance(units, Words)
        captions.append(replace(units, places=places.nonzero()[:, 0]))
    return captions


def with_tokens(captions: Sequence[Words], keep: Tensor) -> dict[str, Tensor]:
    """The text tower's inputs for P captions closed up over the deletable tokens that keep (P, T) bool does not name.

    A pair's order in `captions` is its row in `keep`; tokens that cannot be deleted stay whatever `keep` says.
    """
    parts = [words.hide(row[None, words.places]) for words, row in zip(captions, keep, strict=True)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
