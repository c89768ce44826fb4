"""COCO captions in each layout in which they are published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from boresight.benchmarks.registry import open_published
from boresight.errors import InputError
from collection_files import put_pictures
from published_files import COCO, coco_captions, content, karpathy, put


@pytest.fixture(autouse=True)
def spoken(monkeypatch):
    monkeypatch.delenv("BORESIGHT_QUIET", raising=False)


def test_coco_in_its_three_files(tmp_path: Path) -> None:
    blip = [{"image": f"val2014/{name}", "caption": captions} for name, captions in COCO.items()]
    layouts = {
        "coco_karpathy_test.json": json.dumps(blip),
        "annotations/coco_test_karpathy.json": coco_captions(COCO),
        "dataset_coco.json": karpathy(COCO, "val2014", "cocoid"),
    }
    for number, (name, text) in enumerate(layouts.items()):
        for where in ("val2014", "images/val2014", "images"):
            folder = tmp_path / f"{number} {where.replace('/', ' ')}"
            put(folder / name, text)
            put_pictures(folder / where, COCO)
            for benchmark in ("coco-karpathy-5k", "coco-karpathy-1k"):
                collection = open_published(benchmark, folder)
                assert {key: sorted(value) for key, value in content(collection).items()} == COCO
                assert list(content(collection)) == list(COCO)  # the order that makes the folds
                assert (collection.splits, collection.problems) == (["test"] * 3, ())
                assert collection.name == benchmark
    put(tmp_path / "apart" / "coco_karpathy_test.json", layouts["coco_karpathy_test.json"])
    for images in (tmp_path / "0 val2014", tmp_path / "0 val2014" / "val2014", tmp_path / "0 images"):
        assert content(open_published("coco-karpathy-5k", tmp_path / "apart", images=images)) == COCO


@pytest.mark.parametrize("above", ["", "annotations/"])
def test_coco_val2017_is_another_5k(above: str, tmp_path: Path, capsys) -> None:
    put(tmp_path / f"{above}captions_val2017.json", coco_captions({"000000000139.jpg": ["a", "b"]}))
    put_pictures(tmp_path / "val2017", ["000000000139.jpg"])
    collection = open_published("coco-val2017", tmp_path)
    assert content(collection) == {"000000000139.jpg": ["b", "a"]}
    assert collection.splits == ["test"]
    said = capsys.readouterr().err
    assert "COCO val2017 5k (not Karpathy's): 1 images here, 5,000 as published." in said
    assert "2 captions here, 25,014 as published" in said
    with pytest.raises(InputError, match=r"Karpathy test 5k needs coco_karpathy_test.json"):
        open_published("coco-karpathy-5k", tmp_path)
