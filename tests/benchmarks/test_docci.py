"""DOCCI, whole captions and by sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from boresight.benchmarks.registry import open_published
from collection_files import put_pictures
from published_files import content, lines, put


@pytest.fixture(autouse=True)
def spoken(monkeypatch):
    monkeypatch.delenv("BORESIGHT_QUIET", raising=False)


def test_docci_whole_and_by_sentence(tmp_path: Path, capsys) -> None:
    first = "A close view of a 3.5 m wall, by Dr. Lee. It is red\u2028and old!\nNo shade."
    rows = [
        {"split": "train", "example_id": "train_0", "image_file": "train_0.jpg", "description": "no"},
        {"split": "test", "example_id": "test_0", "image_file": "test_0.jpg", "description": first},
        {"split": "qual_test", "example_id": "q", "image_file": "q.jpg", "description": "no"},
        {"split": "test", "example_id": "test_1", "description": "One. Two."},
    ]
    lines(tmp_path / "docci_descriptions.jsonlines", rows)
    put_pictures(tmp_path / "images", ["test_0.jpg", "test_1.jpg", "train_0.jpg"])
    assert content(open_published("docci", tmp_path)) == {"test_0.jpg": [first], "test_1.jpg": ["One. Two."]}
    # As FLAIR cuts: through decimals and after "Dr", at no other mark, and pieces of two characters are dropped.
    parts = ["A close view of a 3", "5 m wall, by Dr", "Lee", "It is red\u2028and old!", "No shade"]
    assert content(open_published("docci-sentences", tmp_path)) == {"test_0.jpg": parts, "test_1.jpg": ["One", "Two"]}
    assert "2 images here, 5,000 as published" in capsys.readouterr().err

    annotations = [
        {"image_id": 1, "image": "images/test_1.jpg", "caption": "Two", "caption_id": 0},
        {"image_id": 0, "image": "images/test_0.jpg", "caption": "It is red", "caption_id": 1},
        {"image_id": 1, "image": "images/test_1.jpg", "caption": "One", "caption_id": 2},
        {"image_id": 1, "image": "images/test_1.jpg", "caption": "One", "caption_id": 3},
    ]
    put(tmp_path / "annotations" / "test_annotations.json", json.dumps({"annotations": annotations}))
    split = open_published("docci-sentences", tmp_path)
    assert content(split) == {"test_1.jpg": ["Two", "One", "One"], "test_0.jpg": ["It is red"]}
    assert "sentences as in" in capsys.readouterr().err
    assert len(open_published("docci", tmp_path).texts) == 2  # FLAIR's file is not for whole captions
