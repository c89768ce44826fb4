"""From the `image` cell of a collection, or a file, to an upright RGB picture: the only place that opens one."""

from __future__ import annotations

import base64
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
from boresight.data.tiff import BITS, SAMPLES, unread_tiff
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
UPLOADS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""Formats of Pillow that are read of a stranger: those that browsers send."""
_ORIENTATION = 0x0112  # of EXIF
# Most pictures begin so. Pillow reads their headers from the front and nothing behind them.
_MAGIC = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n"}
_SCALED = {"L;2": 85, "L;4": 17}  # of PNG: grey of 2 and 4 bits, and what makes 8 of them
_HEAD = 1 << 14  # bytes that most headers are within, profile of colours and all
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


def decode(source: Mapping[str, Any], label: str, most_pixels: int | None = None) -> Image.Image:
    """An RGB picture from an `image` cell, as `to_rgb` makes it; of an animation the first frame is taken.

    Raises InputError naming `label` when the file is missing, corrupt, does not say what its values mean, or says in
    its header that it has more than `most_pixels`; ArtefactError when the file system fails, since what cannot be read
    now is not a bad picture.
    """
    data = _read(source, label)
    with _explained(label, source.get("path") or "memory"):
        return decode_bytes(data, source.get("orientation"), most_pixels)


def decode_upload(data: bytes, most_pixels: int) -> Image.Image:
    """As `decode`, of a stranger's file: of the formats in `UPLOADS` alone, its size read before it is decoded.

    Raises InputError, too, where it is of another format.
    """
    with _explained("the upload", "memory"):
        return to_rgb(_small_enough(Image.open(io.BytesIO(data), formats=UPLOADS), most_pixels))


def check_header(source: Mapping[str, Any], label: str) -> None:
    """Raises as `decode` does for what the header of a picture shows: that it is missing, or is none."""
    with contextlib.suppress(Exception):  # nearly anything, as in `_explained`; the whole file shows what is wrong
        head = _head(source)
        kind = next((name for name, magic in _MAGIC.items() if head.startswith(magic)), None)
        if kind is not None:
            Image.open(io.BytesIO(head), formats=[kind])
            return
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
            _opened(file)


def _head(source: Mapping[str, Any]) -> bytes:
    """The first bytes of a picture, of one in memory all; in one read, since each waits for the other threads."""
    if (data := source.get("bytes")) is not None:
        return data
    most = _HEAD if source.get("offset") is None else min(_HEAD, source["size"])
    handle = os.open(source["path"], os.O_RDONLY)
    try:
        return os.pread(handle, most, source.get("offset") or 0)
    finally:
        os.close(handle)


def _opened(file: IO[bytes]) -> Image.Image:
    """What Pillow opens. Raises InputError for a whole TIFF of values that it does not read, naming them."""
    try:
        return Image.open(file)
    except UnidentifiedImageError:
        file.seek(0)
        what = unread_tiff(file)
        if what is None:
            raise
    raise InputError(f"it is a TIFF of {what}, which Pillow does not read; save it with 8 bits without a sign.")


def decode_bytes(data: bytes, orientation: int | None = None, most_pixels: int | None = None) -> Image.Image:
    """As `decode`, from the bytes of a file; raises whatever Pillow or pydicom raises on damaged ones.

    `orientation` is EXIF's number, for a file that lost its own.
    """
    picture = dicom.draw_dicom(data) if dicom.is_dicom(data) else _opened(io.BytesIO(data))
    if most_pixels is not None:
        _small_enough(picture, most_pixels)
    if orientation is not None:
        with contextlib.suppress(Exception):  # broken EXIF, see `_upright`
            picture.getexif().setdefault(_ORIENTATION, orientation)
    return to_rgb(picture)


def _small_enough(picture: Image.Image, most_pixels: int) -> Image.Image:
    width, height = picture.size
    if width * height > most_pixels:
        raise InputError(f"it has {width:,} x {height:,} pixels; {most_pixels:,} at most are read")
    return picture


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
    path = os.fspath(source)
    if not os.path.exists(path) and _is_filled(os.path.dirname(os.path.abspath(path))):
        raise InputError(f"The file '{path}' is missing; check the path.")
    return decode({"path": path}, f"'{path}'")


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
    if alone and _is_filled(folder):
        return InputError(f"The file of {label} is missing: {path}; restore it or drop the row.")
    # A mount that dropped, a disk that fails, a right that was lost: the next picture fares no better.
    gone = f"its folder {folder} is gone or empty" if alone else error.strerror
    return ArtefactError(
        f"The file of {label} cannot be read now: {path} ({gone}); bring it back, then run the same again."
    )


def _is_filled(folder: str) -> bool:
    """False for a folder that is gone or empty, as the place of a mount is once it drops."""
    try:
        return bool(os.listdir(folder))
    except OSError:
        return False


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
    scaled: 16 bits whole, floats, 32-bit integers and those with a sign by the range that a TIFF gives
    (`boresight.data.grey.range_of`). Raises InputError for values whose range is not known, for a clear colour that
    Pillow loses, and whatever Pillow raises on damaged pictures.
    """
    tags = getattr(picture, "tag_v2", {})  # of a TIFF; like the format, they do not outlast being turned
    sixteen = picture.mode.startswith("I;16") or picture.format in ("PNG", "PPM")  # these in mode 'I' too
    tiles = getattr(picture, "tile", ())  # empty once it is loaded
    stored = tiles[0].args if picture.format == "PNG" and tiles else ""
    picture = _upright(picture)
    clear = picture.info.get("transparency")
    if clear is not None and stored in _SCALED:  # Pillow scales the values and not the one that is clear
        clear = picture.info["transparency"] = clear * _SCALED[stored]
    elif clear is not None and stored == "RGB;16B":
        raise InputError("its clear colour has 16 bits, of which Pillow reads 8; save it with 8 bits or with alpha.")
    signed = picture.mode == "L" and tags.get(SAMPLES) == (2,)
    if picture.mode[0] in "IF" or signed:
        # Pillow itself would clip at 255, which makes nearly every 16-bit picture white and those of 0 to 1 black.
        values = np.asarray(picture)
        if signed:  # which Pillow takes away
            values = values.view(np.int8)
        elif tags.get(BITS) == (32,) and tags.get(SAMPLES, (1,)) == (1,):  # without a sign, which Pillow gives them
            values = values.view(np.uint32)
        grey = eight_bits(values, range_of(values, tags, sixteen=sixteen and picture.mode != "F"))
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


def embedded(data: bytes, kind: str) -> str:
    """The address of a picture, the bytes of a file of that kind, that stands in the page itself."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
