"""Urban1k in both layouts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from boresight.benchmarks.job import BenchmarkJob
from boresight.benchmarks.registry import open_published, run_benchmark
from collection_files import put_pictures
from published_files import content, published, put


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


def test_a_picture_with_an_empty_caption_stays_in_the_gallery(
    encoder, scenes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"image_id": n, "image": f"{n}.jpg", "caption": f"Street {n}." if n != 2 else ""} for n in range(4)]
    put(tmp_path / "annotations" / "annotations.json", json.dumps({"annotations": rows}))
    (tmp_path / "images").mkdir()
    for n in range(4):
        scenes.image(n).save(tmp_path / f"images/{n}.jpg")
    collection = open_published("urban1k", tmp_path)
    assert collection.captions == [["Street 0."], ["Street 1."], [], ["Street 3."]]
    said = capsys.readouterr().err
    assert "4 images, 1 of them without a caption" in said
    assert "4 captions here, 1,000 as published" in said
    run = run_benchmark("urban1k", BenchmarkJob(encoder=encoder, data=tmp_path, out=tmp_path / "run", workers=0))
    assert (run.facts["images"], run.facts["captions"]) == ("4, 1 without a caption", "3")


def test_the_published_annotations_of_flair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = published("flair/Urban1k")
    shutil.copytree(folder / "annotations", tmp_path / "annotations")
    put_pictures(tmp_path / "images", [f"{n}.jpg" for n in range(1, 1001)])
    collection = open_published("urban1k", tmp_path)
    assert (len(collection), len(collection.texts)) == (1000, 999)
    assert [collection.ids[row] for row, captions in enumerate(collection.captions) if not captions] == ["592.jpg"]
    said = capsys.readouterr().err
    assert "1,000 images, 1 of them without a caption" in said
    assert "as published" not in said


def test_what_systems_leave_beside_files_is_not_read(tmp_path: Path) -> None:
    put(tmp_path / "caption" / "1.txt", "Street")
    (tmp_path / "caption" / "._1.txt").write_bytes(b"\0\5\x16\7\xff")
    put_pictures(tmp_path / "image", ["1.jpg"])
    assert content(open_published("urban1k", tmp_path)) == {"1.jpg": ["Street"]}
