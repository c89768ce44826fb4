"""What is chosen on validation, and by what."""

from __future__ import annotations

import torch
from torch import Tensor

from boresight.embeddings.embeddings import Embeddings
from boresight.errors import InputError
from boresight.recall import Counts, count_image_to_text, count_text_to_image
from boresight.seeds import generator

CHOOSING_IMAGES = 1000
CHOOSING_CAPTIONS = 10000


def recall_sum(scores: Tensor, owners: Tensor) -> float:
    """Sum of T2I and I2T R@1, R@5, R@10 in percent, 0 to 600; ties as in `evaluate_retrieval`.

    Args:
        scores: (N, M). Where one is not finite the sum is 0: an editor that diverged is never the best.
        owners: (M,), row of each caption's image; an image without captions is no I2T query.
    """
    if not bool(torch.isfinite(scores).all()):
        return 0.0
    directions = count_text_to_image(scores, owners), count_image_to_text(scores, owners)
    return sum(100 * recall for counts in directions for recall in recalls(counts))


def recalls(counts: Counts) -> list[float]:
    """R@1, R@5, R@10 of one direction, 0 to 1."""
    return [float(counts.recall(k)[counts.asked].mean()) for k in (1, 5, 10)]


def choosing_sample(validation: Embeddings, seed: int) -> Embeddings:
    """What of validation is chosen on: at most CHOOSING_IMAGES images and CHOOSING_CAPTIONS captions, drawn by chance.

    Raises InputError where no caption is among them.
    """
    rows = torch.randperm(len(validation), generator=generator(seed, "editor validation"))[:CHOOSING_IMAGES]
    counts = torch.bincount(validation.owners, minlength=len(validation))[rows]
    kept = max(2, int((counts.cumsum(0) <= CHOOSING_CAPTIONS).sum()))
    sample = validation.select(rows[:kept].sort().values)
    if len(sample.owners) == 0:
        raise InputError("The validation set has too few captions to choose on; give it more.")
    return sample
