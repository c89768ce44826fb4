"""A figure of how images and texts lie: every measure before and after editing, and the pairs in two dimensions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

JOINED = 60  # pairs that are joined by a line, at most
_IMAGES, _TEXTS, _JOINT = "#2166ac", "#d6604d", "#999999"
_COLOURS = {"plain": "#999999", "edited": "#2166ac", "shuffled images": "#fdae61"}


def alignment_figure(report: Mapping[str, Mapping[str, float]], pairs: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Matched pairs in the plane, some of them joined by a line, above a row of small bar charts.

    A chart is of one measure and has its own scale.

    Args:
        report: what `alignment_report` gives: 'plain', 'edited', 'shuffled images' -> measure -> value; what else it
            holds is not drawn.
        pairs: what `boresight.evaluation.pairs.pairs_in_plane` gives.

    Example:
        alignment_figure(alignment_report(test, editor), pairs_in_plane(test, editor)).savefig("alignment.png")
    """
    bars = {way: values for way, values in report.items() if way in _COLOURS}
    measures = list(bars.get("plain", {}))
    columns = min(5, max(1, len(measures)))
    lines = math.ceil(len(measures) / columns)
    heights = [3.6, 1.5 * max(lines, 1)]
    figure = Figure(figsize=(10, sum(heights)), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=heights)
    above, below = parts
    panels = above.subplots(1, len(pairs), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (way, sides) in zip(panels, pairs.items(), strict=True):
        _scatter(axes, np.asarray(sides["images"]), np.asarray(sides["texts"]), way)
    cells = below.subplots(max(lines, 1), columns, squeeze=False).flat
    for number, axes in enumerate(cells):
        measure = measures[number] if number < len(measures) else ""
        values = {way: of_way[measure] for way, of_way in bars.items() if measure in of_way}
        _bars(axes, measure, values, named=number % columns == 0)
    return figure


def _scatter(axes: Axes, images: np.ndarray, texts: np.ndarray, way: str) -> None:
    step = max(1, math.ceil(len(images) / JOINED))
    for image, text in zip(images[::step], texts[::step], strict=True):
        axes.plot(*zip(image, text, strict=True), color=_JOINT, linewidth=0.5, alpha=0.6, zorder=1)
    for label, points, colour in (("images", images, _IMAGES), ("texts", texts, _TEXTS)):
        axes.scatter(points[:, 0], points[:, 1], s=8, color=colour, alpha=0.7, label=label, zorder=2)
    axes.set_title(f"{way}: {len(images)} pairs", fontsize=10)
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
