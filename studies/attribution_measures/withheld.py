"""Many images and captions at once, each with some of its own patches or tokens gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from boresight.attribution.methods.masking import Words, by_pixel, units_of
from boresight.encoders.towers.tower import Tower


def with_patches(pixels: Tensor, keep: Tensor, filling: Tensor | float = 0.0) -> Tensor:
    """Pixels (P, C, H, W) where the patches keep (P, gh, gw) are True, elsewhere `filling`, of the same shape or one.

    0 is the mean colour, as pixels are normalised. What the grid leaves over of a picture belongs to its last patches.
    """
    return torch.where(by_pixel(keep, (pixels.shape[2], pixels.shape[3]))[:, None], pixels, filling)


def deletable(tower: Tower, inputs: Mapping[str, Tensor], free: Tensor) -> list[Words]:
    """Each of P captions, of which the tokens free (P, T) bool may be deleted; `inputs` are those of a text tower."""
    captions = []
    for row, tokens in enumerate(free):
        units = units_of(tower, tower.lower({name: value[row : row + 1] for name, value in inputs.items()}, 0), 0)
        assert isinstance(units, Words)
        captions.append(replace(units, columns=tokens.nonzero()[:, 0]))
    return captions


def with_tokens(captions: Sequence[Words], keep: Tensor) -> dict[str, Tensor]:
    """The text tower's inputs for P captions closed up over the deletable tokens that keep (P, T) bool does not name.

    A pair's order in `captions` is its row in `keep`; tokens that cannot be deleted stay whatever `keep` says.
    """
    parts = [words.hide(row[None, words.columns]) for words, row in zip(captions, keep, strict=True)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
