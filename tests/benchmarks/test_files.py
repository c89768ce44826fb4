"""Files of published benchmarks: what is found, and what is said of what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from boresight.benchmarks.files import PublishedFiles
from boresight.errors import InputError


def toy(folder: Path) -> PublishedFiles:
    return PublishedFiles(folder, "Toy", "https://example.org/toy")


def test_the_first_that_exists(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "toy.json").write_text('\ufeff{"a": 1}')
    file = toy(tmp_path).find("toy.json", "b/toy.json")
    assert toy(tmp_path).read_json(file) == {"a": 1}
    assert toy(tmp_path).find_optional("toy.json", "b/toy.json") == file
    assert toy(tmp_path).find_optional("toy.json", "b") is None


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"Toy needs toy.json \(nor b/toy.json\).*published at https://example.org/toy"
    ):
        toy(tmp_path).find("toy.json", "b/toy.json")
    with pytest.raises(InputError, match=r"There is no folder .*nowhere"):
        toy(tmp_path / "nowhere").find("toy.json")
    (tmp_path / "torn.json").write_text('{"a": ')
    with pytest.raises(InputError, match=r"torn.json cannot be read as json .* get it anew for Toy"):
        toy(tmp_path).read_json(tmp_path / "torn.json")
