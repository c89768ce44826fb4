"""Places of dots on an axis; the page draws them with plain HTML, so they follow its width, type and colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from boresight.tables import Spread


@dataclass(frozen=True)
class Dot:
    """One value on a track: `at`, `low` and `high` are percent of the axis, `style` names its colour."""

    label: str
    style: str
    text: str
    mean: str
    at: float
    low: float
    high: float


@dataclass(frozen=True)
class DotFigure:
    """Horizontal tracks (name, dots) over one axis. `ticks`: (percent of it, label); `reference`: percent, or None."""

    title: str
    tracks: Sequence[tuple[str, Sequence[Dot]]]
    ticks: Sequence[tuple[float, str]]
    reference: float | None

    @property
    def description(self) -> str:
        """The figure in words, for those who do not see it."""
        parts = []
        for name, dots in self.tracks:
            words = (dot.text if dot.label == name else f"{dot.label} {dot.text}" for dot in dots)
            parts.append(f"{name}: {', '.join(words)}")
        return f"{self.title}. {'; '.join(parts)}."


def dot_figure(
    title: str,
    tracks: Sequence[tuple[str, Sequence[tuple[str, str, Spread]]]],
    reference: float | None = None,
    digits: int = 1,
) -> DotFigure:
    """A figure of values with error bars (one standard deviation each way).

    Args:
        tracks: (label, dots) from top to bottom, a dot being (label, style, value).
        reference: a value to draw a line at.
        digits: of the values in words, after the point.
    """
    ends = [end for _, dots in tracks for *_, value in dots for end in _span(value)]
    ends += [] if reference is None else [reference]
    ticks = _ticks(min(ends), max(ends), least=10 * 10**-digits)
    decimals = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))

    def at(value: float) -> float:
        return 100 * (value - ticks[0]) / (ticks[-1] - ticks[0])

    def dot(label: str, style: str, value: Spread) -> Dot:
        low, high = _span(value)
        return Dot(label, style, value.text(digits), f"{value.mean:.{digits}f}", at(value.mean), at(low), at(high))

    return DotFigure(
        title=title,
        tracks=[(name, [dot(*one) for one in dots]) for name, dots in tracks],
        ticks=[(at(tick), f"{tick:.{decimals}f}") for tick in ticks],
        reference=None if reference is None else at(reference),
    )


def _span(value: Spread) -> tuple[float, float]:
    """One standard deviation each way."""
    return value.mean - (value.deviation or 0), value.mean + (value.deviation or 0)


def _ticks(low: float, high: float, wanted: int = 5, least: float = 1.0) -> list[float]:
    """Round numbers, evenly spaced, the first at or below `low` and the last at or above `high`.

    least: how long the axis is at least; one value alone, or several nearly the same, stand in the middle of it.
    """
    span = max(high - low, least)
    middle = (low + high) / 2
    low, high = middle - 0.54 * span, middle + 0.54 * span
    power = 10 ** math.floor(math.log10((high - low) / wanted))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (power * factor) <= wanted)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, last + 1)]
