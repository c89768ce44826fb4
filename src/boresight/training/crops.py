"""Random crops of training pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Generator, Tensor


def augment(
    picture: Image.Image,
    random: Generator,
    *,
    size: int,
    minimum_area: float = 0.4,
    flip: bool = True,
    jitter: float = 0.0,
    grey: float = 0.0,
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.5, 0.5, 0.5),
) -> Tensor:
    """(3, size, size) float32: a random crop resized, mirrored and coloured, normalised.

    Args:
        picture: RGB.
        minimum_area: least share of the picture that the crop keeps; 1 keeps all of it.
        flip: mirror every other picture.
        jitter: brightness, contrast and colour change by a factor from 1 - jitter to 1 + jitter.
        grey: share of the pictures that lose their colours.
        mean, std: of the model's pixels, in [0, 1].
    """
    box = crop_box(picture.width, picture.height, minimum_area, random)
    picture = picture.resize((size, size), Image.Resampling.BILINEAR, box=box)
    mirror, *factors, colourless = torch.rand(5, generator=random).tolist()
    if flip and mirror < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if jitter:
        for change, draw in zip(
            (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
        ):
            picture = change(picture).enhance(1 + jitter * (2 * draw - 1))
    if colourless < grey:
        picture = picture.convert("L").convert("RGB")
    pixels = torch.from_numpy(np.array(picture, dtype=np.float32) / 255)
    return ((pixels - torch.tensor(mean)) / torch.tensor(std)).permute(2, 0, 1).contiguous()


def crop_box(width: int, height: int, minimum_area: float, random: Generator) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) in pixels: an area from `minimum_area` to 1 of the picture, sides from 3:4 to 4:3.

    The whole picture where ten draws give no crop that fits into it, as for narrow ones.
    """
    for area, ratio, left, top in torch.rand(10, 4, generator=random, dtype=torch.float64).tolist():
        pixels = width * height * (minimum_area + (1 - minimum_area) * area)
        aspect = (3 / 4) ** (1 - 2 * ratio)
        wide, high = math.sqrt(pixels * aspect), math.sqrt(pixels / aspect)
        if wide <= width and high <= height:
            left, top = left * (width - wide), top * (height - high)
            return left, top, left + wide, top + high
    return 0, 0, width, height
