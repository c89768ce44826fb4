"""A mask that is taught what a caption tells: which latents of the matching image it makes more or less likely.

Contrast alone leaves a mask open, since dropping nothing already matches. What a caption tells is another question, and
its answer stands in the training pairs: given t, is latent l of its image active? By binary cross-entropy,

    P(z_l > 0 | t) = sigmoid(b_l + e_l(t)),  with b_l the log-odds of how often l is active at all
    m_l(t) = sigmoid(SHARPNESS max(e_l(t) - RAISED, -e_l(t) - LOWERED))

so a latent is kept where the caption raises its odds by a factor of e or more, and where it lowers them by e^1.5 or
more: what a caption rules out it also speaks of, and an image that shows it has to pay for it. Our choice; how TEVI
(arXiv 2606.07451) trains its mask is not known here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.editing.config import EditorFit
from boresight.editing.learning import captions_of_images, decay_groups
from boresight.editing.masks import OPEN, make_mask
from boresight.embeddings.embeddings import Embeddings
from boresight.progress import progress
from boresight.sae.model import SaeModel
from boresight.seeds import generator

STEPS = 300
START = (0.0, -1.0)  # log-odds of the strength and of the level where training begins
_BATCH = 256
_ENCODED_AT_ONCE = 16384


def taught_presence(sae: SaeModel, train_set: Embeddings, options: EditorFit) -> tuple[Any, Tensor]:
    """A mask, taught by one caption of an image a step and frozen, and (n_latents,) each latent's usual activation.

    Latents never active in training stay open: nothing is known of them. The usual activation is sum z^2 / sum z over
    training: a mean in which the many faint activations of a code hardly count. With no `steps` nothing is taught, and
    the activations are 0. Memory: O(batch x n_latents + images x k).
    """
    device = sae.directions.device
    mask, usual = (
        make_mask(options.mask, sae.directions.detach(), taught=True),
        torch.zeros(sae.n_latents, device=device),
    )
    if options.steps == 0:
        return mask, usual
    indices, values = _codes(sae, train_set.images)
    active = values > 0
    flat, counts = indices[active], torch.zeros(sae.n_latents, device=device)
    counts.index_add_(0, flat, torch.ones_like(values[active]))
    with torch.no_grad():
        weighed = torch.zeros_like(counts).index_add_(0, flat, values[active])
        usual.index_add_(0, flat, values[active].square()).div_(weighed.clamp_min(1e-12))
    if not hasattr(mask, "start"):
        return mask, usual
    live, base = (counts > 0) & (counts < len(indices)), torch.logit((counts / len(indices)).clamp(1e-6, 1 - 1e-6))
    mask.start(options.seed)
    with torch.no_grad():
        mask.latent_bias.copy_(base)
    groups = decay_groups(list(mask.parameters()), options.mask_learning_rate, options.weight_decay)
    optimizer = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    draw = generator(options.seed, "presence")
    by_image, first, of_image = captions_of_images(train_set)
    captioned = of_image.nonzero()[:, 0]
    for _ in progress(range(STEPS), what="mask", unit="step"):
        rows = captioned[torch.randint(len(captioned), (_BATCH,), generator=draw)]
        captions = by_image[first[rows] + (torch.rand(_BATCH, generator=draw) * of_image[rows]).long()]
        target = torch.zeros(_BATCH, sae.n_latents, device=device)
        target.scatter_(1, indices[rows], active[rows].float())
        log_odds = mask.logits(F.normalize(train_set.texts[captions].to(device).float(), dim=1))
        loss = F.binary_cross_entropy_with_logits(log_odds[:, live], target[:, live], reduction="sum")
        optimizer.zero_grad(set_to_none=True)
        (loss / (_BATCH * sae.width)).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        mask.latent_bias.sub_(base).masked_fill_(~live, OPEN)
    return mask.requires_grad_(False), usual


@torch.no_grad()
def _codes(sae: SaeModel, images: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of all images: indices (N, k) int64 and values (N, k)."""
    parts = [sae.encode(rows.to(sae.directions.device).float()) for rows in images.split(_ENCODED_AT_ONCE)]
    return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])
