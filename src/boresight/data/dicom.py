"""DICOM files as pictures, shown as the file says: rescaled, windowed, inverted; the extra `[dicom]` reads them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from boresight.data.grey import Range, eight_bits
from boresight.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

SUFFIXES = frozenset({".dcm", ".dicom"})


def is_dicom(data: bytes) -> bool:
    """Whether these bytes of a file are of DICOM."""
    return data[128:132] == b"DICM"


def draw_dicom(data: bytes) -> Image.Image:
    """The first frame, grey or RGB.

    Stored values go through the file's rescaling (slope and intercept, or table), then its first window or table of
    grey values; MONOCHROME1 is inverted. Where the file names no window, 8 bits are taken whole, and deeper values from
    their least to their greatest, padding aside.

    Raises InputError without pydicom, for a file that holds no pixels, and for a compression that nothing here undoes;
    whatever pydicom raises on damaged files.
    """
    try:
        import pydicom
        from pydicom.pixels import apply_color_lut, pixel_array
    except ImportError as error:
        raise InputError(
            f"it is a DICOM file, which needs the package pydicom 3 ({error}); run: pip install 'boresight[dicom]'."
        ) from error
    file = pydicom.dcmread(io.BytesIO(data))
    if not any(name in file for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise InputError(f"it is a DICOM file without pixels (modality {file.get('Modality', 'not named')}).")
    try:
        pixels = pixel_array(file, index=0)
    except (RuntimeError, NotImplementedError) as error:  # of missing decoders, a line for each
        raise InputError(f"its pixels cannot be unpacked ({' '.join(str(error).split())}).") from error
    if file.PhotometricInterpretation == "PALETTE COLOR":
        colours = apply_color_lut(pixels, file)[..., :3]
        return Image.fromarray(eight_bits(colours, (0, np.iinfo(colours.dtype).max)))
    if file.SamplesPerPixel > 1:
        return Image.fromarray(eight_bits(pixels, (0, 2**file.BitsStored - 1)))
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):  # of an enhanced file
        for group in file.get(groups, ())[:1]:
            file.update({each.tag: each for part in group if part.VR == "SQ" and part.value for each in part.value[0]})
    values = _rescaled(pixels, file)
    own = values[pixels != file.get("PixelPaddingValue")]
    whole = (values is pixels and file.BitsStored <= 8) or not own.size
    grey, (black, white) = _shown(values, file, (0, 2**file.BitsStored - 1) if whole else _ends(own))
    inverted = file.PhotometricInterpretation == "MONOCHROME1"
    return Image.fromarray(eight_bits(grey, (white, black) if inverted else (black, white)))


def _rescaled(pixels: np.ndarray, file: Dataset) -> np.ndarray:
    """Stored values in the unit that the file gives them; `pixels` itself where it gives none."""
    if file.get("ModalityLUTSequence"):
        return _looked_up(pixels, file, file.ModalityLUTSequence[0])[0]
    if "RescaleSlope" in file and "RescaleIntercept" in file:
        return pixels * float(file.RescaleSlope) + float(file.RescaleIntercept)
    return pixels


def _looked_up(values: np.ndarray, file: Dataset, table: Dataset) -> tuple[np.ndarray, int]:
    """Values through a table of the file, and its greatest entry: the bits it names are often those it is stored in.

    pydicom's own `apply_voi` counts positions in 8 bits where the entries have 8, and so starts anew after 256.
    """
    count, first, _ = table.LUTDescriptor
    entries = table.LUTData
    if isinstance(entries, bytes):  # two bytes an entry, or one
        order, wide = "<" if file.original_encoding[1] else ">", len(entries) > (count or 2**16)
        entries = np.frombuffer(entries, f"{order}u{1 + wide}")
    places = np.clip(values.astype(np.int64) - first, 0, len(entries) - 1)
    return np.asarray(entries)[places], max(1, int(np.max(entries)))


def _shown(values: np.ndarray, file: Dataset, unsaid: Range) -> tuple[np.ndarray, Range]:
    """(H, W) values as the first table or window puts them, and which of them are black and white."""
    from pydicom.multival import MultiValue

    if file.get("VOILUTSequence"):
        grey, most = _looked_up(values, file, file.VOILUTSequence[0])
        return grey, (0, most)
    centre, width = (
        float(value[0] if isinstance(value, MultiValue) else value) if value not in (None, "") else None
        for value in (file.get("WindowCenter"), file.get("WindowWidth"))
    )
    if centre is None or width is None:
        return values, unsaid
    function = file.get("VOILUTFunction") or "LINEAR"
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - centre) / width)), (0, 1)
    if function == "LINEAR":
        centre, width = centre - 0.5, max(width - 1, 1e-6)
    return values, (centre - width / 2, centre + width / 2)


def _ends(values: np.ndarray) -> Range:
    least, most = float(values.min()), float(values.max())
    return least, max(most, least + 1e-6)
