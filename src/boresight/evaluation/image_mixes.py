"""Pictures with something of another in them, after RoCOCO (arXiv 2304.10727), for any collection.

'mix' lays the other picture over the whole at a share of its light (mixup, arXiv 1710.09412), 'patch' pastes a box of
it in (CutMix, arXiv 1905.04899). What was written of a picture stays truer of it than of its altered version.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from boresight.brief import Brief
from boresight.data.collection import Collection
from boresight.embeddings.batches import embed_pictures
from boresight.encoders.protocol import Encoder
from boresight.errors import InputError, require_at_least
from boresight.seeds import generator

Kind = Literal["mix", "patch"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PUBLISHED_SEEDS = (1, 10, 100)
PUBLISHED_SIZE = 384


@dataclass(frozen=True, eq=False, repr=False)
class MixedPictures(Brief):
    """N altered pictures, made when asked for and every time anew.

    Attributes:
        collection: of the originals.
        kind, share, size, jpeg: see `mix_pictures`.
        partners: (N,) int64, the image that is mixed into each, never itself.
        centres: (N, 2) float64 in [0, 1), where the box of 'patch' lies, across and down.
    """

    collection: Collection
    kind: Kind
    share: float
    size: int | None
    partners: np.ndarray
    centres: np.ndarray
    jpeg: bool = False

    def __len__(self) -> int:
        return len(self.partners)

    def __getitem__(self, row: int) -> Image.Image:
        """RGB. Raises InputError naming the picture, of the two it takes, that cannot be read."""
        mixed = self._mixed(row)
        if not self.jpeg:
            return mixed
        stored = io.BytesIO()
        mixed.save(stored, "JPEG")  # at Pillow's usual quality, 75, as published
        return Image.open(stored).convert("RGB")

    def _mixed(self, row: int) -> Image.Image:
        picture, other = self.collection.image(row), self.collection.image(int(self.partners[row]))
        size = picture.size if self.size is None else (self.size, self.size)
        pixels, foreign = (
            np.asarray(one if one.size == size else one.resize(size, Image.Resampling.BICUBIC))
            for one in (picture, other)
        )
        if self.kind == "mix":
            mixed = self.share * pixels.astype(np.float32) + (1 - self.share) * foreign.astype(np.float32)
            return Image.fromarray((mixed + 0.5).clip(0, 255).astype(np.uint8))
        (left, right), (top, bottom) = (
            _span(length, float(at), self.share) for length, at in zip(size, self.centres[row], strict=True)
        )
        patched = pixels.copy()
        patched[top:bottom, left:right] = foreign[top:bottom, left:right]
        return Image.fromarray(patched)

    def __iter__(self) -> Iterator[Image.Image]:
        return (self[row] for row in range(len(self)))


def _span(length: int, at: float, share: float) -> tuple[int, int]:
    """From where to where a box goes along a side; a part beyond the edge is lost, as in CutMix."""
    half, centre = int(length * (1 - share) ** 0.5) // 2, int(at * length)
    return max(centre - half, 0), min(centre + max(half, 1), length)


def mix_pictures(
    collection: Collection,
    kind: Kind = "mix",
    share: float = 0.9,
    seed: int = 0,
    *,
    size: int | None = None,
    jpeg: bool = False,
) -> MixedPictures:
    """Every picture of a collection with something of another in it.

    Row i of a given seed depends on the number of images and on the seed alone. In RoCOCO partners are exchanged
    within random batches of 64, where about one picture a batch meets itself and stays as it is, and a batch has one
    box; here a random cycle goes through all pictures, so none meets itself, and each has a box of its own.

    Args:
        kind: 'mix' is share * x + (1 - share) * other; 'patch' has other inside a box of at most (1 - share) of the
            area.
        share: of the picture itself, between 0 and 1, neither included.
        size: pixels of a side, to which both are squeezed (published: 384); None keeps the size of the picture, to
            which the other is brought. A size that the originals have not is a cue of its own.
        jpeg: whether they lose what JPEG loses, at Pillow's usual quality, as the published ones do; so is that.

    Raises InputError for an unknown kind, a share or size that makes no sense, fewer than 2 images.
    """
    if kind not in KINDS:
        raise InputError(f"There is no mixing '{kind}'; choose from {', '.join(KINDS)}.")
    if not 0 < share < 1:
        raise InputError(f"share is {share}; choose between 0 (all of the other picture) and 1 (nothing of it).")
    if size is not None and size < 1:
        raise InputError(f"size is {size}; it must be at least 1 pixel.")
    n = len(collection)
    if n < 2:
        raise InputError(f"{collection.name or 'This collection'} has {n} images; mixing needs at least 2.")
    order = torch.randperm(n, generator=generator(seed, "pictures mixed"))
    partners = torch.empty(n, dtype=torch.int64)
    partners[order] = order.roll(-1)
    centres = torch.rand(n, 2, dtype=torch.float64, generator=generator(seed, "boxes"))
    return MixedPictures(collection, kind, share, size, partners.numpy(), centres.numpy(), jpeg)


def embed_mixes(encoder: Encoder, pictures: MixedPictures, *, batch_size: int = 64) -> Tensor:
    """(N, d) float32 embeddings of altered pictures, of which two batches are in memory at a time.

    Raises InputError for a picture that cannot be read, or a batch size below 1.
    """
    require_at_least("batch_size", batch_size, 1)
    open_row, count = pictures.__getitem__, len(pictures)
    return embed_pictures(encoder, open_row, count, batch_size=batch_size, refuse=True, what="altered pictures")[0]
