"""Grey values of more than 8 bits: which of them are black and white, and what they are in 8 bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from boresight.data.tiff import BITS
from boresight.errors import InputError

Range = tuple[float, float]
_MEANING, _LEAST, _MOST = 262, 340, 341  # tags of TIFF: PhotometricInterpretation, SMinSampleValue, SMaxSampleValue


def range_of(values: np.ndarray, tags: Mapping[int, Any], *, sixteen: bool) -> Range:
    """The values that are black and white, in this order.

    values: (H, W) of 16 bits without a sign where `sixteen`, else floats, 32-bit integers or any with a sign.
    tags: of the TIFF it comes from. BitsPerSample says how many of 16 bits are used. SMinSampleValue and
        SMaxSampleValue give the range of all others; without them floats must lie in 0..1, and either in 0..255
        where all are whole: 8-bit values in a wider type.
        PhotometricInterpretation 0 makes the least value white, which Pillow itself sees to in 8 bits only.

    Raises InputError for values that are not finite, and for those of which none of this tells the range.
    """
    if not np.isfinite(values).all():
        raise InputError("it holds NaN or infinity where a grey value should be; fill or drop it.")
    least, most = float(values.min()), float(values.max())
    floats = values.dtype.kind == "f"
    if sixteen:
        low, high = 0.0, 2.0 ** min(tags.get(BITS, (16,))) - 1
    elif _LEAST in tags and _MOST in tags:
        low, high = (float(np.ravel(tags[tag])[0]) for tag in (_LEAST, _MOST))
    elif floats and least >= 0 and most <= 1:
        low, high = 0.0, 1.0
    elif least >= 0 and most <= 255 and (values == np.floor(values)).all():
        low, high = 0.0, 255.0
    else:
        what = "floats" if floats else "integers"
        raise InputError(
            f"its grey values are {what} from {least:g} to {most:g}, and nothing says which are black and white; "
            "save it with 8 or 16 bits, as floats in 0..1, or as a TIFF with SMinSampleValue and SMaxSampleValue."
        )
    if not low < high:
        raise InputError(f"its range of grey values, {low:g} to {high:g}, is empty; save it with 8 or 16 bits.")
    return (high, low) if tags.get(_MEANING) == 0 else (low, high)


def eight_bits(values: np.ndarray, range: Range) -> np.ndarray:
    """`values` (H, W) as uint8: 0 at the first end of the range, 255 at the other, cut beyond them."""
    black, white = range
    share = (values.astype(np.float64) - black) / (white - black)
    return (share * 255).round().clip(0, 255).astype(np.uint8)
