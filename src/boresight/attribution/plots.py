"""Pictures of an attribution."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from boresight.attribution.grids import normalized, own_grid, resized
from boresight.data.images import open_picture
from boresight.errors import InputError
from boresight.storage import replace_file

if TYPE_CHECKING:
    from torch import Tensor

    from boresight.attribution.maps import Attribution, Word

_HEAT = "inferno"
_WORDS = "Oranges"
_DETAIL = 256
_LETTER, _GAP = 0.0112, 0.016  # of the width of the figure, at its font size


def draw_pair(attribution: Attribution, index: int, word: int | None = None) -> Figure:
    """`Attribution.plot`."""
    if not -len(attribution) <= index < len(attribution):
        raise InputError(f"There is no pair {index}; the attribution has {len(attribution)}.")
    raw, title = _map_of(attribution, index, word)
    words = attribution.words[index] if attribution.words else []
    concepts = attribution.concepts[index] if attribution.concepts else None
    lines = _lines([one.text for one in words], 72)
    picture = open_picture(attribution.pictures[index])
    tall = min(max(picture.height / picture.width, 0.2), 2.0)
    heights = [4.1 * tall + 0.35, 0.34 * len(lines) + 0.1, 0.62 if concepts is not None else 0.01]
    figure = Figure(figsize=(8.4, sum(heights) + 0.1), layout="constrained")
    parts: Any = figure.subfigures(3, 1, height_ratios=heights)
    above, middle, below = parts
    left, right = above.subplots(1, 2)
    for axes in (left, right):
        axes.imshow(picture)
        axes.set_axis_off()
    left.set_title(f"score {float(attribution.score[index]):.3f}", fontsize=10)
    if raw is not None:
        _lay_over(right, raw, picture, attribution.boxes[index])
        right.set_title(title, fontsize=10)
    if words:
        _shade(middle.subplots(), words, lines, word)
    if concepts is not None:
        text = below.subplots()
        text.set_axis_off()
        text.text(0, 1, _concepts(concepts), fontsize=8, va="top", family="monospace", transform=text.transAxes)
    return figure


def save_figure(figure: Figure, file: Path) -> None:
    """Write a figure whole or not at all, in the format of its suffix. Raises InputError for a suffix unknown."""
    kind = file.suffix.lower().removeprefix(".")
    if kind not in figure.canvas.get_supported_filetypes():
        raise InputError(f"A figure cannot be written as '{file.name}'; end the name in .png, .svg or .pdf.")
    out = io.BytesIO()
    figure.savefig(out, format=kind, dpi=130)
    replace_file(file, out.getvalue())


def _map_of(attribution: Attribution, index: int, word: int | None) -> tuple[Tensor | None, str]:
    name = str(attribution.method.get("method", "map"))
    if word is None:
        return (None if attribution.image is None else attribution.image[index]), name
    words = attribution.words[index] if attribution.words else []
    if attribution.interaction is None:
        raise InputError("There is no interaction map to draw a word of; explain with interaction=True.")
    if not -len(words) <= word < len(words):
        raise InputError(f"The caption has no word {word}; it has {len(words)}.")
    return attribution.interaction[index][list(words[word].tokens)].sum(0), f"'{words[word].text}' by patches"


def _lay_over(axes: Axes, raw: Tensor, picture: Image.Image, box: Tensor) -> None:
    own = own_grid(raw)
    speaks_for = own.clamp(min=0) if bool((own < 0).any()) else own
    heat = normalized(resized(speaks_for, (_DETAIL, _DETAIL)), "minmax")
    width, height = picture.size
    left, top, right, bottom = (float(edge) for edge in box)
    extent = (left * width - 0.5, right * width - 0.5, bottom * height - 0.5, top * height - 0.5)
    axes.imshow(heat.numpy(), cmap=_HEAT, alpha=0.6, extent=extent, vmin=0, vmax=1)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def _shade(axes: Axes, words: list[Word], lines: list[list[int]], chosen: int | None) -> None:
    """Words on boxes, darker for more weight; negative weights count as none, and `chosen` has a frame."""
    weights = normalized(torch.tensor([max(0.0, one.weight) for one in words]), "maxabs")
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(len(lines), 0)
    for row, line in enumerate(lines):
        x = 0.01
        for index in line:
            shade = colormaps[_WORDS](0.85 * float(weights[index]))
            frame = "black" if chosen is not None and index == chosen % len(words) else "none"
            box = {"facecolor": shade, "edgecolor": frame, "boxstyle": "round,pad=0.2", "alpha": 0.9}
            axes.text(x, row + 0.5, words[index].text, va="center", family="monospace", fontsize=11, bbox=box)
            x += _LETTER * len(words[index].text) + _GAP


def _lines(words: list[str], width: int) -> list[list[int]]:
    """The words' indices, broken into lines of at most `width` letters."""
    lines: list[list[int]] = [[]]
    used = 0
    for index, word in enumerate(words):
        if lines[-1] and used + len(word) > width:
            lines.append([])
            used = 0
        lines[-1].append(index)
        used += len(word) + 1
    return lines


def _concepts(explanation: Any, top: int = 5) -> str:
    rows = [f"  edited: {explanation.edited_score:.3f}, plain {explanation.plain_score:.3f}"]
    for title, latents in (("kept", explanation.kept), ("dropped", explanation.dropped)):
        names = [f"{one.label} {getattr(one, title):+.3f}" for one in latents[:top]]
        rows.append(f"{title:>8}: {', '.join(names) or 'nothing'}")
    return "\n".join(rows)
