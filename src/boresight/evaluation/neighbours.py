"""Information imbalance: how much more an image holds than its captions say."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation.pairs import normalised, sampled_rows
from boresight.indexing import as_tensor
from boresight.recall import TOLERANCE
from boresight.sae.codes import concatenate

_FLOATS = 2**22
_IMAGES = 16384


def information_imbalance(
    first: Tensor | np.ndarray, second: Tensor | np.ndarray, *, at_most: int = 5000, seed: int = 0
) -> float:
    """How badly neighbours in the first space predict neighbours in the second: Delta(A -> B), 0 to about 1.

    Of Glielmo et al. (PNAS Nexus 2022, arXiv 2104.15079), with k = 1: for each of N items the rank, by distance in B
    and from 1, of its nearest neighbour in A; Delta is 2 / N times the mean. 2 / N: A decides the neighbours in B; 1: A
    says nothing of them. A holds more than B where Delta(A -> B) is below Delta(B -> A).

    Distances are of unit rows. Cosines within 1e-6 are ties: of several nearest neighbours the mean is taken, and the
    tied share their mean rank.

    Args:
        first, second: (N, d) and (N, e), row i of both the same item.
        at_most: more items than this are sampled; O(N^2) time, blocks of bounded memory.

    Raises InputError for another number of rows, fewer than 3, and rows without direction.
    """
    a, b = as_tensor(first, "first"), as_tensor(second, "second")
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b) or len(a) < 3:
        raise InputError(f"Two spaces of at least 3 items each are needed, not {tuple(a.shape)} and {tuple(b.shape)}.")
    rows = sampled_rows(len(a), at_most, seed)
    a, b = normalised(a[rows], "first"), normalised(b[rows], "second")
    n, total = len(a), 0.0
    for start in range(0, n, max(1, _FLOATS // n)):
        block = torch.arange(start, min(start + max(1, _FLOATS // n), n))
        near, there = a[block] @ a.T, b[block] @ b.T
        for cosines in (near, there):
            cosines[block - start, block] = -torch.inf
        nearest = near >= near.amax(1, keepdim=True) - TOLERANCE
        total += float(((_ranks(there) * nearest).sum(1) / nearest.sum(1)).sum())
    return 2 * total / n**2


def _ranks(cosines: Tensor) -> Tensor:
    """(b, N) float64 ranks within each row from 1, the highest first; those within TOLERANCE share their mean."""
    rising, n = cosines.sort(1).values, cosines.shape[1]
    above = n - torch.searchsorted(rising, cosines + TOLERANCE, right=True)
    at_least = n - torch.searchsorted(rising, cosines - TOLERANCE)
    return (above + at_least + 1) / 2


@torch.no_grad()
def captioned_share(embeddings: Embeddings, editor: CaptionEditor) -> dict[str, float]:
    """How much of an image's code its captions speak of; a measure of our own, all shares in [0, 1].

    With code z of an image and mask m of a caption, the share is sum_l (m_l z_l)^2 / sum_l z_l^2. 'one caption': mean
    over captions, each with its image. 'all captions': mean over images, m_l being the largest of the image's captions.
    'captions of another': the same with all captions of another image, the next with captions: what masks keep of
    anything. Only what the first two have above the third tells images apart.

    Images with captions and an active latent count. Memory: O(N k) and a block of masks.
    Raises InputError for an editor without latents or no caption, ArtefactError for one of another encoder.
    """
    if not editor.config.has_latents:
        raise InputError(f"An editor of the form '{editor.config.form}' has no latents; pass one of another form.")
    editor.require_same_encoder(embeddings)
    captioned, image_of = embeddings.owners.cpu().unique(return_inverse=True)
    if not len(captioned):
        raise InputError(f"{embeddings.name or 'This collection'} has no captions, so nothing of it is described.")
    blocks = [editor.sae.encode(embeddings.images[rows].float()).to("cpu") for rows in captioned.split(_IMAGES)]
    codes = concatenate(blocks, editor.sae.n_latents)
    square = codes.values.double().square()
    weights = square / square.sum(1, keepdim=True).clamp_min(1e-300)
    active = square.sum(1) > 0
    kept, by_other = torch.zeros(2, *codes.indices.shape)
    one = torch.zeros(len(image_of), dtype=torch.float64)
    for captions in torch.arange(len(image_of)).split(max(1, _FLOATS // editor.sae.n_latents)):
        masks = editor.mask(embeddings.texts[captions].float()).cpu()
        image = image_of[captions]
        for tally, shown in ((kept, image), (by_other, (image + 1) % len(captioned))):
            keep = masks.gather(1, codes.indices[shown])
            tally.scatter_reduce_(0, shown[:, None].expand_as(keep), keep, "amax")
            if tally is kept:
                one[captions] = (weights[image] * keep.square()).sum(1)

    def mean(shares: Tensor) -> float:
        return float(shares.mean()) if len(shares) else math.nan

    return {
        "one caption": mean(one[active[image_of]]),
        "all captions": mean((weights * kept.square()).sum(1)[active]),
        "captions of another": mean((weights * by_other.square()).sum(1)[active]) if len(captioned) > 1 else math.nan,
    }
