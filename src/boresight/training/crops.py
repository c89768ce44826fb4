"""Random crops of training pictures."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Generator, Tensor

from boresight.training.config import StreamConfig


def augment(picture: Image.Image, random: Generator, config: StreamConfig) -> Tensor:
    """(3, S, S) float32: a random crop of an RGB picture resized, mirrored and coloured, normalised.

    `config` says the size S, the least share of the picture that the crop keeps (1 keeps all of it), whether every
    other picture is mirrored, by which factors brightness, contrast and colour change (1 - jitter to 1 + jitter), which
    share of the pictures lose their colours, and mean and deviation of the model's pixels, in [0, 1].
    """
    box = crop_box(picture.width, picture.height, config.minimum_area, random)
    picture = picture.resize((config.image_size, config.image_size), Image.Resampling.BILINEAR, box=box)
    mirror, *factors, colourless = torch.rand(5, generator=random).tolist()
    if config.flip and mirror < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if config.jitter:
        for change, draw in zip(
            (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
        ):
            picture = change(picture).enhance(1 + config.jitter * (2 * draw - 1))
    if colourless < config.grey:
        picture = picture.convert("L").convert("RGB")
    pixels = torch.from_numpy(np.array(picture, dtype=np.float32) / 255)
    return ((pixels - torch.tensor(config.mean)) / torch.tensor(config.std)).permute(2, 0, 1).contiguous()


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
