"""From the `image` cell of a collection, or a file, to an upright RGB picture: the only place that opens one."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from boresight.errors import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})


def is_picture(name: str) -> bool:
    """Whether a file of this name is taken for a picture."""
    return "." + name.rpartition(".")[2].lower() in SUFFIXES


def decode(source: Mapping[str, Any], label: str) -> Image.Image:
    """An RGB picture from an `image` cell, turned upright as its EXIF says; transparency is laid over white.

    16-bit grey values are scaled to 8 bits; of an animation the first frame is taken.
    Raises InputError naming `label` when the file is missing or corrupt.
    """
    with _explained(source, label):
        return decode_bytes(_read(source))


def decode_bytes(data: bytes) -> Image.Image:
    """As `decode`, from the bytes of a file; raises whatever Pillow raises on damaged ones."""
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return to_rgb(_upright(picture))


def open_picture(source: Image.Image | str | Path) -> Image.Image:
    """An RGB picture from a picture or a file, as `decode` makes it. Raises InputError naming a file it cannot read."""
    return to_rgb(source) if isinstance(source, Image.Image) else decode({"path": str(source)}, f"'{source}'")


def _read(source: Mapping[str, Any]) -> bytes:
    data = source.get("bytes")
    if data is not None:
        return data
    with open(source["path"], "rb") as handle:
        if source.get("offset") is None:
            return handle.read()
        handle.seek(source["offset"])
        return handle.read(source["size"])


@contextlib.contextmanager
def _explained(source: Mapping[str, Any], label: str) -> Iterator[None]:
    """Turns whatever goes wrong in reading one picture into an InputError."""
    origin = source.get("path") or "memory"
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"The file of {label} is missing: {origin}; restore it or drop the row.") from error
    # Decoders raise nearly anything on damaged bytes: struct.error, EOFError, IndexError, zlib.error and more.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise InputError(f"The picture of {label} is corrupt ({reason}), from {origin}; drop or replace it.") from error


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # broken EXIF is common and raises nearly anything; the pixels are whole
        return picture


def to_rgb(picture: Image.Image) -> Image.Image:
    """An RGB picture: transparency over white, 16-bit grey scaled to 8 bits."""
    if picture.mode.startswith("I"):
        # Pillow itself would clip 16-bit grey at 255, which makes nearly every such picture white.
        values = np.asarray(picture, dtype=np.float64)
        scale = 257 if picture.mode != "I" or values.max() > 255 else 1
        return Image.fromarray((values / scale).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def png(pixels: np.ndarray) -> bytes:
    """(H, W, 3) or (H, W) uint8 as PNG, fast rather than small."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()


def thumbnail(picture: Image.Image, size: int = 160) -> bytes:
    """A picture made small, `size` pixels at most each way, as the bytes of a WebP file."""
    small, data = picture.convert("RGB"), io.BytesIO()
    small.thumbnail((size, size))
    small.save(data, "WEBP", quality=80)
    return data.getvalue()
