"""Which splits `boresight embed` makes, and how its errors name options."""

from __future__ import annotations

from pathlib import Path

import pytest

from boresight.embeddings import Embeddings
from collection_files import put_pictures
from command_line import ENVIRONMENT, boresight, refused


def test_embed_says_which_splits_and_why_and_splits_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "BORESIGHT_QUIET", "")
    put_pictures(tmp_path / "photos", [f"{number}.png" for number in range(20)])
    rows = [f"{number}.png,word {number},{'train' if number < 15 else 'test'}\n" for number in range(20)]
    (tmp_path / "photos/any name.csv").write_text("image,caption,split\n" + "".join(rows))
    code, _, said = boresight("embed", "photos", "--out", "own", cwd=tmp_path)
    assert code == 0
    assert "Splits: train 15, test 5 images, as the source names them." in said
    code, _, said = boresight("embed", "photos", "--split-anew", "--out", "anew", cwd=tmp_path)
    assert code == 0
    assert "images, by a hash of each id, anew." in said
    assert "validation" in Embeddings.load(tmp_path / "anew").splits
    code, out, _ = boresight("evaluate", "own", "--split", "all", cwd=tmp_path)
    assert code == 0
    assert "plain, split 'all'" in out
    assert len(Embeddings.load(tmp_path / "own").split("all")) == 20

    (tmp_path / "photos/any name.csv").write_text(
        "image,caption\n" + "".join(row.rpartition(",")[0] + "\n" for row in rows)
    )
    code, _, said = boresight("embed", "photos", "--out", "none", cwd=tmp_path)
    assert code == 0
    assert "images, by a hash of each id, since the source names none." in said
    assert "leave --split-anew out" in refused("embed", "emoji", "--split-anew", "--out", "x", cwd=tmp_path)


def test_errors_name_options_as_they_are_typed(tmp_path: Path) -> None:
    put_pictures(tmp_path / "photos", ["a.png"])
    (tmp_path / "photos/captions.csv").write_text("bild,caption\na.png,one\ngone.png,two\n")
    said = refused("embed", "photos", "--out", "x", cwd=tmp_path)
    assert "has no known image column; name it with --image-column: 'bild', 'caption'" in said
    said = refused("embed", "photos", "--image-column", "bild", "--on-error", "refuse", "--out", "x", cwd=tmp_path)
    assert "or pass --on-error skip to leave them out" in said
    (tmp_path / "photos/image_column.csv").write_text("image,caption\na.png,one\n")
    assert "image_column.csv" in refused(
        "embed", "photos/image_column.csv", "--id-column", "i", "--out", "x", cwd=tmp_path
    )
