"""How images and texts lie in their shared space, before editing and after: gap, alignment, uniformity, neighbours.

Notation: N images x_i and M texts t_j of unit length, o(j) the image of text j. Lengths of the embeddings play no part.
docs/guide/evaluation.md has the formulas side by side and says how to read them.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation.pairs import matched_pairs, normalised, plain_and, require_captions
from boresight.indexing import as_tensor
from boresight.recall import TOLERANCE

_FLOATS = 2**22


def l2m(embeddings: Embeddings) -> float:
    """|mean_i x_i - mean_j t_j|: the distance of the means, the modality gap of Liang et al. (arXiv 2203.02053)."""
    image, text = _unit(embeddings)
    return float((image.mean(0) - text.mean(0)).norm())


def relative_modality_gap(embeddings: Embeddings) -> float:
    """RMG = d_pair / (d_pair + (d_images + d_texts) / 2) of Schrodi et al. (arXiv 2404.07983), between 0 and 1.

    With d = (1 - cos) / 2, d_pair is the mean over texts and their images, d_images and d_texts the means over all
    pairs of different rows, texts of one image among them. 1/2: a pair is as far apart as two rows of a modality.
    Exact, in O((N + M) d). NaN for fewer than 2 images or texts.
    """
    cosines = matched_cosine(embeddings), *map(_mean_cosine, _unit(embeddings))
    pair, *within = ((1 - cosine) / 2 for cosine in cosines)
    whole = pair + sum(within) / 2
    return pair / whole if whole > 1e-12 else math.nan  # all rows are one, to rounding


def matched_cosine(embeddings: Embeddings) -> float:
    """Mean over texts of cos(x_o(j), t_j)."""
    images, texts = _unit(embeddings)
    return float((images[embeddings.owners] * texts).sum()) / len(texts)


def other_cosine(embeddings: Embeddings) -> float:
    """Mean cosine of a text and an image that is not its own; NaN with one image. Exact, in O((N + M) d)."""
    images, texts = _unit(embeddings)
    n, m = len(images), len(texts)
    every = float(images.sum(0) @ texts.sum(0))
    return (every - m * matched_cosine(embeddings)) / (m * (n - 1)) if n > 1 else math.nan


def alignment(embeddings: Embeddings, power: float = 2.0) -> float:
    """Mean over texts of |x_o(j) - t_j|^power, of Wang and Isola (arXiv 2005.10242); lower is closer.

    With power 1 this is L2I, the mean distance of pairs.
    """
    images, texts = _unit(embeddings)
    return float((images[embeddings.owners] - texts).norm(dim=1).pow(power).mean())


def uniformity(rows: Tensor | np.ndarray, temperature: float = 2.0) -> float:
    """Log mean_{i<j} exp(-temperature |x_i - x_j|^2), of Wang and Isola (arXiv 2005.10242); lower is more spread out.

    rows: (N, d), images or texts. 0 where all are one; about -2 * temperature at the best in many dimensions. NaN for a
    single row. O(N^2) time, blocks of bounded memory.
    """
    x = normalised(as_tensor(rows, "rows"), "rows")
    n, total = len(x), 0.0
    if n < 2:
        return math.nan
    for part in x.split(max(1, _FLOATS // n)):
        total += float((2 * temperature * (part @ x.T - 1)).exp().sum())
    return math.log(max(total - n, 1e-300) / (n * (n - 1)))


def information_imbalance(first: Tensor | np.ndarray, second: Tensor | np.ndarray) -> float:
    """How badly neighbours in the first space predict neighbours in the second: Delta(A -> B), 0 to about 1.

    Of Glielmo et al. (PNAS Nexus 2022, arXiv 2104.15079), with k = 1: for each of N items the rank, by distance in B
    and from 1, of its nearest neighbour in A; Delta is 2 / N times the mean. 2 / N: A decides the neighbours in B; 1: A
    says nothing of them. A holds more than B where Delta(A -> B) is below Delta(B -> A).

    Distances are of unit rows. Cosines within 1e-6 are ties: of several nearest neighbours the mean is taken, and the
    tied share their mean rank.

    first, second: (N, d) and (N, e), row i of both the same item. O(N^2) time, blocks of bounded memory.

    Raises InputError for another number of rows, fewer than 3, and rows without direction.
    """
    a, b = as_tensor(first, "first"), as_tensor(second, "second")
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b) or len(a) < 3:
        raise InputError(f"Two spaces of at least 3 items each are needed, not {tuple(a.shape)} and {tuple(b.shape)}.")
    a, b = normalised(a, "first"), normalised(b, "second")
    n, total = len(a), 0.0
    for start in range(0, n, max(1, _FLOATS // n)):
        block = torch.arange(start, min(start + max(1, _FLOATS // n), n))
        near, there = a[block] @ a.T, b[block] @ b.T
        for cosines in (near, there):
            cosines[block - start, block] = -torch.inf
        nearest = near >= near.amax(1, keepdim=True) - TOLERANCE
        total += float(((_ranks(there) * nearest).sum(1) / nearest.sum(1)).sum())
    return 2 * total / n**2


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
    codes = editor.sae.encode(embeddings.images).to("cpu")[captioned]
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


def alignment_report(
    embeddings: Embeddings,
    editor: CaptionEditor | None = None,
    *,
    at_most: int = 5000,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Every measure here on `matched_pairs`, plain and edited.

    Returns 'plain' and, with an editor, 'edited' and 'shuffled images' -> measure -> value; and 'captioned share' for
    an editor with latents, over all captions. A caption writes itself into the image it edits: what 'edited' gains is
    alignment only as far as 'shuffled images', the same captions on other images, does not gain it too.

    Raises as `matched_pairs` and `captioned_share` do.

    Relations:
        `boresight.evaluation.probes.label_report` measures the same pairs by labels of the images.
    """
    report = {
        way: _measures(matched_pairs(embeddings, scorer, at_most=at_most, seed=seed))
        for way, scorer in plain_and(editor).items()
    }
    if editor is not None:
        exchanged = matched_pairs(embeddings, editor, at_most=at_most, seed=seed, shuffled=True)
        report["shuffled images"] = _measures(exchanged)
        if editor.config.has_latents:
            report["captioned share"] = captioned_share(embeddings, editor)
    return report


def _measures(pairs: Embeddings) -> dict[str, float]:
    def imbalance(first: Tensor, second: Tensor) -> float:
        return information_imbalance(first, second) if len(pairs) > 2 else math.nan

    return {
        "L2M": l2m(pairs),
        "RMG": relative_modality_gap(pairs),
        "cosine, matched": matched_cosine(pairs),
        "cosine, others": other_cosine(pairs),
        "alignment": alignment(pairs),
        "uniformity, images": uniformity(pairs.images),
        "uniformity, texts": uniformity(pairs.texts),
        "imbalance, image to text": imbalance(pairs.images, pairs.texts),
        "imbalance, text to image": imbalance(pairs.texts, pairs.images),
    }


def _ranks(cosines: Tensor) -> Tensor:
    """(b, N) float64 ranks within each row from 1, the highest first; those within TOLERANCE share their mean."""
    rising, n = cosines.sort(1).values, cosines.shape[1]
    above = n - torch.searchsorted(rising, cosines + TOLERANCE, right=True)
    at_least = n - torch.searchsorted(rising, cosines - TOLERANCE)
    return (above + at_least + 1) / 2


def _unit(embeddings: Embeddings) -> tuple[Tensor, Tensor]:
    """Images (N, d) and texts (M, d) of unit length, float64. Raises InputError where there are no texts."""
    require_captions(embeddings)
    return normalised(embeddings.images, "images"), normalised(embeddings.texts, "texts")


def _mean_cosine(rows: Tensor) -> float:
    """Of two different unit rows: |sum|^2 holds every cosine, and n that are 1."""
    n = len(rows)
    return (float(rows.sum(0).square().sum()) - n) / (n * (n - 1)) if n > 1 else math.nan
