"""What a model makes of pairs of which something is taken away: the scores that faithfulness is measured by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from attribution_measures.withheld import deletable, with_patches, with_tokens
from boresight.attribution.methods.masking import Words
from boresight.encoders.tokens import TokenizedTexts
from boresight.encoders.towers.tower import Tower, Towers
from boresight.errors import InputError


@dataclass(frozen=True, eq=False)
class ScoredPairs:
    """P pairs of one grid as the towers take them; a score is the cosine of a pair.

    Attributes:
        pixels: (P, C, H, W) float32, normalised.
        texts: the P captions of these.
        batch_size: inputs that go through a tower at once.
    """

    towers: Towers
    pixels: Tensor
    texts: TokenizedTexts
    batch_size: int

    def of_images(self, pixels: Tensor) -> Tensor:
        """(P,) scores of pictures (P, C, H, W) in place of the pairs' own."""
        return (self._embedded(self.towers.image, {"pixel_values": pixels}) * self._caption_embeddings).sum(1)

    def of_patches(self, keep: Tensor, filling: Tensor | float = 0.0) -> Tensor:
        """(P,) scores with only the patches keep (P, gh, gw) bool, and `filling` in place of the others."""
        return self.of_images(with_patches(self.pixels, keep, filling))

    def of_tokens(self, keep: Tensor) -> Tensor:
        """(P,) scores with only the tokens keep (P, T) bool among those of `free`; captions close up over the rest."""
        return (self._embedded(self.towers.text, with_tokens(self._words, keep)) * self._image_embeddings).sum(1)

    @cached_property
    def free(self) -> Tensor:
        """(P, T) bool, the tokens that stand for something."""
        return self.by_column([torch.tensor([not token.special for token in row]) for row in self.texts.tokens], False)

    def by_column(self, rows: Sequence[Tensor], elsewhere: float) -> Tensor:
        """(P, T): what each of a caption's real tokens has, in its column, and `elsewhere` on padding."""
        out = torch.full(self.texts.real.shape, elsewhere, dtype=rows[0].dtype)
        for row, (values, real) in enumerate(zip(rows, self.texts.real, strict=True)):
            out[row, real] = values[: int(real.sum())]
        return out

    @cached_property
    def _image_embeddings(self) -> Tensor:
        return self._embedded(self.towers.image, {"pixel_values": self.pixels})

    @cached_property
    def _caption_embeddings(self) -> Tensor:
        return self._embedded(self.towers.text, self.texts.inputs)

    @cached_property
    def _words(self) -> list[Words]:
        return deletable(self.towers.text, self.texts.inputs, self.free)

    def _embedded(self, tower: Tower, inputs: Mapping[str, Tensor]) -> Tensor:
        """(K, d) float32 of unit length on the CPU, of the K inputs that a tower takes."""
        rows = torch.arange(len(next(iter(inputs.values())))).split(self.batch_size)
        with torch.no_grad():
            parts = [
                tower.upper(tower.lower({name: value[some] for name, value in inputs.items()}, 0)) for some in rows
            ]
        return F.normalize(torch.cat(parts), dim=1).cpu()


def read_pairs(encoder: Any, images: Sequence[Image.Image], captions: Sequence[str], batch_size: int) -> ScoredPairs:
    """The pictures and captions as the encoder's own preprocessing has them, on the CPU.

    Raises InputError for an encoder that does not open layer by layer, or whose pictures have grids of their own.
    """
    if not hasattr(encoder, "towers"):
        raise InputError(f"{encoder.name} does not open layer by layer; pass an encoder that load_encoder gave.")
    inputs = encoder.collate(images)
    if set(inputs) != {"pixel_values"}:
        raise InputError(
            f"{encoder.name} cuts every picture into a grid of its own, and these measures need one for all; "
            "use a model of fixed resolution."
        )
    texts = encoder.tokenized(captions)
    texts = replace(texts, inputs={name: value.cpu() for name, value in texts.inputs.items()}, real=texts.real.cpu())
    return ScoredPairs(encoder.towers(), inputs["pixel_values"].cpu(), texts, batch_size)


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
