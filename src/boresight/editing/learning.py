"""What every training inside an editor does alike: whose captions are whose, and which weights decay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from boresight.embeddings.embeddings import Embeddings


def captions_of_images(train_set: Embeddings) -> tuple[Tensor, Tensor, Tensor]:
    """All captions (M,) image by image; of each image (N,) where its own begin there, and how many they are."""
    counts = torch.bincount(train_set.owners, minlength=len(train_set))
    return torch.argsort(train_set.owners, stable=True), counts.cumsum(0) - counts, counts


def decay_groups(parameters: Sequence[nn.Parameter], rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for AdamW at one rate: matrices decay, vectors do not; no group is empty."""
    parts = (
        (weight_decay, [p for p in parameters if p.ndim > 1]),
        (0.0, [p for p in parameters if p.ndim <= 1]),
    )
    return [{"params": chosen, "lr": rate, "weight_decay": decay} for decay, chosen in parts if chosen]
