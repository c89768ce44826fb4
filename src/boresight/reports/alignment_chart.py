"""A figure of how images and texts lie: every measure before and after editing, and the pairs in two dimensions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation.alignment import alignment_report, matched_pairs

_IMAGES, _TEXTS, _JOINT = "#2166ac", "#d6604d", "#999999"
_COLOURS = {"plain": "#999999", "edited": "#2166ac", "shuffled images": "#fdae61"}


def alignment_figure(
    embeddings: Embeddings,
    editor: CaptionEditor | None = None,
    *,
    report: Mapping[str, Mapping[str, float]] | None = None,
    at_most: int = 500,
    joined: int = 60,
    seed: int = 0,
) -> Figure:
    """Above, matched pairs along the two first principal components, plain and edited, some of them joined by a line;
    below, a row of small bar charts, one a measure, each with its own scale.

    The components are those of all points shown, so that both pictures have the same axes.

    Args:
        report: what `alignment_report` found; left out, it is made here, with its own sample.
        at_most: pairs to show. joined: pairs to join.

    Raises InputError as `alignment_report` does.
    """
    if joined < 0:
        raise InputError(f"joined is {joined}; it must be at least 0.")
    found = alignment_report(embeddings, editor, seed=seed) if report is None else report
    scorers = {"plain": None} if editor is None else {"plain": None, "edited": editor}
    pairs = {name: matched_pairs(embeddings, one, at_most=at_most, seed=seed) for name, one in scorers.items()}
    bars = {name: values for name, values in found.items() if name in _COLOURS}
    measures = list(bars.get("plain", {}))
    columns = min(5, max(1, len(measures)))
    lines = math.ceil(len(measures) / columns)
    heights = [3.6, 1.5 * max(lines, 1)]
    figure = Figure(figsize=(10, sum(heights)), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=heights)
    panels = parts[0].subplots(1, len(pairs), squeeze=False, sharex=True, sharey=True)[0]
    places = flat(torch.cat([F.normalize(rows, dim=1) for of in pairs.values() for rows in (of.images, of.texts)]))
    for axes, name, block in zip(panels, pairs, places.chunk(len(pairs)), strict=True):
        _scatter(axes, block, joined, f"{name}: {len(pairs[name])} pairs")
    cells = parts[1].subplots(max(lines, 1), columns, squeeze=False).flat
    for number, axes in enumerate(cells):
        measure = measures[number] if number < len(measures) else ""
        values = {name: of[measure] for name, of in bars.items() if measure in of}
        _bars(axes, measure, values, named=number % columns == 0)
    return figure


def flat(rows: Tensor) -> Tensor:
    """(N, 2) float64, rows (N, d) along their two first principal components, each pointing where it is longest."""
    centred = rows.double() - rows.double().mean(0)
    directions = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -2:].flip(1)
    longest = directions.abs().argmax(0)
    return centred @ (directions * directions[longest, torch.arange(directions.shape[1])].sign())


def _scatter(axes: Axes, places: Tensor, joined: int, title: str) -> None:
    images, texts = places.chunk(2)
    if joined:
        step = max(1, math.ceil(len(images) / joined))
        for image, text in zip(images[::step].tolist(), texts[::step].tolist(), strict=True):
            axes.plot(*zip(image, text, strict=True), color=_JOINT, linewidth=0.5, alpha=0.6, zorder=1)
    for label, points, colour in (("images", images, _IMAGES), ("texts", texts, _TEXTS)):
        axes.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=8, color=colour, alpha=0.7, label=label, zorder=2)
    axes.set_title(title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(fontsize=8, loc="best", frameon=False)


def _bars(axes: Axes, measure: str, values: Mapping[str, float], *, named: bool) -> None:
    if not values:
        axes.set_axis_off()
        return
    names = list(values)
    heights = [0.0 if math.isnan(values[name]) else values[name] for name in names]
    drawn = axes.barh(range(len(names)), heights, color=[_COLOURS[name] for name in names])
    axes.bar_label(drawn, [f"{values[name]:.3f}" for name in names], fontsize=7, padding=2)
    axes.margins(x=0.6)
    axes.set_yticks(range(len(names)), names if named else [""] * len(names), fontsize=7)
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.set_title(measure, fontsize=8)
