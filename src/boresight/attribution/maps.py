"""The answer of `explain`: raw maps and words; numbers only, which `plots` draws."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from boresight.attribution.grids import Normalize, normalized, own_grid, resized
from boresight.brief import Brief, brief
from boresight.data.images import embedded
from boresight.errors import BoresightError, InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Word:
    """A whole word of a caption: the sum over its tokens, and their numbers among the caption's tokens."""

    text: str
    weight: float
    tokens: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class Attribution(Brief):
    """What each of P matches rests on.

    Attributes:
        image: (P, gh, gw) float32, raw, on the model's own grid of patches; NaN outside the grid of a picture that has
            fewer patches than the largest. None where only texts were asked for.
        text: (P, T) float32, raw, special tokens included; NaN on padding. None where only images were asked for.
        score: (P,) float32, the cosine that is explained.
        tokens: the tokens of each pair's caption, as many as its row of `text` has numbers.
        special: (P, T) bool, start, end and other tokens that stand for no word; False on padding.
        words: whole words of each pair's caption in order; empty without `text`.
        captions: of each pair.
        pairs: (P, 2) int64, the rows of the images and of the texts that were passed.
        boxes: (P, 4) float32, the part of each picture that the model sees: left, top, right, bottom in [0, 1]; below 0
            or above 1 where its preprocessing pads the picture.
        interaction: (P, T, gh, gw) float32, token by patch; None where it was not asked for.
        concepts: for each pair, what an editor keeps and drops; None without one.
        pictures: the pictures of the pairs, or the files they are in.
        method: name and options behind the maps.
    """

    image: Tensor | None
    text: Tensor | None
    score: Tensor
    tokens: list[list[str]]
    special: Tensor
    words: list[list[Word]]
    captions: list[str]
    pairs: Tensor
    boxes: Tensor
    interaction: Tensor | None = None
    concepts: list[Any] | None = None
    pictures: Sequence[Any] = field(default=(), repr=False)
    method: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.score)

    def _parts(self) -> dict[str, str]:
        maps = {name: brief(getattr(self, name)) for name in ("image", "text") if getattr(self, name) is not None}
        return {"method": brief(self.method.get("method", "")), "captions": brief(self.captions), **maps}

    def _repr_html_(self) -> str:
        """The first pair drawn, for a notebook, where its picture can still be read."""
        drawn = io.BytesIO()
        try:
            self.plot().savefig(drawn, format="png", dpi=80)
        except (BoresightError, OSError, IndexError):
            return super()._repr_html_()
        return f'{super()._repr_html_()}<img alt="" src="{embedded(drawn.getvalue(), "png")}">'

    def heatmap(self, size: tuple[int, int] = (224, 224), normalize: Normalize | None = "minmax") -> np.ndarray:
        """(P, H, W) float32: the image maps, bilinearly resized to size = (H, W).

        They cover what the model saw of each picture (`boxes`). 'minmax' puts each map into [0, 1], 'maxabs' divides
        it by its largest magnitude and keeps the sign; a map that says nothing becomes zeros. None leaves raw values.
        Raises InputError where there are no image maps.
        """
        if self.image is None:
            raise InputError("There are no image maps; explain with target='image' or 'both'.")
        maps = [resized(own_grid(raw), size) for raw in self.image]
        return torch.stack([normalized(one, normalize) for one in maps]).numpy()

    def plot(self, index: int = 0, *, word: int | None = None) -> Figure:
        """One pair drawn: the picture under its heat map, the words shaded by weight, and the score.

        Of a signed map what speaks for the match is drawn, and what speaks against it is left dark.

        word: an index of `words[index]`; the heat map is then that word's part of `interaction`.
        Raises InputError for a pair or word that is not there.
        """
        from boresight.attribution.plots import draw_pair  # matplotlib only where something is drawn

        return draw_pair(self, index, word)
