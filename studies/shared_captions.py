"""InfoNCE where a caption may be true of several images of the batch, as in small worlds with few words."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def infonce_of_shared(images: Tensor, texts: Tensor, log_scale: Tensor, shared: Tensor) -> Tensor:
    """`infonce_loss` of one process, without what is shared: a caption that was written for an image too is no evidence
    against it, so the pair leaves both denominators and only the diagonal stays.

    Args:
        images, texts: (B, d) float, of unit length; row i of `texts` describes image i.
        log_scale: () float.
        shared: (B, B) bool, [i, j] True where caption j belongs to image i too; its diagonal is not read.
    """
    scale = log_scale.exp()
    own = (scale * images * texts).sum(1)
    left_out = shared | torch.eye(len(images), dtype=torch.bool, device=images.device)
    over_texts = (scale * images @ texts.T).masked_fill(left_out, -torch.inf).logsumexp(1)
    over_images = (scale * texts @ images.T).masked_fill(left_out.T, -torch.inf).logsumexp(1)
    return (-F.logsigmoid(own - over_texts) - F.logsigmoid(own - over_images)).mean() / 2
