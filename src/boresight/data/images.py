"""From the `image` cell of a collection, or a file, to an upright RGB picture: the only place that opens one."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from boresight.data import dicom
from boresight.data.grey import eight_bits, range_of
from boresight.errors import ArtefactError, InputError

_NOT_PICTURES = {
    "BUFR",
    "EPS",
    "GRIB",
    "HDF5",
    "IPTC",
    "MPEG",
    "PALM",
    "PDF",
    "WMF",
}  # named by Pillow, not drawn by it
_UNREAD = {".heic", ".heif", ".jxl", ".svg", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".raf", ".rw2"}
_ORIENTATION = 0x0112  # of EXIF
_BITS, _SAMPLES = 258, 339  # tags of TIFF: BitsPerSample, and SampleFormat, 1 for integers without a sign
_IN_WORDS = {
    "Mirrored horizontal": 2,
    "Rotated 180": 3,
    "Mirrored vertical": 4,
    "Mirrored horizontal then rotated 90 CCW": 5,
    "Rotated 90 CW": 6,
    "Mirrored horizontal then rotated 90 CW": 7,
    "Rotated 90 CCW": 8,
}


class UnusablePicture(InputError):
    """A picture that is not damaged, and yet nothing says how to draw it here; its sentence says why."""


@functools.cache
def suffixes() -> frozenset[str]:
    """Of DICOM, and of what Pillow draws, with their dot; a plugin of its counts if it was there at the first call."""
    known = Image.registered_extensions().items()
    return dicom.SUFFIXES | {suffix for suffix, name in known if name not in _NOT_PICTURES}


def is_picture(name: str) -> bool:
    """Whether a file of this name is taken for a picture."""
    return suffix_of(name) in suffixes()


def is_unread_picture(name: str) -> bool:
    """Whether a file of this name holds a picture, and of a format that Pillow does not draw here."""
    return suffix_of(name) in _UNREAD and not is_picture(name)


def suffix_of(name: str) -> str:
    """'.jpg' of 'A.JPG'."""
    return "." + name.rpartition(".")[2].lower()


def decode(source: Mapping[str, Any], label: str) -> Image.Image:
    """An RGB picture from an `image` cell, as `to_rgb` makes it; of an animation the first frame is taken.

    Raises InputError naming `label` when the file is missing, corrupt or does not say what its values mean;
    ArtefactError when the file system fails, since what cannot be read now is not a bad picture.
    """
    data = _read(source, label)
    with _explained(label, source.get("path") or "memory"):
        return decode_bytes(data, source.get("orientation"))


def check_header(source: Mapping[str, Any], label: str) -> None:
    """Raises as `decode` does for what the header of a picture shows: that it is missing, or is none."""
    path = source.get("path")
    if not path or source.get("bytes") is not None or source.get("offset") is not None:
        file: IO[bytes] = io.BytesIO(_read(source, label))
    else:
        try:
            file = open(path, "rb")  # noqa: SIM115
        except OSError as error:
            raise _unread(error, path, label, alone=True) from error
    with file, _explained(label, path or "memory"):
        if not dicom.is_dicom(file.read(132)):
            file.seek(0)
            Image.open(file)


def decode_bytes(data: bytes, orientation: int | None = None) -> Image.Image:
    """As `decode`, from the bytes of a file; raises whatever Pillow or pydicom raises on damaged ones.

    `orientation` is EXIF's number, for a file that lost its own.
    """
    picture = dicom.draw_dicom(data) if dicom.is_dicom(data) else Image.open(io.BytesIO(data))
    if orientation is not None:
        with contextlib.suppress(Exception):  # broken EXIF, see `_upright`
            picture.getexif().setdefault(_ORIENTATION, orientation)
    return to_rgb(picture)


def orientation_in(exif: object) -> int | None:
    """EXIF's number for what img2dataset keeps of a picture's EXIF, a json of tags in words; None where it is upright.

    img2dataset writes pictures as they lie on the sensor and without EXIF.
    """
    try:
        tags = json.loads(exif) if isinstance(exif, str) else exif
    except ValueError:
        return None
    words = tags.get("Image Orientation") if isinstance(tags, Mapping) else None
    return _IN_WORDS.get(str(words))


def open_picture(source: Image.Image | str | os.PathLike[str]) -> Image.Image:
    """An RGB picture from a picture or a file, as `to_rgb` makes it. Raises as `decode` does, naming the file."""
    if isinstance(source, Image.Image):
        with _explained("an opened image", getattr(source, "filename", "") or "memory"):
            return to_rgb(source)
    if not os.path.exists(source):
        raise InputError(f"The file '{source}' is missing; check the path.")
    return decode({"path": os.fspath(source)}, f"'{source}'")


def _read(source: Mapping[str, Any], label: str) -> bytes:
    path, data = source.get("path"), source.get("bytes")
    if data is not None or not path:
        return data or b""
    try:
        with open(path, "rb") as handle:
            if source.get("offset") is None:
                return handle.read()
            handle.seek(source["offset"])
            return handle.read(source["size"])
    except OSError as error:
        raise _unread(error, path, label, alone=source.get("offset") is None) from error


def _unread(error: OSError, path: str, label: str, *, alone: bool) -> InputError | ArtefactError:
    """What to raise where a file cannot be read; `alone` where it holds one picture."""
    folder = os.path.dirname(os.path.abspath(path))
    alone = alone and isinstance(error, FileNotFoundError)
    if alone and os.path.isdir(folder) and os.listdir(folder):
        return InputError(f"The file of {label} is missing: {path}; restore it or drop the row.")
    # A mount that dropped, a disk that fails, a right that was lost: the next picture fares no better.
    gone = f"its folder {folder} is gone or empty" if alone else error.strerror
    return ArtefactError(
        f"The file of {label} cannot be read now: {path} ({gone}); bring it back, then run the same again."
    )


@contextlib.contextmanager
def _explained(label: str, origin: str) -> Iterator[None]:
    """Turns whatever goes wrong in decoding one picture into an InputError."""
    try:
        yield
    except InputError as error:
        raise UnusablePicture(f"The picture of {label} cannot be used, from {origin}: {error}") from error
    # Decoders raise nearly anything on damaged bytes: struct.error, EOFError, IndexError, zlib.error and more.
    except Exception as error:
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "no kind of picture that Pillow reads" if unknown else str(error) or type(error).__name__
        raise InputError(f"The picture of {label} is corrupt ({reason}), from {origin}; drop or replace it.") from error


def to_rgb(picture: Image.Image) -> Image.Image:
    """An RGB picture: the one treatment that every picture gets, from a file or in hand, before a model sees it.

    It is turned upright as its EXIF says and transparency is laid over white. Grey values of more than 8 bits are
    scaled: 16 bits whole, floats and 32-bit integers by the range that a TIFF gives (`boresight.data.grey.range_of`).
    Raises InputError for values whose range is not known, and whatever Pillow raises on damaged pictures.
    """
    tags = getattr(picture, "tag_v2", {})  # of a TIFF; like the format, they do not outlast being turned
    sixteen = picture.mode.startswith("I;16") or picture.format in ("PNG", "PPM")  # these in mode 'I' too
    picture = _upright(picture)
    if picture.mode[0] in "IF":
        # Pillow itself would clip at 255, which makes nearly every 16-bit picture white and those of 0 to 1 black.
        values = np.asarray(picture)
        if tags.get(_BITS) == (32,) and tags.get(_SAMPLES, (1,)) == (1,):  # without a sign, which Pillow gives them
            values = values.view(np.uint32)
        grey = eight_bits(values, range_of(values, tags, sixteen=sixteen and picture.mode != "F"))
        clear = picture.info.get("transparency")  # of a 16-bit PNG, the value that is none
        return Image.fromarray(grey if clear is None else np.where(values == clear, np.uint8(255), grey)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _upright(picture: Image.Image) -> Image.Image:
    picture.load()
    try:
        turned = picture.getexif().get(_ORIENTATION, 1) != 1
        return ImageOps.exif_transpose(picture) if turned else picture
    except Exception:  # broken EXIF is common and raises nearly anything; the pixels are whole
        return picture


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
