"""What labels of the pictures tell of an edit: whether pairs gather by object or attribute, what stays readable."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor

from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation.alignment import matched_pairs, object_bias
from boresight.evaluation.probes import fit_probe
from boresight.seeds import generator

Values = Sequence[Sequence[str]]
"""Of each image the values of one label, none or several."""


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
    for way, scorer in {"plain": None, **({} if editor is None else {"edited": editor})}.items():
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
    found: dict[str, list[float]] = {}
    for name in others:
        for side, rows in (("images", pairs.images), ("texts", pairs.texts)):
            try:
                bias = object_bias(rows, members[first], members[name])
            except InputError as error:
                raise InputError(f"No object bias of '{first}' against '{name}': {error}") from error
            found.setdefault(f"object bias, {side}", []).append(bias)
    return {measure: fmean(values) for measure, values in found.items()}


def _members(values: Values) -> Tensor:
    """(N, C) bool."""
    classes = sorted({each for of_image in values for each in of_image})
    return torch.tensor([[each in of_image for each in classes] for of_image in values])


def _retention(pairs: Embeddings, crossed: Tensor, values: Values, name: str, seed: int) -> dict[str, float]:
    """crossed: (P, d), at place j the image of pair j + 1 edited by the caption of pair j."""
    classes = sorted({of_image[0] for of_image in values if len(of_image) == 1})
    truth = torch.tensor([classes.index(one[0]) if len(one) == 1 else -1 for one in values])
    known = truth >= 0
    told = torch.tensor(
        [len(one) == 1 and holds(caption, one[0]) for one, caption in zip(values, pairs.captions or (), strict=True)]
    )
    half = torch.rand(len(truth), generator=generator(seed, "halves for probes")) < 0.5
    next_half, next_truth = half.roll(-1), truth.roll(-1)
    contrary = told & (next_truth >= 0) & (next_truth != truth) & (next_half == half)
    if len(classes) < 2 or not ((known & half).any() and (known & ~half).any()):
        raise InputError(f"Too few images have one value of '{name}' to fit a probe on half of them; pass more.")
    rows = {"told": known & told, "left out": known & ~told, "guessing": known, "written": contrary}
    right = {sort: torch.zeros(len(truth), dtype=torch.bool) for sort in rows}
    for fit in (half, ~half):
        seen, read = known & fit, known & ~fit
        probe = fit_probe(pairs.images[seen], truth[seen], len(classes))
        right["told"][read] = right["left out"][read] = probe.predict(pairs.images[read]) == truth[read]
        right["guessing"][read] = truth[read] == probe.most_frequent
        if (asked := contrary & ~fit).any():
            right["written"][asked] = probe.predict(crossed[asked]) == truth[asked]
    return {sort: 100 * float(right[sort][which].double().mean()) for sort, which in rows.items() if which.any()}


def holds(caption: str, value: str) -> bool:
    """Whether the caption has the words of the value, one after another, in any case."""
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", caption, re.IGNORECASE) is not None
