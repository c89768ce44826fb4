"""What the values of a TIFF are, where Pillow does not say."""

from __future__ import annotations

import contextlib
from typing import IO

from PIL import TiffImagePlugin

BITS, SAMPLES = 258, 339  # tags: BitsPerSample, and SampleFormat, 1 for integers without a sign, 2 with one
_KINDS = {1: "integers", 2: "integers with a sign", 3: "floats", 5: "complex integers", 6: "complex floats"}


def unread_tiff(file: IO[bytes]) -> str | None:
    """'floats of 32 bits, 3 a pixel', of a TIFF whose header is whole and whose values Pillow does not read; else None.

    Raises nothing for what is no TIFF, or a damaged one.
    """
    try:
        TiffImagePlugin.TiffImageFile(file)
    except SyntaxError as error:
        if str(error) != "unknown pixel mode":
            return None
    except Exception:
        return None
    with contextlib.suppress(Exception):
        file.seek(0)
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
        bits, kinds = tags[BITS], tags.get(SAMPLES, (1,))
        if len({*bits}) == len({*kinds}) == 1:
            return f"{_KINDS.get(kinds[0], 'values')} of {bits[0]} bits, {len(bits)} a pixel"
    return None
