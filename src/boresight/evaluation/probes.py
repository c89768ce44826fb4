"""What can be read off embeddings: labels, where the caption tells them and where not; object bias."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.brief import Brief
from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation.pairs import matched_pairs, normalised, plain_and
from boresight.evaluation.results import percent
from boresight.indexing import as_tensor
from boresight.seeds import generator

Labels = Tensor | np.ndarray | Sequence[int]
Values = Sequence[Sequence[str]]
"""Of each image the values of one label, none or several."""


@dataclass(frozen=True, eq=False, repr=False)
class Probe(Brief):
    """Multinomial logistic regression on standardised features.

    Attributes:
        weights, bias: (d, classes) and (classes,) float64, of the standardised features.
        centre, scale: (d,) float64, mean and standard deviation of each feature over the fitted rows.
        most_frequent: the class that most fitted rows have; the lowest of several.
    """

    weights: Tensor
    bias: Tensor
    centre: Tensor
    scale: Tensor
    most_frequent: int

    def log_probabilities(self, features: Tensor) -> Tensor:
        """(N, classes) float64 of the rows (N, d)."""
        return (((features.double() - self.centre) / self.scale) @ self.weights + self.bias).log_softmax(1)

    def predict(self, features: Tensor) -> Tensor:
        """(N,) int64, the likeliest class of each row (N, d)."""
        return self.log_probabilities(features).argmax(1)


def fit_probe(features: Tensor, labels: Tensor, classes: int, *, l2: float = 1e-3) -> Probe:
    """The probe of least mean cross-entropy + l2 / 2 * |weights|^2: LBFGS in float64 from zero, so nothing is random.

    A feature is divided by its standard deviation: what an edit shrinks alike in every row stays as readable.
    One that never changes is left out of account. features: (N, d) floating point, finite; labels: (N,) int64.
    """
    rows = features.double()
    centre, scale = rows.mean(0), rows.std(0, correction=0)
    # Rounding leaves a constant feature a spread of about 1e-16 of its size, which must not be blown up to 1.
    scale = torch.where(scale > 1e-9 * rows.abs().amax(0), scale, torch.inf)
    standard = (rows - centre) / scale
    weights = torch.zeros(rows.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weights, bias], max_iter=300, tolerance_grad=1e-5, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(standard @ weights + bias, labels) + l2 / 2 * weights.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return Probe(weights.detach(), bias.detach(), centre, scale, int(labels.bincount().argmax()))


def object_bias(rows: Tensor | np.ndarray, objects: Labels, attributes: Labels) -> float:
    """MOAD of Schrodi et al. (arXiv 2404.07983): how much more an embedding tells the object than the attributes.

    (c_same object - c_other object) - (c_same attribute - c_other attribute), c the mean cosine of two different rows.
    Above 0: rows gather by object, below 0: by attribute. The published code leaves out pairs of other labels that
    stand at the same position among those of their label; here all count. Exact, in O(N d).

    Args:
        rows: (N, d), images, or texts that each tell an object and its attributes.
        objects, attributes: (N,) integers, the class of each row; or (N, C) booleans where a row has several or none:
            two rows count as the same once for each label they share, and as others once for each two labels, one of
            either row.

    Raises InputError for wrong lengths, and where no two rows share a label or no two differ in it.
    """
    values = as_tensor(rows, "rows")
    return _contrast(values, objects, "objects") - _contrast(values, attributes, "attributes")


def label_report(
    embeddings: Embeddings,
    labels: Mapping[str, Values],
    editor: CaptionEditor | None = None,
    *,
    at_most: int = 5000,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Object bias and retention of each label on `matched_pairs`; 'plain' and, with an editor, 'edited' -> measure.

    Object bias, given two labels or more, of images and of texts: `object_bias` of the first label, the object, against
    each further one, and their mean. Retention, in percent, for each label, over the images that have one value of it:

    - 'told', 'left out': how often a linear probe reads the value off the image, where its caption holds the value's
      words and where not. Probes are fitted on one half of the pairs and read the other, both ways round.
    - 'guessing': the most frequent value of the fitted half.
    - 'written': on images edited by the caption of another, which tells another value, how often the probe reads that
      value. What is above 'plain' the caption wrote, so as much of 'told' may be no retention.

    A sort that has no images is left out. labels: name -> N lists of values, as `labels_in` gives them.

    Raises InputError for embeddings without captions, wrong lengths, a label of fewer than two values, too few images
    to halve, and as `matched_pairs` and `object_bias` do.
    """
    if embeddings.captions is None:
        raise InputError("These embeddings do not keep their captions, so nothing says what captions tell.")
    for name, values in labels.items():
        if len(values) != len(embeddings):
            raise InputError(f"The label '{name}' is of {len(values)} images and there are {len(embeddings)}.")
        if len({each for of_image in values for each in of_image}) < 2:
            raise InputError(f"The label '{name}' has the same value everywhere, so there is nothing to tell apart.")
    row_of = {identity: row for row, identity in enumerate(embeddings.ids)}
    report: dict[str, dict[str, float]] = {}
    for way, scorer in plain_and(editor).items():
        own, crossed = (
            matched_pairs(embeddings, scorer, at_most=at_most, seed=seed, shuffled=shuffled)
            for shuffled in (False, True)
        )
        rows = [row_of[identity] for identity in own.ids]
        drawn = {name: [values[row] for row in rows] for name, values in labels.items()}
        report[way] = _bias(own, drawn)
        for name, values in drawn.items():
            read = _retention(own, crossed.images, values, name, seed)
            report[way] |= {f"{name}: {sort}": value for sort, value in read.items()}
    return report


def _bias(pairs: Embeddings, labels: Mapping[str, Values]) -> dict[str, float]:
    """Nothing where there is a single label."""
    first, *others = labels
    members = {name: _members(values) for name, values in labels.items()}
    biases: dict[str, list[float]] = {}
    for name in others:
        for side, rows in (("images", pairs.images), ("texts", pairs.texts)):
            try:
                bias = object_bias(rows, members[first], members[name])
            except InputError as error:
                raise InputError(f"No object bias of '{first}' against '{name}': {error}") from error
            biases.setdefault(f"object bias, {side}", []).append(bias)
    return {measure: fmean(values) for measure, values in biases.items()}


def _members(values: Values) -> Tensor:
    """(N, C) bool."""
    classes = sorted({each for of_image in values for each in of_image})
    return torch.tensor([[each in of_image for each in classes] for of_image in values])


def _retention(pairs: Embeddings, crossed: Tensor, values: Values, name: str, seed: int) -> dict[str, float]:
    """crossed: (P, d), in row j the image of pair j + 1 edited by the caption of pair j."""
    classes = sorted({of_image[0] for of_image in values if len(of_image) == 1})
    truth = torch.tensor([classes.index(one[0]) if len(one) == 1 else -1 for one in values])
    known = truth >= 0
    tells = torch.tensor(
        [len(one) == 1 and holds(caption, one[0]) for one, caption in zip(values, pairs.captions or (), strict=True)]
    )
    half = torch.rand(len(truth), generator=generator(seed, "halves for probes")) < 0.5
    next_half, next_truth = half.roll(-1), truth.roll(-1)
    contrary = tells & (next_truth >= 0) & (next_truth != truth) & (next_half == half)
    if len(classes) < 2 or not ((known & half).any() and (known & ~half).any()):
        raise InputError(f"Too few images have one value of '{name}' to fit a probe on half of them; pass more.")
    rows = {"told": known & tells, "left out": known & ~tells, "guessing": known, "written": contrary}
    right = {sort: torch.zeros(len(truth), dtype=torch.bool) for sort in rows}
    for fit in (half, ~half):
        seen, read = known & fit, known & ~fit
        probe = fit_probe(pairs.images[seen], truth[seen], len(classes))
        right["told"][read] = right["left out"][read] = probe.predict(pairs.images[read]) == truth[read]
        right["guessing"][read] = truth[read] == probe.most_frequent
        if (asked := contrary & ~fit).any():
            right["written"][asked] = probe.predict(crossed[asked]) == truth[asked]
    return {sort: percent(right[sort][which]) for sort, which in rows.items() if which.any()}


def holds(caption: str, value: str) -> bool:
    """Whether the caption has the words of the value, one after another, in any case."""
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", caption, re.IGNORECASE) is not None


def _contrast(values: Tensor, labels: Labels, label: str) -> float:
    """Mean cosine of different rows that share a label, less that of rows with different labels."""
    classes = as_tensor(labels, label)
    whole = classes.ndim == 1 and not classes.is_floating_point() and classes.dtype != torch.bool
    if len(classes) != len(values) or not (whole or (classes.ndim == 2 and classes.dtype == torch.bool)):
        raise InputError(
            f"{label} has shape {tuple(classes.shape)} and dtype {classes.dtype}; "
            f"pass {len(values)} integers or ({len(values)}, C) booleans."
        )
    members = (classes[:, None] == classes.unique() if classes.ndim == 1 else classes).double()
    sums = members.T @ normalised(values, label)
    count, of_row = members.sum(0), members.sum(1)
    # A row meets itself once for each of its labels in the first sum, and once for each two of them in the second.
    same, itself, crossed = float(sums.square().sum()), float(count.sum()), float((of_row.square() - of_row).sum())
    every = float(sums.sum(0).square().sum())
    n_same = float((count.square() - count).sum())
    n_other = itself**2 - float(count.square().sum()) - crossed
    if n_same < 1 or n_other < 1:
        raise InputError(f"{label} do not tell rows apart: some two must share a label and some two must not.")
    return (same - itself) / n_same - (every - same - crossed) / n_other
