"""The contrastive loss: symmetric InfoNCE between the images and the captions of a batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_LOG_SCALE = math.log(100.0)


def contrastive_loss(images: Tensor, texts: Tensor, log_scale: Tensor, shared: Tensor | None = None) -> Tensor:
    """Mean of the image-to-text and the text-to-image cross entropies over the batch (InfoNCE; CLIP's loss).

    With logits L = exp(log_scale) * images @ texts', row i of L is a softmax over captions and column j one over
    images; pair (i, i) is the target of both. Where caption j was also written for image i it is no evidence against
    that image: the pair leaves both denominators and only the diagonal stays (our choice; it is a target of neither).

    Args:
        images: (B, d) float, unit length.
        texts: (B, d) float, unit length; row i describes image i.
        log_scale: () float, logarithm of the inverse temperature.
        shared: (B, B) bool, [i, j] True where caption j belongs to image i too; its diagonal is not read.

    Returns:
        () float, in nats.
    """
    logits = log_scale.exp() * images @ texts.T
    if shared is not None:
        itself = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(shared & ~itself, -torch.inf)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def clamp_scale(log_scale: Tensor) -> None:
    """Hold exp(log_scale) at 100 or below, in place.

    The parameter is clamped after the optimiser's step, not inside the loss: there a clamp would cut the gradient
    that lets the temperature come back.
    """
    with torch.no_grad():
        log_scale.clamp_(max=MAX_LOG_SCALE)
