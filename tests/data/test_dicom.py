"""DICOM as pictures: the real files that pydicom ships against its own steps, and what a file may say of itself."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import boresight as bs
from boresight.data import Problem
from boresight.data.images import decode, open_picture
from boresight.errors import InputError
from encoder_fixtures import default_fixture  # noqa: F401

pydicom = pytest.importorskip("pydicom", reason="needs the extra [dicom]")
from pydicom.data import get_testdata_file  # noqa: E402
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def shipped(name: str) -> str:
    file = get_testdata_file(name, download=False)
    assert file is not None
    return file


def changed(name: str, change: Callable[[Any], None]) -> np.ndarray:
    """(H, W) grey values of a shipped file of which something was changed."""
    file = pydicom.dcmread(shipped(name))
    change(file)
    out = io.BytesIO()
    file.save_as(out)
    return np.asarray(decode({"bytes": out.getvalue()}, "it"))[..., 0]


@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_RLE.dcm", "693_J2KI.dcm", "examples_overlay.dcm"])
def test_rescaling_and_window_are_those_of_the_file(name: str) -> None:
    file = pydicom.dcmread(shipped(name))
    wanted = apply_voi_lut(apply_modality_lut(pixel_array(file), file), file).astype(float)
    low = -(2 ** (file.BitsStored - 1)) if file.PixelRepresentation else 0  # what pydicom maps a window to
    ends = np.array([low, low + 2**file.BitsStored - 1]) * file.get("RescaleSlope", 1) + file.get("RescaleIntercept", 0)
    wanted = (wanted - ends[0]) / (ends[1] - ends[0]) * 255
    picture = open_picture(shipped(name))
    assert picture.mode == "RGB"
    assert np.abs(np.asarray(picture)[..., 0] - wanted).max() <= 0.51


@pytest.mark.parametrize("name", ["CT_small.dcm", "JPEG2000.dcm", "rtdose_1frame.dcm"])
def test_without_a_window_deep_values_run_from_the_least_to_the_greatest(name: str) -> None:
    file = pydicom.dcmread(shipped(name))
    values = apply_modality_lut(pixel_array(file), file).astype(float)
    wanted = (values - values.min()) / (values.max() - values.min()) * 255
    assert np.abs(np.asarray(open_picture(shipped(name)))[..., 0] - wanted).max() <= 0.51


def test_padding_does_not_count_among_the_values() -> None:
    def pad(file: Any) -> None:
        pixels = pixel_array(file).copy()
        pixels[:40] = file.PixelPaddingValue
        file.PixelData = pixels.tobytes()

    plain = np.asarray(open_picture(shipped("CT_small.dcm")))[..., 0]
    padded = changed("CT_small.dcm", pad)
    assert (padded[:40] == 0).all()
    assert np.abs(padded[40:].astype(int) - plain[40:]).max() <= 12  # not squeezed by -2000


def test_eight_bits_colours_palettes_and_frames() -> None:
    eight = np.asarray(open_picture(shipped("image_dfl.dcm")))[..., 0]
    assert np.array_equal(eight, pixel_array(pydicom.dcmread(shipped("image_dfl.dcm"))))
    assert set(np.unique(np.asarray(open_picture(shipped("liver_1frame.dcm"))))) == {0, 255}
    eight, sixteen = (
        np.asarray(open_picture(shipped(name))).astype(int) for name in ("SC_rgb_rle.dcm", "SC_rgb_rle_16bit.dcm")
    )
    assert np.abs(eight - sixteen).max() <= 1
    first, both = (np.asarray(open_picture(shipped(f"SC_rgb_rle{end}.dcm"))) for end in ("", "_2frame"))
    assert np.array_equal(first, both)
    assert np.asarray(open_picture(shipped("examples_palette.dcm"))).std(axis=(0, 1)).min() > 10
    file = pydicom.dcmread(shipped("examples_ybr_color.dcm"))
    assert np.array_equal(np.asarray(open_picture(file.filename)), pixel_array(file, index=0))


def test_monochrome1_is_inverted() -> None:
    plain = np.asarray(open_picture(shipped("MR_small.dcm")))[..., 0].astype(int)

    def invert(file: Any) -> None:
        file.PhotometricInterpretation = "MONOCHROME1"

    assert np.abs(changed("MR_small.dcm", invert) - (255 - plain)).max() <= 1


def _one(value: float, function: str, centre: float, width: float) -> float:
    """The standard, PS3.3 C.11.2.1.2 and C.11.2.1.3, for one value, in 0..255."""
    if function == "SIGMOID":
        return 255 / (1 + np.exp(-4 * (value - centre) / width))
    if function == "LINEAR":
        share = (value - (centre - 0.5)) / (width - 1) + 0.5
    else:
        share = (value - centre) / width + 0.5
    return 255 * min(max(share, 0), 1)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("enhanced", [False, True])
def test_the_form_of_the_window_wherever_it_stands(function: str, enhanced: bool) -> None:
    def window(file: Any) -> None:
        del file.WindowCenter, file.WindowWidth
        said, scaled = pydicom.Dataset(), pydicom.Dataset()
        said.WindowCenter, said.WindowWidth, said.VOILUTFunction = [150, 9], [300, 9], function
        scaled.RescaleSlope, scaled.RescaleIntercept = 0.5, -100
        if not enhanced:
            file.update(said)
            file.update(scaled)
            return
        shared, frame = pydicom.Dataset(), pydicom.Dataset()
        shared.PixelValueTransformationSequence = [scaled]
        frame.FrameVOILUTSequence = [said]
        file.SharedFunctionalGroupsSequence, file.PerFrameFunctionalGroupsSequence = [shared], [frame]

    raw = pixel_array(pydicom.dcmread(shipped("MR_small.dcm"))) * 0.5 - 100
    wanted = np.array([[_one(value, function, 150, 300) for value in row] for row in raw])
    assert np.abs(changed("MR_small.dcm", window) - wanted).max() <= 0.51


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("what", ["VOILUTSequence", "ModalityLUTSequence"])
def test_tables_have_a_place_for_every_value(what: str, bits: int) -> None:
    """1,000 entries from 200 on: more than 8 bits count, where pydicom 3.0 itself begins anew after 256."""
    entries = (np.arange(1000) * (2**bits - 1) // 999)[::-1]

    def table(file: Any) -> None:
        entry = pydicom.Dataset()
        entry.LUTDescriptor = [1000, 200, bits]
        entry.LUTData = entries.astype("<u2").tobytes()
        file[what] = pydicom.DataElement(what, "SQ", [entry])
        if what == "ModalityLUTSequence":
            file.WindowCenter, file.WindowWidth, file.VOILUTFunction = 2**bits / 2, 2**bits, "LINEAR_EXACT"

    raw = pixel_array(pydicom.dcmread(shipped("MR_small.dcm"))).astype(int)
    wanted = entries[(raw - 200).clip(0, 999)] / (2**bits - 1) * 255
    assert np.abs(changed("MR_small.dcm", table) - wanted).max() <= (0.51 if what == "VOILUTSequence" else 1.51)


def test_files_that_cannot_be_drawn_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"rtplan\.dcm: it is a DICOM file without pixels \(modality RTPLAN\)"):
        open_picture(shipped("rtplan.dcm"))
    with pytest.raises(InputError, match=r"its pixels cannot be unpacked \(Unable to decompress 'JPEG-LS .* pyjpegls"):
        open_picture(shipped("JPEGLSNearLossless_16.dcm"))
    with pytest.raises(InputError, match=r"MR_truncated\.dcm' is corrupt"):
        open_picture(shipped("MR_truncated.dcm"))
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(InputError, match=r"needs the package pydicom 3 .*; run: pip install 'boresight\[dicom\]'"):
        open_picture(shipped("MR_small.dcm"))


def test_scans_are_embedded_and_explained(default: Any, tmp_path: Path) -> None:
    names = ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm")
    for name in names:
        (tmp_path / name).write_bytes(Path(shipped(name)).read_bytes())
    (tmp_path / "captions.csv").write_text("file_name,text\n" + "".join(f"{name},a scan\n" for name in names))
    scans = bs.load_collection(tmp_path, check_images=True)
    assert scans.ids == list(names[:2])
    assert isinstance(scans.problems[0], Problem)
    assert scans.problems[0].what == "unusable image"
    run = bs.embed(default, scans, dtype="float32")
    answer = bs.explain(default, tmp_path / "MR_small.dcm", "a scan", method="grad-cam")
    texts = default.embed_texts(["a scan"])
    assert float(answer.score[0]) == pytest.approx(float(run.images[1] @ texts[0]), abs=1e-5)
