"""How images and texts lie in their shared space, before editing and after: gap, alignment, uniformity.

Notation: N images x_i and M texts t_j of unit length, o(j) the image of text j. Lengths of the embeddings play no part.
docs/guide/evaluation.md has the formulas side by side and says how to read them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings
from boresight.evaluation.neighbours import captioned_share, information_imbalance
from boresight.evaluation.pairs import (
    matched_pairs,
    normalised,
    plain_and,
    require_captions,
    sampled_rows,
    unit_blocks,
)
from boresight.indexing import as_tensor

_FLOATS = 2**22


def l2m(embeddings: Embeddings) -> float:
    """|mean_i x_i - mean_j t_j|: the distance of the means, the modality gap of Liang et al. (arXiv 2203.02053)."""
    sums = (_sum(rows, label) / len(rows) for rows, label in _sides(embeddings))
    image, text = sums
    return float((image - text).norm())


def relative_modality_gap(embeddings: Embeddings) -> float:
    """RMG = d_pair / (d_pair + (d_images + d_texts) / 2) of Schrodi et al. (arXiv 2404.07983), between 0 and 1.

    With d = (1 - cos) / 2, d_pair is the mean over texts and their images, d_images and d_texts the means over all
    pairs of different rows, texts of one image among them. 1/2: a pair is as far apart as two rows of a modality.
    Exact, in O((N + M) d). NaN for fewer than 2 images or texts.
    """
    within = [_distance(_mean_cosine(rows, label)) for rows, label in _sides(embeddings)]
    pair = _distance(matched_cosine(embeddings))
    whole = pair + sum(within) / 2
    return pair / whole if whole > 1e-12 else math.nan  # all rows are one, to rounding


def matched_cosine(embeddings: Embeddings) -> float:
    """Mean over texts of cos(x_o(j), t_j)."""
    return sum(float((x * t).sum()) for x, t in _pairs(embeddings)) / len(embeddings.owners)


def other_cosine(embeddings: Embeddings) -> float:
    """Mean cosine of a text and an image that is not its own; NaN with one image. Exact, in O((N + M) d)."""
    n, m = len(embeddings), len(embeddings.owners)
    image, text = (_sum(rows, label) for rows, label in _sides(embeddings))
    return (float(image @ text) - m * matched_cosine(embeddings)) / (m * (n - 1)) if n > 1 else math.nan


def alignment(embeddings: Embeddings, power: float = 2.0) -> float:
    """Mean over texts of |x_o(j) - t_j|^power, of Wang and Isola (arXiv 2005.10242); lower is closer.

    With power 1 this is L2I, the mean distance of pairs.
    """
    total = sum(float((x - t).norm(dim=1).pow(power).sum()) for x, t in _pairs(embeddings))
    return total / len(embeddings.owners)


def uniformity(rows: Tensor | np.ndarray, temperature: float = 2.0, *, at_most: int = 5000, seed: int = 0) -> float:
    """Log mean_{i<j} exp(-temperature |x_i - x_j|^2), of Wang and Isola (arXiv 2005.10242); lower is more spread out.

    rows: (N, d), images or texts. 0 where all are one; about -2 * temperature at the best in many dimensions. Rows
    beyond `at_most` are sampled; O(N^2) time, blocks of bounded memory. NaN for a single row.
    """
    values = as_tensor(rows, "rows")
    x = normalised(values[sampled_rows(len(values), at_most, seed)], "rows")
    n, total = len(x), 0.0
    if n < 2:
        return math.nan
    for part in x.split(max(1, _FLOATS // n)):
        total += float((2 * temperature * (part @ x.T - 1)).exp().sum())
    return math.log(max(total - n, 1e-300) / (n * (n - 1)))


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
    every = len(pairs) + 2  # the pairs are a sample already

    def imbalance(first: Tensor, second: Tensor) -> float:
        return information_imbalance(first, second, at_most=every) if len(pairs) > 2 else math.nan

    return {
        "L2M": l2m(pairs),
        "RMG": relative_modality_gap(pairs),
        "cosine, matched": matched_cosine(pairs),
        "cosine, others": other_cosine(pairs),
        "alignment": alignment(pairs),
        "uniformity, images": uniformity(pairs.images, at_most=every),
        "uniformity, texts": uniformity(pairs.texts, at_most=every),
        "imbalance, image to text": imbalance(pairs.images, pairs.texts),
        "imbalance, text to image": imbalance(pairs.texts, pairs.images),
    }


def _sides(embeddings: Embeddings) -> tuple[tuple[Tensor, str], tuple[Tensor, str]]:
    require_captions(embeddings)
    return (embeddings.images, "images"), (embeddings.texts, "texts")


def _sum(rows: Tensor, label: str) -> Tensor:
    """(d,) float64, the sum of the unit rows."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    for _, part in unit_blocks(rows, label):
        total += part.sum(0)
    return total


def _mean_cosine(rows: Tensor, label: str) -> float:
    """Of two different rows: |sum of unit rows|^2 holds every cosine, and n that are 1."""
    n = len(rows)
    return (float(_sum(rows, label).square().sum()) - n) / (n * (n - 1)) if n > 1 else math.nan


def _pairs(embeddings: Embeddings) -> Iterator[tuple[Tensor, Tensor]]:
    """Unit images and texts, row by row the pairs, a block at a time."""
    require_captions(embeddings)
    for start, texts in unit_blocks(embeddings.texts, "texts"):
        owners = embeddings.owners[start : start + len(texts)]
        yield normalised(embeddings.images[owners], "images"), texts


def _distance(cosine: float) -> float:
    return (1 - cosine) / 2
