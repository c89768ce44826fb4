"""Pictures of emoji: on white, rendered once."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from boresight.data.worlds.emoji import npm
from boresight.data.worlds.emoji import pictures as emoji_pictures
from boresight.errors import InputError


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def test_pictures_are_laid_on_white_made_square_and_resized() -> None:
    pixels = np.zeros((10, 20, 4), np.uint8)
    pixels[:, 10:] = (200, 0, 0, 255)
    picture = np.array(Image.open(io.BytesIO(emoji_pictures._on_white(png(pixels), 20))))
    assert picture.shape == (20, 20, 3)
    assert (picture[:, :8] == 255).all()
    assert (picture[:3] == 255).all()
    assert (picture[8:12, 12:] == (200, 0, 0)).all()


@pytest.fixture
def icons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packages with one drawing, black on its left half, and its mirrored alias."""
    package = tmp_path / "modules" / "@iconify-json" / "noto"
    package.mkdir(parents=True)
    body = '<path fill="#000" d="M0 0h4v8H0z"/>'
    aliases = {"right": {"parent": "left", "hFlip": True}, "turned": {"parent": "left", "rotate": 1}}
    (package / "icons.json").write_text(
        json.dumps({"icons": {"left": {"body": body}}, "aliases": aliases, "width": 8, "height": 8})
    )
    (package / "chars.json").write_text(json.dumps({"1F448": "left", "1f449": "right", "1f44a": "turned"}))
    monkeypatch.setattr(npm, "install_emoji_packages", lambda cache: tmp_path / "modules")
    return tmp_path / "cache"


def test_drawings_are_rendered_once_and_again_when_the_file_is_torn(icons: Path) -> None:
    pytest.importorskip("resvg_py", reason="the extra [emoji] is not installed")
    icons.mkdir()
    table = emoji_pictures.load_pictures("noto", 16, icons)
    pictures = {
        code: np.array(Image.open(io.BytesIO(image)))
        for code, image in zip(table["code"].to_pylist(), table["image"].to_pylist(), strict=True)
    }
    assert set(pictures) == {"1f448", "1f449"}
    assert (pictures["1f448"][:, :7] == 0).all()
    assert (pictures["1f448"][:, 9:] == 255).all()
    assert (pictures["1f449"] == pictures["1f448"][:, ::-1]).all()
    [file] = icons.iterdir()
    written = file.stat().st_mtime_ns
    assert emoji_pictures.load_pictures("noto", 16, icons).equals(table)
    assert file.stat().st_mtime_ns == written
    for damage in (file.read_bytes()[:-20], b"", file.read_bytes()[:60] + b"\xff" * 40 + file.read_bytes()[100:]):
        file.write_bytes(damage)
        assert emoji_pictures.load_pictures("noto", 16, icons).equals(table)
        assert pa.parquet.read_table(file).equals(table)


def test_a_missing_rasteriser_names_the_extra(icons: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(InputError, match=r"install it with pip install 'boresight\[emoji\]'"):
        emoji_pictures.load_pictures("noto", 16, icons)
