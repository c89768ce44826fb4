"""Whether a map is about its caption: the patches of the object that it names against those of another object."""

from __future__ import annotations

import torch
from scipy import stats
from torch import Tensor

from boresight.attribution.localisation import Array, as_maps, covered, maps_and_shares, pairwise_auc
from boresight.errors import InputError


def target_vs_distractor(maps: Array, targets: Array, distractors: Array) -> Tensor:
    """(P,) chance that a covered patch of the caption's object has more weight than one of the other object, ties half.

    A map that takes no notice of the caption has 0.5 on average, however well it tells objects from background. A
    patch that counts as covered by both ties with itself.
    """
    values, target, distractor = maps_and_shares(maps, targets, distractors)
    return pairwise_auc(values, covered(target), covered(distractor))


def swap_test(maps: Array, swapped: Array, targets: Array, distractors: Array) -> Tensor:
    """(P,) 1 where the map turns towards the object that the caption tells of, 0 where it turns away, else 0.5.

    `maps` are for the captions of the targets, `swapped` for those of the distractors, on the same images. With m(X)
    the mean over the covered patches of X of a map's ranks, which no scale can bend, the answer is 1 where
    m(target) - m(distractor) is larger in `maps` than in `swapped`. Equal maps, as a method that does not look at the
    caption makes them, get 0.5 exactly.

    Raises InputError, beside the usual reasons, when the two kinds of maps do not hold NaN at the same patches.
    """
    values, target, distractor = maps_and_shares(maps, targets, distractors)
    others = as_maps(swapped, "swapped").flatten(1)
    if others.shape != values.shape or not torch.equal(others.isnan(), values.isnan()):
        raise InputError("maps and swapped are not of the same patches; make both from the same images and model.")
    chosen, rejected = covered(target).double(), covered(distractor).double()

    def lead(of: Tensor) -> Tensor:
        # The difference of the two means times both counts: whole and half numbers, so that equality is exact.
        ranks = _ranks(of).nan_to_num()
        return (ranks * chosen).sum(1) * rejected.sum(1) - (ranks * rejected).sum(1) * chosen.sum(1)

    before, after = lead(values), lead(others)
    return (before > after).double() + (before == after).double() / 2


def _ranks(values: Tensor) -> Tensor:
    """(P, n) float64 ranks from 1 within each row, ties at their average; NaN stays NaN."""
    return torch.from_numpy(stats.rankdata(values.numpy(), axis=1, nan_policy="omit"))
