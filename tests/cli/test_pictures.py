"""Pictures without captions from the command line."""

from __future__ import annotations

from pathlib import Path

from boresight.embeddings import Embeddings
from collection_files import put_pictures
from command_line import boresight, refused


def test_a_folder_of_pictures_alone_is_embedded(tmp_path: Path) -> None:
    put_pictures(tmp_path / "photos", ["a.png", "b.png", "c.png"])
    code, out, _ = boresight("embed", tmp_path / "photos", "--out", "run", cwd=tmp_path)
    assert code == 0
    assert "3 images and 0 captions" in out
    embeddings = Embeddings.load(tmp_path / "run")
    assert embeddings.ids == ["a.png", "b.png", "c.png"]
    assert set(embeddings.splits) == {"all"}
    assert embeddings.texts.shape == (0, embeddings.width)
    said = refused("evaluate", "run", "--split", "all", cwd=tmp_path)
    assert "has pictures without captions, and retrieval asks with captions" in said
