"""Every kind of picture becomes upright RGB, and what is damaged is refused with a sentence."""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin, TiffTags

from boresight.data.images import check_header, decode, is_picture, open_picture
from boresight.encoders.protocol import check_image
from boresight.errors import ArtefactError, InputError


def encoded(picture: Image.Image, format: str = "PNG", **options: object) -> dict[str, object]:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return {"bytes": buffer.getvalue(), "path": None}


def _tags(tags: dict[int, float]) -> TiffImagePlugin.ImageFileDirectory_v2:
    known = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        known[tag] = value
        if tag != 262:
            known.tagtype[tag] = TiffTags.FLOAT
    return known


def pixels(cell: dict[str, object]) -> np.ndarray:
    picture = decode(cell, "it")
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


def test_colour_grey_and_black_and_white() -> None:
    assert pixels(encoded(Image.new("RGB", (3, 2), (10, 20, 30)))).tolist() == [[[10, 20, 30]] * 3] * 2
    assert (pixels(encoded(Image.new("L", (3, 2), 77))) == 77).all()
    assert (pixels(encoded(Image.new("1", (3, 2), 1))) == 255).all()


def test_a_palette_keeps_its_colours_and_its_transparency_turns_white() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([200, 0, 0, 0, 0, 200])
    picture.putdata([0, 1])
    assert pixels(encoded(picture)).tolist() == [[[200, 0, 0], [0, 0, 200]]]
    assert pixels(encoded(picture, transparency=1)).tolist() == [[[200, 0, 0], [255, 255, 255]]]


def test_transparency_is_laid_over_white() -> None:
    assert pixels(encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 0)))).tolist() == [[[255, 255, 255]]]
    half = pixels(encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 128))))
    assert np.abs(half - 127).max() <= 1
    assert pixels(encoded(Image.new("LA", (1, 1), (9, 0)))).tolist() == [[[255, 255, 255]]]
    marked = encoded(Image.new("RGB", (1, 1), (1, 2, 3)), transparency=(1, 2, 3))
    assert pixels(marked).tolist() == [[[255, 255, 255]]]


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    grey = pixels(encoded(Image.fromarray(values)))[0, :, 0]
    assert grey.tolist() == [0, 1, 128, 255]
    range_of_16_bits = _tags({340: 0.0, 341: 65535.0})
    deep = pixels(encoded(Image.fromarray(values.astype(np.int32)), "TIFF", tiffinfo=range_of_16_bits))[0, :, 0]
    assert deep.tolist() == [0, 1, 128, 255]


def test_cmyk_becomes_the_colours_it_prints() -> None:
    red = pixels(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100))
    assert np.abs(red - [255, 0, 0]).max() <= 8


@pytest.mark.parametrize(
    ("orientation", "corner"), [(1, (0, 0)), (2, (0, -1)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))]
)
def test_exif_orientation_is_applied(orientation: int, corner: tuple[int, int]) -> None:
    picture = Image.new("RGB", (6, 4), "white")
    picture.putpixel((0, 0), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = pixels(encoded(picture, "PNG", exif=exif))
    assert turned.shape[:2] == ((6, 4) if orientation >= 5 else (4, 6))
    assert turned[corner].tolist() == [0, 0, 0]
    assert (turned == 0).sum() == 3


def test_broken_exif_does_not_cost_the_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new("RGB", (6, 4), "red"), "JPEG", exif=exif)["bytes"]
    start = data.index(b"Exif\0\0") + 6
    broken = data[:start] + b"XX" + data[start + 2 :]
    assert pixels({"bytes": broken, "path": None}).shape == (4, 6, 3)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.abs(pixels(gif) - [255, 0, 0]).max() <= 3


def test_a_picture_within_a_file_is_read_at_its_place(tmp_path: Path) -> None:
    data = encoded(Image.new("RGB", (2, 2), (1, 2, 3)))["bytes"]
    (tmp_path / "pack").write_bytes(b"before" + data + b"after")
    cell = {"bytes": None, "path": str(tmp_path / "pack"), "offset": 6, "size": len(data)}
    assert pixels(cell)[0, 0].tolist() == [1, 2, 3]
    with pytest.raises(InputError, match="picture of it is corrupt"):
        decode({**cell, "offset": 7}, "it")


def test_missing_and_damaged_pictures_are_named(tmp_path: Path) -> None:
    whole = encoded(Image.effect_noise((64, 64), 50), "JPEG")["bytes"]
    cases = {"empty.jpg": b"", "text.jpg": b"not a picture", "cut.jpg": whole[: len(whole) // 2]}
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=f"image 'x' is corrupt .* from .*{name}; drop or replace it"):
            decode({"bytes": None, "path": str(tmp_path / name)}, "image 'x'")
    with pytest.raises(InputError, match=r"file of image 'x' is missing: .*gone\.jpg"):
        decode({"bytes": None, "path": str(tmp_path / "gone.jpg")}, "image 'x'")
    with pytest.raises(InputError, match="from memory"):
        decode({"bytes": b"", "path": None}, "image 'x'")
    with pytest.raises(InputError, match="is corrupt"):
        decode({"bytes": None, "path": None}, "image 'x'")


_SAMPLES = [
    encoded(Image.effect_noise((24, 17), 60).convert(mode), format)["bytes"]
    for format, mode in (("PNG", "RGBA"), ("PNG", "P"), ("JPEG", "CMYK"), ("GIF", "P"), ("BMP", "RGB"), ("WEBP", "RGB"))
] + [encoded(Image.effect_noise((24, 17), 60), "TIFF", compression="tiff_lzw")["bytes"]]


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(_SAMPLES), st.data())
def test_damaged_bytes_never_raise_anything_else(sample: bytes, data: st.DataObject) -> None:
    damaged = bytearray(sample)
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(sample) - 1), st.integers(0, 255)), max_size=6)
    ):
        damaged[place] = value
    cell = {"bytes": bytes(damaged[: data.draw(st.integers(0, len(sample)))]), "path": None}
    try:
        outcome = decode(cell, "it").mode
    except InputError as error:
        outcome = str(error)
    assert outcome == "RGB" or "picture of it is corrupt" in outcome


@pytest.mark.parametrize(
    ("tags", "wanted"), [({}, [0, 128, 255]), ({262: 0}, [255, 127, 0]), ({340: -1.0, 341: 1.0}, [128, 191, 255])]
)
def test_floats_are_scaled_by_what_the_file_says(tags: dict[int, float], wanted: list[int]) -> None:
    values = np.array([[0, 0.5, 1]], dtype=np.float32)
    grey = pixels(encoded(Image.fromarray(values), "TIFF", tiffinfo=_tags(tags)))[0, :, 0]
    assert np.abs(grey - wanted).max() <= 1


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_whole_however_dark(format: str) -> None:
    dark = Image.fromarray(np.array([[0, 100, 200]], dtype=np.uint16))
    assert pixels(encoded(dark, format))[0, :, 0].tolist() == [0, 0, 1]


def test_sixteen_bits_whose_least_value_is_white_and_those_with_a_clear_value() -> None:
    picture = Image.fromarray(np.array([[0, 32896, 65535]], dtype=np.uint16))
    assert pixels(encoded(picture, "TIFF", tiffinfo=_tags({262: 0})))[0, :, 0].tolist() == [255, 127, 0]
    assert pixels(encoded(picture, transparency=0))[0, :, 0].tolist() == [255, 128, 255]


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_eight_bit_values_in_a_wider_type_stay_as_they_are(kind: type) -> None:
    values = np.array([[0, 7, 255]], dtype=kind)
    assert pixels(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 7, 255]
    assert np.asarray(open_picture(Image.fromarray(values)))[0, :, 0].tolist() == [0, 7, 255]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[0, 300.5]], np.float32), "floats from 0 to 300.5"),
        (np.array([[-1000, 3071]], np.int32), "integers from -1000 to 3071"),
        (np.array([[0, 1_000_000]], np.int32), "integers from 0 to 1e\\+06"),
        (np.array([[0, np.nan]], np.float32), "NaN or infinity"),
    ],
)
def test_values_whose_range_nobody_tells_are_refused_by_name(values: np.ndarray, reason: str, tmp_path: Path) -> None:
    Image.fromarray(values).save(tmp_path / "ct.tif")
    with pytest.raises(InputError, match=f"cannot be used, from .*ct.tif: .*{reason}"):
        decode({"path": str(tmp_path / "ct.tif")}, "image 'x'")
    with pytest.raises(InputError, match=f"opened image cannot be used, from .*ct.tif: .*{reason}"):
        open_picture(Image.open(tmp_path / "ct.tif"))


def _of_every_kind() -> dict[str, dict[str, object]]:
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (9, 14, 4), dtype=np.uint8), "RGBA")
    turned = Image.Exif()
    turned[0x0112] = 6
    plain = [("RGB", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("RGBA", "TIFF")]
    plain += [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF"), ("LAB", "TIFF"), ("RGBA", "WEBP"), ("RGB", "BMP")]
    plain += [("RGBA", "TGA"), ("RGBA", "ICO"), ("L", "PPM"), ("RGBA", "GIF"), ("RGBA", "JPEG2000"), ("I", "TIFF")]
    plain += [("RGB", "MPO")]
    cells = {
        f"{mode} {format}": encoded(
            noise.convert(mode) if mode != "LAB" else Image.frombytes("LAB", (14, 9), noise.convert("RGB").tobytes()),
            format,
        )
        for mode, format in plain
    }
    for format in ("JPEG", "PNG", "TIFF", "WEBP"):
        cells[f"turned {format}"] = encoded(noise.convert("RGB"), format, exif=turned)
    cells["turned and clear"] = encoded(noise, exif=turned)
    cells["palette with a clear colour"] = encoded(noise.convert("RGB").quantize(8), transparency=3)
    cells["16 bits"] = encoded(Image.fromarray(random.integers(0, 65536, (9, 14), dtype=np.uint16)))
    cells["floats"] = encoded(Image.fromarray(random.random((9, 14), dtype=np.float32)), "TIFF")
    frames = [noise.convert("RGB"), noise.rotate(180).convert("RGB")]
    for format in ("GIF", "PNG", "WEBP", "TIFF"):
        cells[f"animated {format}"] = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    return cells


@pytest.mark.parametrize(
    ("kind", "cell"), _of_every_kind().items(), ids=lambda one: one if isinstance(one, str) else ""
)
def test_a_picture_in_hand_is_treated_as_its_file(kind: str, cell: dict[str, object], tmp_path: Path) -> None:
    wanted = decode(cell, "it")
    assert wanted.mode == "RGB"
    assert kind != "animated GIF" or np.asarray(wanted).std() > 0
    (tmp_path / "file").write_bytes(cell["bytes"])
    for same in (tmp_path / "file", Image.open(tmp_path / "file"), wanted):
        assert np.array_equal(np.asarray(open_picture(same)), np.asarray(wanted))
        if isinstance(same, Image.Image):
            assert np.array_equal(np.asarray(check_image(same)), np.asarray(wanted))


def test_an_opened_picture_that_is_damaged_is_named(tmp_path: Path) -> None:
    whole = encoded(Image.effect_noise((64, 64), 50), "JPEG")["bytes"]
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"opened image is corrupt .*cut\.jpg"):
        check_image(Image.open(tmp_path / "cut.jpg"))


def test_every_picture_that_pillow_draws_is_taken_for_one() -> None:
    names = "a.JPG a.jfif a.tga a.avif a.jp2 a.ppm a.pgm a.ico a.psd a.mpo a.dib a.webp a.apng train/a.v2.Png"
    assert all(map(is_picture, names.split()))
    assert not any(map(is_picture, ["a.txt", "a.json", "a.pdf", "a.mpg", "a.h5", "a"]))


def test_the_file_system_failing_is_no_fault_of_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    cell = {"bytes": None, "path": str(tmp_path / "photos" / "a.png")}
    for shard in ({}, {"offset": 0, "size": 9}):  # an empty folder is a mount that dropped
        with pytest.raises(
            ArtefactError, match=r"file of image 'x' cannot be read now: .*a\.png .* run the same again"
        ):
            decode({**cell, **shard}, "image 'x'")
    (tmp_path / "photos" / "b.png").write_bytes(b"")
    with pytest.raises(InputError, match="is missing"):  # a file that went alone
        decode(cell, "image 'x'")
    with pytest.raises(ArtefactError, match="cannot be read now"):  # a shard that went takes many pictures along
        decode({**cell, "offset": 0, "size": 9}, "image 'x'")
    (tmp_path / "photos" / "b.png").unlink()
    (tmp_path / "photos").rmdir()
    with pytest.raises(ArtefactError, match=r"its folder .*photos is gone or empty"):
        decode(cell, "image 'x'")

    def failing(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("builtins.open", failing)
    with pytest.raises(ArtefactError, match=r"\(Input/output error\)"):
        decode(cell, "image 'x'")


def _tiff(values: np.ndarray, bits: int, kind: int, tags: dict[int, int] | None = None) -> dict[str, object]:
    """A TIFF of one row, written by hand: (W,) or (W, samples), of any `kind` of values; Pillow writes few of them."""
    samples = 1 if values.ndim == 1 else values.shape[1]
    plain = {256: len(values), 257: 1, 259: 1, 262: 1 if samples == 1 else 2, 277: samples, 278: 1, **(tags or {})}
    place = 8 + 2 + 12 * (len(plain) + 4) + 4  # of what is behind the directory
    many = b"".join(struct.pack(f"<{samples}H", *[one] * samples) for one in (bits, kind)) if samples > 1 else b""
    first = [(258, 3, samples, bits if samples == 1 else place), (339, 3, samples, kind if samples == 1 else 0)]
    if samples > 1:
        first[1] = (339, 3, samples, place + 2 * samples)
    data = values.tobytes()
    entries = [(tag, 8 if value < 0 else 4, 1, value & 0xFFFFFFFF) for tag, value in plain.items()]
    entries += [*first, (273, 4, 1, place + len(many)), (279, 4, 1, len(data))]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *one) for one in sorted(entries))
    return {"bytes": struct.pack("<2sHI", b"II", 42, 8) + directory + bytes(4) + many + data, "path": None}


def test_integers_without_a_sign_reach_beyond_two_thousand_million() -> None:
    values = np.array([0, 2**31, 2**32 - 1], "<u4")
    cell = _tiff(values, 32, 1, {340: 0, 341: 2**32 - 1})
    assert pixels(cell)[0, :, 0].tolist() == [0, 128, 255]


def test_eight_bits_with_a_sign_are_scaled_by_what_the_file_says_or_refused() -> None:
    values = np.array([-128, 0, 127], np.int8)
    assert pixels(_tiff(values, 8, 2, {340: -128, 341: 127}))[0, :, 0].tolist() == [0, 128, 255]
    assert pixels(_tiff(np.array([0, 7, 127], np.int8), 8, 2))[0, :, 0].tolist() == [0, 7, 127]
    with pytest.raises(InputError, match=r"cannot be used, .*integers from -128 to 127"):
        decode(_tiff(values, 8, 2), "it")


def test_twelve_bits_are_scaled_whole() -> None:
    assert pixels(_tiff(np.array([0x80, 0x00], np.uint8), 12, 1, {256: 1}))[0, 0].tolist() == [128] * 3


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("values", "bits", "kind", "said"),
    [
        (np.zeros((2, 3), "<f4"), 32, 3, "floats of 32 bits, 3 a pixel"),
        (np.zeros((2, 3), np.int8), 8, 2, "integers with a sign of 8 bits, 3 a pixel"),
        (np.zeros(2, "<f8"), 64, 3, "floats of 64 bits, 1 a pixel"),
    ],
)
def test_a_tiff_that_pillow_does_not_read_is_refused_by_what_it_holds(
    values: np.ndarray, bits: int, kind: int, said: str
) -> None:
    cell = _tiff(values, bits, kind)
    for look in (decode, check_header):
        with pytest.raises(InputError, match=f"picture of it cannot be used, .*a TIFF of {said}, which Pillow"):
            look(cell, "it")
    with pytest.raises(InputError, match="is corrupt"):  # of a cut one nobody knows
        decode({**cell, "bytes": cell["bytes"][:40]}, "it")


def _png(values: list[int], bits: int, clear: int | None, colour: int = 0) -> bytes:
    """A PNG of one row, written by hand: Pillow writes no grey of 2 and 4 bits."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    samples = 3 if colour else 1
    row = "".join(f"{value:0{bits}b}" for value in values)
    row += "0" * (-len(row) % 8)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", len(values) // samples, 1, bits, colour, 0, 0, 0))]
    parts += [] if clear is None else [(b"tRNS", struct.pack(">H", clear) * samples)]
    parts += [(b"IDAT", zlib.compress(b"\0" + int(row, 2).to_bytes(len(row) // 8, "big"))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_clear_value_of_grey_is_clear_at_any_depth(bits: int, tmp_path: Path) -> None:
    values = list(range(2**bits))
    for clear in (None, 0, 1, 2**bits - 1):
        data = _png(values, bits, clear)
        wanted = [255 if value == clear else value * 255 // (2**bits - 1) for value in values]
        assert pixels({"bytes": data, "path": None})[0, :, 0].tolist() == wanted
        opened = Image.open(io.BytesIO(data))
        for _ in range(2):  # once it is loaded, too
            assert np.asarray(open_picture(opened))[0, :, 0].tolist() == wanted


def test_a_clear_colour_of_sixteen_bits_is_refused() -> None:
    values = [0, 0, 0, 257, 257, 257]
    assert pixels({"bytes": _png(values, 16, None, colour=2)})[0, :, 0].tolist() == [0, 1]
    with pytest.raises(InputError, match=r"cannot be used, .*its clear colour has 16 bits"):
        decode({"bytes": _png(values, 16, 257, colour=2)}, "it")


def _is_none(cell: dict[str, object]) -> str:
    try:
        check_header(cell, "it")
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=100, deadline=None)
@given(st.sampled_from(_SAMPLES), st.data())
def test_the_first_bytes_of_a_picture_say_what_pillow_says_of_the_whole(sample: bytes, data: st.DataObject) -> None:
    """In memory, in a file of its own and within another, damaged or behind a long header."""
    damaged = bytearray(sample)
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=3)):
        damaged[place] = value
    whole = bytes(damaged[: data.draw(st.integers(0, len(sample)))])
    if data.draw(st.booleans()) and whole.startswith(b"\xff\xd8"):
        comment = b"\xff\xfe\xea\x60" + bytes(0xEA5E)
        whole = whole[:2] + comment + whole[2:]
    try:
        Image.open(io.BytesIO(whole))
        wanted = True
    except Exception:
        wanted = False
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"before" + whole + b"after")
        file.flush()
        cells = [{"bytes": whole}, {"path": file.name, "offset": 6, "size": len(whole)}]
        assert [not _is_none(cell) for cell in cells] == [wanted, wanted]
        file.seek(0)
        file.truncate()
        file.write(whole)
        file.flush()
        assert (not _is_none({"path": file.name})) == wanted
