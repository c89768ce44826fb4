"""Whether an attribute can be read off embeddings by a linear probe, where the caption tells it and where not."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.errors import InputError
from boresight.evaluation.results import Scores
from boresight.indexing import as_tensor

Array = Tensor | np.ndarray


@dataclass(frozen=True, eq=False)
class Probe:
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

    def log_probabilities(self, features: Array) -> Tensor:
        """(N, classes) float64 of the rows (N, d). Raises InputError for another width, NaN or no rows."""
        rows = _features(features, "features")
        if rows.shape[1] != len(self.centre):
            raise InputError(f"features is {rows.shape[1]} wide and the probe was fitted on {len(self.centre)}.")
        return (((rows - self.centre) / self.scale) @ self.weights + self.bias).log_softmax(1)

    def predict(self, features: Array) -> Tensor:
        """(N,) int64, the likeliest class of each row (N, d). Raises InputError as `log_probabilities` does."""
        return self.log_probabilities(features).argmax(1)

    def accuracy(self, features: Array, labels: Array) -> float:
        """Percent of rows whose class is read off rightly. Raises InputError as `predict` and `fit_probe` do."""
        read = self.predict(features)
        return _percent(read == _labels(labels, "labels", len(read), len(self.bias)))


@dataclass(frozen=True)
class Retention(Scores):
    """How well one attribute is read off rows whose caption tells it, and off the others, in percent.

    Values: 'described' and 'undescribed', of the test rows of either sort, NaN where there are no such rows;
    'guessing', over all test rows, what always saying the most frequent training class gets right.

    Attributes:
        counts: 'described rows' and 'undescribed rows'.
        probe: what read them.
    """

    probe: Probe | None = field(default=None, repr=False, compare=False)


def fit_probe(features: Array, labels: Array, classes: int, *, l2: float = 1e-3) -> Probe:
    """The probe of least mean cross-entropy + l2 / 2 * |weights|^2: LBFGS in float64 from zero, so nothing is random.

    A feature is divided by its standard deviation: what an edit shrinks alike in every row stays as readable.
    One that never changes is left out of account. features: (N, d) floating point; labels: (N,) integers.
    Raises InputError for no rows, NaN or infinity, wrong lengths, a class out of range, fewer than 2 classes, l2 <= 0.
    """
    rows = _features(features, "features")
    if classes < 2 or not 0 < l2 < torch.inf:
        raise InputError(f"A probe needs 2 or more classes and l2 above 0; they are {classes} and {l2:g}.")
    truth = _labels(labels, "labels", len(rows), classes)
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
        value = F.cross_entropy(standard @ weights + bias, truth) + l2 / 2 * weights.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return Probe(weights.detach(), bias.detach(), centre, scale, int(truth.bincount().argmax()))


def attribute_retention(
    train_features: Array,
    train_labels: Array,
    test_features: Array,
    test_labels: Array,
    described: Array,
    *,
    classes: int,
) -> Retention:
    """A probe fitted on all training rows, and how well it reads the test rows of either sort.

    train_features and test_features are (N, d) and (M, d), plain or edited each by its own caption; train_labels and
    test_labels (N,) and (M,) integers in [0, classes), the true values; described is (M,) booleans, whether the caption
    of a test row tells the attribute. Raises InputError as `fit_probe` does, for the test rows too.
    """
    told = as_tensor(described, "described")
    probe = fit_probe(train_features, train_labels, classes)
    read = probe.predict(test_features)
    truth = _labels(test_labels, "test_labels", len(read), classes)
    if told.dtype != torch.bool or told.shape != read.shape:
        raise InputError(f"described has shape {tuple(told.shape)} and dtype {told.dtype}; pass {len(read)} booleans.")
    right = read == truth
    rows = {"described": right[told], "undescribed": right[~told], "guessing": truth == probe.most_frequent}
    return Retention(
        values={sort: _percent(part) for sort, part in rows.items()},
        main="undescribed",
        name="attribute retention",
        counts={f"{sort} rows": len(rows[sort]) for sort in ("described", "undescribed")},
        probe=probe,
    )


def _percent(right: Tensor) -> float:
    return 100 * float(right.double().mean())


def _features(values: Array, label: str) -> Tensor:
    rows = as_tensor(values, label)
    if rows.ndim != 2 or not rows.is_floating_point() or 0 in rows.shape:
        raise InputError(f"{label} has shape {tuple(rows.shape)} and dtype {rows.dtype}; pass floats, (rows, width).")
    bad = ~torch.isfinite(rows).all(1)
    if bad.any():
        raise InputError(f"Row {int(bad.nonzero()[0])} of {label} holds NaN or infinity; drop it or compute it again.")
    return rows.double()


def _labels(values: Array, label: str, length: int, classes: int) -> Tensor:
    labels = as_tensor(values, label)
    if labels.shape != (length,) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(f"{label} has shape {tuple(labels.shape)} and dtype {labels.dtype}; pass {length} integers.")
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        raise InputError(f"{label} holds class {int(labels[outside][0])}; classes run from 0 to {classes - 1}.")
    return labels.long()
