"""Image-caption pairs held in memory for training: pixels, tokens, batches and augmentation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPProcessor

from boresight.data import Collection
from boresight.errors import InputError
from boresight.progress import progress
from boresight.seeds import generator
from boresight.storage import fingerprint


@dataclass(frozen=True)
class Pairs:
    """N pictures with their captions, ready for a model.

    Attributes:
        pixels: (N, 3, S, S) uint8, resized and cropped as the model's image processor does it.
        tokens: (M, T) int32, captions image after image, each start ... end and then filled with the end token.
        texts: (M,) int64, a number for each distinct caption, the same in every `Pairs`.
        offsets: (N + 1,) int64; image i owns captions offsets[i]:offsets[i + 1], at least one.
        name: names the stream of random draws.
    """

    pixels: Tensor
    tokens: Tensor
    texts: Tensor
    offsets: Tensor
    name: str = ""

    def __len__(self) -> int:
        return len(self.pixels)

    @classmethod
    def from_collection(cls, collection: Collection, processor: CLIPProcessor) -> Pairs:
        """Every picture and caption of `collection`, read once.

        Raises InputError when an image has no caption, cannot be read, or when there is no image.
        """
        captions = collection.captions
        bare = [image for image, texts in zip(collection.ids, captions, strict=True) if not texts]
        if bare:
            raise InputError(f"Image '{bare[0]}' has no caption to train on; drop it or caption it.")
        if not captions:
            raise InputError(f"{collection.name or 'The collection'} has no images to train on; check its split.")
        rows = [
            processor.image_processor(collection.image(i), do_rescale=False, do_normalize=False, return_tensors="pt")
            for i in progress(range(len(collection)), what=f"read {collection.name}", unit="image")
        ]
        encoded = processor.tokenizer(collection.texts, padding="max_length", truncation=True, return_tensors="pt")
        counts = torch.tensor([0] + [len(texts) for texts in captions])
        return cls(
            pixels=torch.cat([row["pixel_values"] for row in rows]).to(torch.uint8),
            tokens=encoded["input_ids"].to(torch.int32),
            texts=torch.tensor([_number(text) for text in collection.texts]),
            offsets=counts.cumsum(0),
            name=collection.name,
        )

    @property
    def fingerprint(self) -> str:
        """Changes with any pixel or token."""
        return fingerprint({"pixels": self.pixels, "tokens": self.tokens})

    def rows(self, step: int, count: int, seed: int) -> Tensor:
        """(count,) int64, the images of batch `step`: slices of an endless chain of seeded shuffles.

        It depends on nothing but its arguments, so a resumed run draws what an uninterrupted one does.
        """
        positions = torch.arange(step * count, (step + 1) * count)
        epochs = positions // len(self)
        drawn = [
            torch.randperm(len(self), generator=generator(seed, f"{self.name} shuffle {epoch}"))[
                positions[epochs == epoch] % len(self)
            ]
            for epoch in epochs.unique().tolist()
        ]
        return torch.cat(drawn)

    def batch(self, step: int, count: int, seed: int) -> Batch:
        """One random caption for each image of `rows(step, count, seed)`."""
        rows = self.rows(step, count, seed)
        starts, stops = self.offsets[rows], self.offsets[rows + 1]
        draw = torch.rand(count, generator=generator(seed, f"{self.name} caption {step}"), dtype=torch.float64)
        drawn = starts + (draw * (stops - starts)).long()
        every = starts[:, None] + torch.arange(int((stops - starts).max()))
        owned = torch.where(every < stops[:, None], self.texts[every.clamp(max=len(self.texts) - 1)], -1)
        return Batch(self.pixels[rows], self.tokens[drawn].long(), self.texts[drawn], owned)


@dataclass(frozen=True)
class Batch:
    """B pairs.

    Attributes:
        pixels: (B, 3, S, S) uint8.
        tokens: (B, T) int64, of the drawn captions.
        drawn: (B,) int64, number of the drawn caption.
        owned: (B, C) int64, numbers of all captions of the image, filled with -1.
    """

    pixels: Tensor
    tokens: Tensor
    drawn: Tensor
    owned: Tensor

    def shared(self) -> Tensor:
        """(B, B) bool, [i, j] True where caption j is, word for word, one of image i's captions."""
        return (self.owned[:, None, :] == self.drawn[None, :, None]).any(-1)


def mix(sources: Sequence[Pairs], step: int, batch_size: int, seed: int) -> Batch:
    """A batch with an equal share of each source (the first takes the rest), tokens cut to the longest caption."""
    share = batch_size // len(sources)
    counts = [batch_size - share * (len(sources) - 1)] + [share] * (len(sources) - 1)
    parts = [source.batch(step, count, seed) for source, count in zip(sources, counts, strict=True)]
    tokens = torch.cat([part.tokens for part in parts])
    filler = tokens[:, -1:]  # the end token: a caption as long as the context ends with it too
    longest = int((tokens != filler).sum(1).max()) + 1
    widest = max(part.owned.shape[1] for part in parts)
    return Batch(
        torch.cat([part.pixels for part in parts]),
        tokens[:, :longest],
        torch.cat([part.drawn for part in parts]),
        torch.cat([F.pad(part.owned, (0, widest - part.owned.shape[1]), value=-1) for part in parts]),
    )


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def augment(pixels: Tensor, random: torch.Generator) -> Tensor:
    """Shift by up to 4 %, scale by 0.92 to 1.08, brighten and tint mildly: size, place and colour are words.

    Pixels (B, 3, S, S) uint8 in, float32 in [0, 1] out; no mirror image, no rotation, border pixels are repeated.
    """
    count = len(pixels)
    scale = 0.92 + 0.16 * torch.rand(count, 1, 1, generator=random)
    shift = 0.08 * (2 * torch.rand(count, 2, 1, generator=random) - 1)
    theta = torch.cat([torch.eye(2).expand(count, 2, 2) * scale, shift], dim=2)
    grid = F.affine_grid(theta, [count, 3, *pixels.shape[2:]], align_corners=False)
    moved = F.grid_sample(pixels / 255, grid, padding_mode="border", align_corners=False)
    gain = 1 + 0.1 * (2 * torch.rand(count, 1, 1, 1, generator=random) - 1)
    tint = 1 + 0.04 * (2 * torch.rand(count, 3, 1, 1, generator=random) - 1)
    return (moved * gain * tint).clamp_(0, 1)
