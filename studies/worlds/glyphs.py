"""Digits drawn as strokes: a stand-in for MNIST that is made, not downloaded."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from boresight.seeds import generator

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIDE = 28
HEIGHT = 17.0  # of a digit, in pixels, before it is drawn larger or smaller

Line = Sequence[tuple[float, float]]


def draw_glyph(seed: int, split: str, index: int) -> tuple[np.ndarray, str]:
    """(28, 28) uint8, a light digit on black, and its name; a function of the arguments alone.

    A digit is a fixed set of lines, bent by two gentle waves, sheared (slant up to 14 degrees either way), stretched by
    up to a tenth in each direction, moved by up to a pixel, and drawn with a round pen of 2.3 to 3.1 pixels.
    """
    numbers = torch.rand(16, generator=generator(seed, f"glyphs/{split}/{index}"), dtype=torch.float64).tolist()
    digit = math.floor(numbers[0] * len(NAMES))
    slant, wide, high, right, down, pen = (2 * number - 1 for number in numbers[1:7])
    picture = np.zeros((SIDE, SIDE))
    rows, columns = np.indices(picture.shape) + 0.5
    for line in _LINES[digit]:
        points = np.array(line)
        for wave in (numbers[7:11], numbers[11:15]):
            turn = math.pi * (points @ (np.array(wave[:2]) + 0.5)) + 2 * math.pi * wave[2]
            points = points + 0.035 * np.stack((np.sin(turn), np.sin(turn + 2 * math.pi * wave[3])), 1)
        x = HEIGHT * (1 + 0.1 * wide) * (points[:, 0] - math.tan(math.radians(14) * slant) * points[:, 1])
        y = HEIGHT * (1 + 0.1 * high) * points[:, 1]
        far = _distance(columns, rows, x + SIDE / 2 + right, y + SIDE / 2 + down)
        picture = np.maximum(picture, np.clip(0.5 + (2.7 + 0.4 * pen) / 2 - far, 0, 1))
    return np.rint(255 * picture).astype(np.uint8), NAMES[digit]


def _distance(columns: np.ndarray, rows: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(H, W) distance of each pixel's centre to the line through the points (x, y)."""
    far = np.full(rows.shape, np.inf)
    for x0, y0, x1, y1 in zip(x, y, x[1:], y[1:], strict=False):
        length = max((x1 - x0) ** 2 + (y1 - y0) ** 2, 1e-12)
        share = np.clip(((columns - x0) * (x1 - x0) + (rows - y0) * (y1 - y0)) / length, 0, 1)
        far = np.minimum(far, np.hypot(columns - x0 - share * (x1 - x0), rows - y0 - share * (y1 - y0)))
    return far


def _arc(x: float, y: float, wide: float, high: float, start: float, end: float) -> Line:
    """Of an ellipse about (x, y), from one angle to another, in degrees clockwise from the right."""
    angles = np.radians(np.linspace(start, end, max(6, round(abs(end - start) / 18))))
    return [(x + wide * math.cos(angle), y + high * math.sin(angle)) for angle in angles]


# In heights of the digit, from its middle; y downwards.
_LINES: tuple[Sequence[Line], ...] = (
    [_arc(0, 0, 0.3, 0.5, 0, 360)],
    [[(-0.14, -0.32), (0.04, -0.5), (0.04, 0.5)]],
    [[*_arc(0, -0.22, 0.29, 0.28, 190, 380), (-0.3, 0.5), (0.32, 0.5)]],
    [[*_arc(-0.02, -0.25, 0.27, 0.25, 210, 450), (-0.12, 0)], _arc(-0.02, 0.24, 0.31, 0.26, 270, 510)],
    [[(0.14, 0.5), (0.14, -0.5), (-0.33, 0.18), (0.36, 0.18)]],
    [[(0.27, -0.5), (-0.22, -0.5), (-0.26, -0.06), *_arc(-0.01, 0.19, 0.3, 0.31, 235, 510)]],
    [[*_arc(0.16, 0.1, 0.44, 0.6, 275, 190), *_arc(0, 0.2, 0.29, 0.3, 180, -180)]],
    [[(-0.3, -0.5), (0.3, -0.5), (-0.06, 0.5)]],
    [_arc(0, -0.26, 0.24, 0.24, 90, 450), _arc(0, 0.24, 0.29, 0.26, -90, 270)],
    [_arc(-0.01, -0.22, 0.28, 0.28, 0, 360), [(0.27, -0.22), (0.25, 0.1), (0.12, 0.5)]],
)
