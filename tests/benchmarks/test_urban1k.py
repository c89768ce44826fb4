"""Urban1k in both layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from boresight.benchmarks.registry import open_published
from collection_files import put_pictures
from published_files import content, put


@pytest.fixture(autouse=True)
def spoken(monkeypatch):
    monkeypatch.delenv("BORESIGHT_QUIET", raising=False)


@pytest.mark.parametrize(("above", "pictures"), [("Urban1k/", "image"), ("", "images")])
def test_urban1k_takes_the_first_line(above: str, pictures: str, tmp_path: Path) -> None:
    for number in (1, 10, 2):
        put(tmp_path / f"{above}caption/{number}.txt", f"Street {number}, long.\nsecond line\n")
    put_pictures(tmp_path / f"{above}{pictures}", ["1.jpg", "2.jpg", "10.jpg", "11.jpg"])
    collection = open_published("urban1k", tmp_path)
    assert list(content(collection).items()) == [(f"{n}.jpg", [f"Street {n}, long."]) for n in (1, 2, 10)]


def test_urban1k_as_flair_lays_it_out(tmp_path: Path) -> None:
    rows = [{"image_id": n, "image": f"{n}.jpg", "caption": f"Street {n}."} for n in (1, 2)]
    put(tmp_path / "annotations" / "annotations.json", json.dumps({"annotations": rows}))
    put_pictures(tmp_path / "images", ["1.jpg", "2.jpg"])
    assert content(open_published("urban1k", tmp_path)) == {"1.jpg": ["Street 1."], "2.jpg": ["Street 2."]}


def test_what_systems_leave_beside_files_is_not_read(tmp_path: Path) -> None:
    put(tmp_path / "caption" / "1.txt", "Street")
    (tmp_path / "caption" / "._1.txt").write_bytes(b"\0\5\x16\7\xff")
    put_pictures(tmp_path / "image", ["1.jpg"])
    assert content(open_published("urban1k", tmp_path)) == {"1.jpg": ["Street"]}
