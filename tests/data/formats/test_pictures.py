"""Pictures alone, in a folder or a list."""

from __future__ import annotations

from pathlib import Path

import pytest

from boresight.data import Problem, load_collection
from boresight.errors import InputError
from collection_files import put_pictures


def test_a_folder_of_pictures_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_pictures(tmp_path, ["train/b.png", "train/a.jpg", "val/a.jpg", ".hidden/c.png"])
    (tmp_path / "Thumbs.db").write_bytes(b"")
    (tmp_path / "phone.heic").write_bytes(b"")
    collection = load_collection(tmp_path)
    assert collection.ids == ["train/a.jpg", "train/b.png", "val/a.jpg"]
    assert collection.splits == ["train", "train", "validation"]
    assert collection.captions == [[], [], []]
    assert collection.texts == []
    assert collection.image(1).size == (4, 3)
    assert list(collection.problems) == [
        Problem("picture of a format that is not read", "phone.heic"),
        Problem("other file", "Thumbs.db"),
    ]
    assert "pictures and no captions: they can be embedded; editors and figures" in capsys.readouterr().err


@pytest.mark.parametrize("other", ["captions.txt", "labels.xlsx", "README.txt", "data.json", "captions.csv.gz"])
def test_what_may_hold_captions_must_be_waved_aside(other: str, tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png"])
    (tmp_path / other).write_text("[]")
    with pytest.raises(InputError, match=r"holds no captions.*format='pictures' embeds its 1 picture"):
        load_collection(tmp_path)
    assert load_collection(tmp_path, format="pictures").ids == ["a.png"]


def test_a_list_of_files(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png", "b.png"])
    files = [tmp_path / "b.png", str(tmp_path / "a.png"), tmp_path / "gone.png", tmp_path / "b.png"]
    collection = load_collection(files)
    assert collection.ids == [str(tmp_path / name) for name in ("b.png", "a.png")]
    assert list(collection.problems) == [
        Problem("missing file", str(tmp_path / "gone.png")),
        Problem("duplicate id", str(tmp_path / "b.png")),
    ]
    with pytest.raises(InputError, match=r"Nothing of the pictures can be used: .*2 missing files \(a dog, a cat\)"):
        load_collection(["a dog", "a cat"])
    with pytest.raises(InputError, match="cannot be read from list"):
        load_collection([])
