"""A map of `boresight.explain` laid over its picture, as PNG."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image

from boresight.attribution import Attribution, explain
from boresight.attribution.grids import normalized, own_grid, resized
from boresight.data.images import embedded, png
from boresight.encoders import Encoder

SIDE = 512  # pixels of the longer side at most
COLOURS, STRENGTH = "inferno", 0.75


def draw_heatmap(encoder: Encoder, picture: Image.Image, text: str, method: str) -> dict[str, Any]:
    """Map, words and score of one pair; see `schemas.Heatmap`.

    Raises InputError where the method needs an encoder that opens layer by layer and this one does not.
    """
    attribution = explain(encoder, picture, text, method=method)
    shown = picture.copy()
    shown.thumbnail((SIDE, SIDE))
    heat = over(attribution, shown.size)
    both = Image.alpha_composite(shown.convert("RGBA"), Image.fromarray(heat)).convert("RGB")
    words = attribution.words[0] if attribution.words else []
    return {
        "text": text,
        "method": method,
        "score": float(attribution.score[0]),
        "words": [{"text": word.text, "weight": word.weight} for word in words],
        "width": shown.width,
        "height": shown.height,
        "overlay": embedded(png(heat), "png"),
        "image": embedded(png(np.asarray(both)), "png"),
    }


def over(attribution: Attribution, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 4) uint8 for a picture of size = (W, H): the first map on the part that the model saw, clear elsewhere.

    Of a signed map what speaks for the match is drawn.
    """
    width, height = size
    clear = Image.new("RGBA", size)
    if attribution.image is None:
        return np.asarray(clear)
    left, top, right, bottom = (float(edge) for edge in attribution.boxes[0])
    box = (round(left * width), round(top * height), round(right * width), round(bottom * height))
    own = own_grid(attribution.image[0])
    speaks_for = own.clamp(min=0) if bool((own < 0).any()) else own
    seen = (max(1, box[3] - box[1]), max(1, box[2] - box[0]))
    heat = normalized(resized(speaks_for, seen), "minmax").numpy()
    coloured = colormaps[COLOURS](heat, bytes=True)
    coloured[..., 3] = (heat * 255 * STRENGTH).astype(np.uint8)
    clear.paste(Image.fromarray(coloured), box[:2])
    return np.asarray(clear)
