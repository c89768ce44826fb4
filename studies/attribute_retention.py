"""Whether an attribute is read off embeddings where the caption tells it and where not; inputs are checked."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from boresight.errors import InputError
from boresight.evaluation.probes import Probe, fit_probe
from boresight.evaluation.results import Scores, percent
from boresight.indexing import as_tensor

Array = Tensor | np.ndarray


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


def checked_probe(features: Array, labels: Array, classes: int, *, l2: float = 1e-3) -> Probe:
    """`fit_probe` of features (N, d) floating point and labels (N,) integers in [0, classes).

    Raises InputError for no rows, NaN or infinity, wrong lengths, a class out of range, fewer than 2 classes, l2 <= 0.
    """
    rows = _features(features, "features")
    if classes < 2 or not 0 < l2 < torch.inf:
        raise InputError(f"A probe needs 2 or more classes and l2 above 0; they are {classes} and {l2:g}.")
    return fit_probe(rows, _labels(labels, "labels", len(rows), classes), classes, l2=l2)


def accuracy(probe: Probe, features: Array, labels: Array) -> float:
    """Percent of rows whose class is read off rightly. Raises InputError for another width and as `checked_probe`."""
    read = _predicted(probe, features)
    return percent(read == _labels(labels, "labels", len(read), len(probe.bias)))


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
    of a test row tells the attribute. Raises InputError as `checked_probe` does, for the test rows too.
    """
    tells = as_tensor(described, "described")
    probe = checked_probe(train_features, train_labels, classes)
    read = _predicted(probe, test_features)
    truth = _labels(test_labels, "test_labels", len(read), classes)
    if tells.dtype != torch.bool or tells.shape != read.shape:
        raise InputError(
            f"described has shape {tuple(tells.shape)} and dtype {tells.dtype}; pass {len(read)} booleans."
        )
    right = read == truth
    rows = {"described": right[tells], "undescribed": right[~tells], "guessing": truth == probe.most_frequent}
    return Retention(
        values={sort: percent(part) for sort, part in rows.items()},
        main="undescribed",
        name="attribute retention",
        counts={f"{sort} rows": len(rows[sort]) for sort in ("described", "undescribed")},
        probe=probe,
    )


def _predicted(probe: Probe, features: Array) -> Tensor:
    rows = _features(features, "features")
    if rows.shape[1] != len(probe.centre):
        raise InputError(f"features is {rows.shape[1]} wide and the probe was fitted on {len(probe.centre)}.")
    return probe.predict(rows)


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
