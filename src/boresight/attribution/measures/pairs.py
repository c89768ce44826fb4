"""Pairs as the towers of an encoder take them, and the maps that methods make of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, cast

import torch
from PIL import Image
from torch import Tensor

from boresight.attribution.explain import make_method, seen_box
from boresight.attribution.measures.grounding import GroundedPairs
from boresight.attribution.measures.withheld import embedded
from boresight.attribution.methods.base import Maps, Method, Target, attribute_pairs, joined
from boresight.attribution.methods.controls import RandomMap
from boresight.encoders import Encoder
from boresight.encoders.tokens import TokenizedTexts
from boresight.encoders.towers.tower import Towers
from boresight.errors import InputError
from boresight.seeds import generator

Rows = Mapping[str, Mapping[str, Any] | tuple[str, Mapping[str, Any]]]
"""Name of a row -> options of the method of that name, or (name of a method, its options)."""


@dataclass(frozen=True, eq=False)
class CaptionedImages:
    """P pictures of any size with a caption each, of which nothing more is known."""

    images: list[Image.Image]
    captions: list[str]
    name: str


class OpenEncoder(Encoder, Protocol):
    """An encoder that opens layer by layer, as `load_encoder` gives them."""

    def collate(self, images: Sequence[Image.Image]) -> dict[str, Tensor]: ...

    def tokenized(self, texts: Sequence[str]) -> TokenizedTexts: ...

    def towers(self) -> Towers: ...


@dataclass(frozen=True, eq=False)
class PairInputs:
    """What the towers are given.

    Attributes:
        pixels: (P, C, H, W) float32, normalised.
        texts: the P captions of these, and behind them any others.
        batch_size: inputs that go through a tower at once.
    """

    towers: Towers
    pixels: Tensor
    texts: TokenizedTexts
    batch_size: int

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def own_pairs(self) -> Tensor:
        """(P, 2)."""
        return torch.arange(len(self))[:, None].expand(-1, 2)

    @property
    def own_texts(self) -> dict[str, Tensor]:
        return {name: value[: len(self)] for name, value in self.texts.inputs.items()}

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        grids = self.towers.image.lower({"pixel_values": self.pixels[:1]}, 0).grids
        assert grids is not None
        return grids[0]

    @property
    def patch(self) -> tuple[int, int]:
        """Pixels down and across."""
        return self.pixels.shape[2] // self.grid[0], self.pixels.shape[3] // self.grid[1]

    @cached_property
    def free(self) -> Tensor:
        """(captions, T) bool, the tokens that stand for something."""
        out = torch.zeros_like(self.texts.real)
        for row, tokens in enumerate(self.texts.tokens):
            out[row, self.texts.real[row]] = torch.tensor([not token.special for token in tokens])
        return out

    @cached_property
    def image_embeddings(self) -> Tensor:
        return self.embed_images(self.pixels)

    @cached_property
    def text_embeddings(self) -> Tensor:
        return embedded(self.towers.text, self.own_texts, self.batch_size)

    def embed_images(self, pixels: Tensor) -> Tensor:
        return embedded(self.towers.image, {"pixel_values": pixels}, self.batch_size)


def read_pairs(encoder: Encoder, images: Sequence[Image.Image], captions: Sequence[str], batch_size: int) -> PairInputs:
    """The pictures and captions as the encoder's own preprocessing has them, on the CPU.

    Raises InputError for an encoder that does not open layer by layer, or whose pictures have grids of their own.
    """
    if not hasattr(encoder, "towers"):
        raise InputError(f"{encoder.name} does not open layer by layer; pass an encoder that load_encoder gave.")
    opened = cast(OpenEncoder, encoder)
    seen = opened.collate(images)
    if set(seen) != {"pixel_values"}:
        raise InputError(
            f"{encoder.name} cuts every picture into a grid of its own, and these measures need one for all; "
            "use a model of fixed resolution."
        )
    texts = opened.tokenized(captions)
    texts = replace(texts, inputs={name: value.cpu() for name, value in texts.inputs.items()}, real=texts.real.cpu())
    return PairInputs(opened.towers(), seen["pixel_values"].cpu(), texts, batch_size)


def seen_masks(encoder: Encoder, pairs: GroundedPairs) -> tuple[Tensor, Tensor]:
    """The targets and the distractors within the part of the pictures that the model sees."""
    width, height = pairs.images[0].size
    left, top, right, bottom = seen_box(encoder, (width, height)).tolist()
    rows = slice(round(top * height), round(bottom * height))
    columns = slice(round(left * width), round(right * width))
    return pairs.targets[:, rows, columns], pairs.distractors[:, rows, columns]


def engines_of(methods: Rows, towers: Towers, batch_size: int) -> dict[str, Method]:
    """The method of each row, over these towers. Raises InputError for no rows, an unknown method or option."""
    if not methods:
        raise InputError("There are no methods to evaluate; name at least one.")
    told = {row: of if isinstance(of, tuple) else (row, of) for row, of in methods.items()}
    return {row: make_method(name, towers, **{"batch_size": batch_size, **of}) for row, (name, of) in told.items()}


def maps_of(method: Method, inputs: PairInputs, pairs: Tensor, target: Target, seed: int) -> tuple[Tensor, Tensor]:
    """Raw maps of one side of `pairs` (Q, 2), and the seconds (Q,) float64 that each took, its share of its batch's.

    A random map is drawn anew for every picture: one that is the same for all would be no chance level but one guess.
    """
    images, texts = {"pixel_values": inputs.pixels}, inputs.texts.inputs
    groups = [(pairs, seed)]
    if isinstance(method, RandomMap):
        groups = [(pair[None], _seed_of(int(pair[0]), seed)) for pair in pairs]
    parts: list[Maps] = []
    seconds: list[Tensor] = []
    start = time.perf_counter()
    for some, drawn in groups:
        for part in attribute_pairs(method, method.model, images, texts, some, target, drawn):
            taken = (time.perf_counter() - start) / len(part.score)
            parts.append(part)
            seconds.append(torch.full_like(part.score, taken, dtype=torch.float64))
            start = time.perf_counter()
    whole = joined(parts, inputs.texts.real.shape[1])
    found = whole.image if target == "image" else whole.text
    assert found is not None
    return found, torch.cat(seconds)


def _seed_of(picture: int, seed: int) -> int:
    return int(torch.randint(2**31, (), generator=generator(seed, f"picture {picture}")))
