"""How images and texts lie in their shared space, before editing and after: gap, alignment, uniformity, object bias.

Notation: N images x_i and M texts t_j of unit length, o(j) the image of text j. Lengths of the embeddings play no part.
docs/alignment.md has the formulas side by side and says how to read them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation.neighbours import captioned_share, information_imbalance, sample, unit_rows
from boresight.indexing import as_tensor
from boresight.seeds import generator

Labels = Tensor | np.ndarray | Sequence[int]
_BLOCK = 16384
_FLOATS = 2**22


def l2m(embeddings: Embeddings) -> float:
    """|mean_i x_i - mean_j t_j|: the distance of the means, the modality gap of Liang et al. (arXiv 2203.02053)."""
    _require_texts(embeddings)
    sums = (_sum(rows, label) / len(rows) for rows, label in _sides(embeddings))
    image, text = sums
    return float((image - text).norm())


def relative_modality_gap(embeddings: Embeddings) -> float:
    """RMG = d_pair / (d_pair + (d_images + d_texts) / 2) of Schrodi et al. (arXiv 2404.07983), between 0 and 1.

    With d = (1 - cos) / 2, d_pair is the mean over texts and their images, d_images and d_texts the means over all
    pairs of different rows, texts of one image among them. 1/2: a pair is as far apart as two rows of a modality.
    Exact, in O((N + M) d). NaN for fewer than 2 images or texts.
    """
    _require_texts(embeddings)
    within = [_distance(_mean_cosine(rows, label)) for rows, label in _sides(embeddings)]
    pair = _distance(matched_cosine(embeddings))
    whole = pair + sum(within) / 2
    return pair / whole if whole > 1e-12 else math.nan  # all rows are one, to rounding


def matched_cosine(embeddings: Embeddings) -> float:
    """Mean over texts of cos(x_o(j), t_j)."""
    _require_texts(embeddings)
    return sum(float((x * t).sum()) for x, t in _pairs(embeddings)) / len(embeddings.owners)


def other_cosine(embeddings: Embeddings) -> float:
    """Mean cosine of a text and an image that is not its own; NaN with one image. Exact, in O((N + M) d)."""
    _require_texts(embeddings)
    n, m = len(embeddings), len(embeddings.owners)
    image, text = (_sum(rows, label) for rows, label in _sides(embeddings))
    return (float(image @ text) - m * matched_cosine(embeddings)) / (m * (n - 1)) if n > 1 else math.nan


def alignment(embeddings: Embeddings, power: float = 2.0) -> float:
    """Mean over texts of |x_o(j) - t_j|^power, of Wang and Isola (arXiv 2005.10242); lower is closer.

    With power 1 this is L2I, the mean distance of pairs.
    """
    _require_texts(embeddings)
    total = sum(float((x - t).norm(dim=1).pow(power).sum()) for x, t in _pairs(embeddings))
    return total / len(embeddings.owners)


def uniformity(rows: Tensor | np.ndarray, temperature: float = 2.0, *, at_most: int = 5000, seed: int = 0) -> float:
    """Log mean_{i<j} exp(-temperature |x_i - x_j|^2), of Wang and Isola (arXiv 2005.10242); lower is more spread out.

    rows: (N, d), images or texts. 0 where all are one; about -2 * temperature at the best in many dimensions. Rows
    beyond `at_most` are sampled; O(N^2) time, blocks of bounded memory. NaN for a single row.
    """
    values = as_tensor(rows, "rows")
    x = unit_rows(values[sample(len(values), at_most, seed)], "rows")
    n, total = len(x), 0.0
    if n < 2:
        return math.nan
    for part in x.split(max(1, _FLOATS // n)):
        total += float((2 * temperature * (part @ x.T - 1)).exp().sum())
    return math.log(max(total - n, 1e-300) / (n * (n - 1)))


def object_bias(rows: Tensor | np.ndarray, objects: Labels, attributes: Labels) -> float:
    """MOAD of Schrodi et al. (arXiv 2404.07983): how much more an embedding tells the object than the attributes.

    (c_same object - c_other object) - (c_same attribute - c_other attribute), c the mean cosine of two different rows.
    Above 0: rows gather by object, below 0: by attribute. The published code leaves out pairs of other labels that
    stand at the same place among those of their label; here all count. Exact, in O(N d).

    Args:
        rows: (N, d), images, or texts that each tell an object and its attributes.
        objects, attributes: (N,) integers, the class of each row; or (N, C) booleans where a row has several or none:
            two rows count as the same once for each label they share, and as others once for each two labels, one of
            either row.

    Raises InputError for wrong lengths, and where no two rows share a label or no two differ in it.
    """
    values = as_tensor(rows, "rows")
    return _contrast(values, objects, "objects") - _contrast(values, attributes, "attributes")


def matched_pairs(
    embeddings: Embeddings,
    editor: CaptionEditor | None = None,
    *,
    at_most: int = 5000,
    seed: int = 0,
    shuffled: bool = False,
) -> Embeddings:
    """P images with captions, each with one of its captions, drawn by chance; so every image counts once.

    With an editor an image is edited by that caption, and the text is the vector u that the editor compares it with.
    With `shuffled` each pair has the image of the next pair instead, edited by the caption of this one: what the
    caption writes into any image. The draw depends on the seed alone, so plain and edited pairs are the same ones.

    Raises InputError for no caption or an editor that lacks token features, ArtefactError for another encoder.
    """
    _require_texts(embeddings)
    rows, captions = _draw(embeddings, at_most, seed)
    return _paired(embeddings, rows, captions, editor, shuffled)


def alignment_report(
    embeddings: Embeddings,
    editor: CaptionEditor | None = None,
    *,
    objects: Labels | None = None,
    attributes: Labels | None = None,
    at_most: int = 5000,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Every measure here on `matched_pairs`, plain and edited.

    Returns 'plain' and, with an editor, 'edited' and 'shuffled images' -> measure -> value; and 'captioned share' for
    an editor with latents, over all captions. A caption writes itself into the image it edits: what 'edited' gains is
    alignment only as far as 'shuffled images', the same captions on other images, does not gain it too.

    Args:
        objects, attributes: labels of the N images, as in `object_bias`; both or neither.

    Raises as `matched_pairs`, `object_bias` and `captioned_share` do.
    """
    _require_texts(embeddings)
    if (objects is None) != (attributes is None):
        raise InputError("Object bias compares two labels of the images; pass both objects and attributes, or neither.")
    rows, captions = _draw(embeddings, at_most, seed)
    kinds: dict[str, tuple[CaptionEditor | None, bool]] = {"plain": (None, False)}
    if editor is not None:
        kinds |= {"edited": (editor, False), "shuffled images": (editor, True)}
    report: dict[str, dict[str, float]] = {}
    for name, (scorer, shuffled) in kinds.items():
        pairs = _paired(embeddings, rows, captions, scorer, shuffled)
        report[name] = _measures(pairs)
        if objects is not None and attributes is not None and not shuffled:
            labels = (
                _labels_of(objects, len(embeddings), "objects")[rows],
                _labels_of(attributes, len(embeddings), "attributes")[rows],
            )
            for side, values in (("images", pairs.images), ("texts", pairs.texts)):
                report[name][f"object bias, {side}"] = object_bias(values, *labels)
    if editor is not None and editor.config.has_latents:
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


def _draw(embeddings: Embeddings, at_most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of images with captions (P,), ascending, and a caption of each (P,)."""
    owners = embeddings.owners.cpu()
    order = torch.randperm(len(owners), generator=generator(seed, "captions drawn"))
    first = torch.full((len(embeddings),), len(owners))
    first.scatter_reduce_(0, owners[order], torch.arange(len(owners)), "amin")
    captioned = (first < len(owners)).nonzero()[:, 0]
    rows = captioned[sample(len(captioned), at_most, seed)]
    return rows, order[first[rows]]


def _paired(
    embeddings: Embeddings, rows: Tensor, captions: Tensor, editor: CaptionEditor | None, shuffled: bool
) -> Embeddings:
    if shuffled and len(rows) < 2:
        raise InputError("There is a single image with captions, so none to exchange it with; pass more.")
    shown = rows.roll(-1) if shuffled else rows
    images, texts = embeddings.images[shown].float(), embeddings.texts[captions].float()
    if editor is not None:
        editor.require_same_encoder(embeddings)
        images, texts = editor.edit(images, texts).cpu(), editor.text(texts).cpu()
    return Embeddings.from_arrays(
        images,
        texts,
        torch.arange(len(rows)),
        ids=[embeddings.ids[row] for row in shown.tolist()],
        captions=None if embeddings.captions is None else [embeddings.captions[row] for row in captions.tolist()],
        name=embeddings.name,
    )


def _contrast(values: Tensor, labels: Labels, label: str) -> float:
    """Mean cosine of different rows that share a label, less that of rows with different labels."""
    told = _labels_of(labels, len(values), label)
    members = (told[:, None] == told.unique() if told.ndim == 1 else told).double()
    sums = torch.zeros(members.shape[1], values.shape[1], dtype=torch.float64)
    for start, part in _blocks(values, label):
        sums += members[start : start + len(part)].T @ part
    count, of_row = members.sum(0), members.sum(1)
    # A row meets itself once for each of its labels in the first sum, and once for each two of them in the second.
    same, itself, crossed = float(sums.square().sum()), float(count.sum()), float((of_row.square() - of_row).sum())
    every = float(sums.sum(0).square().sum())
    n_same = float((count.square() - count).sum())
    n_other = itself**2 - float(count.square().sum()) - crossed
    if n_same < 1 or n_other < 1:
        raise InputError(f"{label} do not tell rows apart: some two must share a label and some two must not.")
    return (same - itself) / n_same - (every - same - crossed) / n_other


def _labels_of(labels: Labels, n: int, label: str) -> Tensor:
    told = as_tensor(labels, label)
    whole = told.ndim == 1 and not told.is_floating_point() and told.dtype != torch.bool
    if len(told) != n or not (whole or (told.ndim == 2 and told.dtype == torch.bool)):
        raise InputError(
            f"{label} has shape {tuple(told.shape)} and dtype {told.dtype}; pass {n} integers or ({n}, C) booleans."
        )
    return told


def _sides(embeddings: Embeddings) -> tuple[tuple[Tensor, str], tuple[Tensor, str]]:
    return (embeddings.images, "images"), (embeddings.texts, "texts")


def _blocks(rows: Tensor, label: str) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(rows), _BLOCK):
        yield start, unit_rows(rows[start : start + _BLOCK], label)


def _sum(rows: Tensor, label: str) -> Tensor:
    """(d,) float64, the sum of the unit rows."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    for _, part in _blocks(rows, label):
        total += part.sum(0)
    return total


def _mean_cosine(rows: Tensor, label: str) -> float:
    """Of two different rows: |sum of unit rows|^2 holds every cosine, and n that are 1."""
    n = len(rows)
    return (float(_sum(rows, label).square().sum()) - n) / (n * (n - 1)) if n > 1 else math.nan


def _pairs(embeddings: Embeddings) -> Iterator[tuple[Tensor, Tensor]]:
    """Unit images and texts, row by row the pairs, a block at a time."""
    for start, texts in _blocks(embeddings.texts, "texts"):
        owners = embeddings.owners[start : start + len(texts)]
        yield unit_rows(embeddings.images[owners], "images"), texts


def _distance(cosine: float) -> float:
    return (1 - cosine) / 2


def _require_texts(embeddings: Embeddings) -> None:
    if len(embeddings.owners) == 0:
        raise InputError(f"{embeddings.name or 'This collection'} has no captions, so there are no pairs to measure.")
