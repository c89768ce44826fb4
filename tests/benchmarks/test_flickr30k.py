"""Flickr30k in each layout in which it is published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from boresight.benchmarks.registry import open_published
from boresight.errors import InputError
from collection_files import put_pictures
from published_files import FLICKR, content, karpathy, published, put


@pytest.fixture(autouse=True)
def spoken(monkeypatch):
    monkeypatch.delenv("BORESIGHT_QUIET", raising=False)


def test_flickr_in_its_three_files(tmp_path: Path) -> None:
    plain = "".join(f"{name},{caption}\n" for name, captions in FLICKR.items() for caption in captions)
    blip = [{"image": f"flickr30k-images/{name}", "caption": captions} for name, captions in FLICKR.items()]
    layouts = {
        "flickr30k_test.json": json.dumps(blip),
        "flickr30k_test_karpathy.txt": "image,caption\n" + plain + "\n",
        "annotations/dataset_flickr30k.json": karpathy(FLICKR, None, "imgid"),
    }
    for number, (name, text) in enumerate(layouts.items()):
        for where in ("flickr30k-images", "Images", ""):
            folder = tmp_path / f"{number} {where}"
            put(folder / name, text)
            put_pictures(folder / where, FLICKR)
            assert content(open_published("flickr30k-1k", folder)) == FLICKR
    put(tmp_path / "bare" / "flickr30k_test_karpathy.txt", plain)  # without the header no caption may be lost
    put_pictures(tmp_path / "bare", FLICKR)
    assert content(open_published("flickr30k-1k", tmp_path / "bare")) == FLICKR
    put(tmp_path / "bare" / "flickr30k_test_karpathy.txt", plain + "no picture\n")
    with pytest.raises(InputError, match=r"line 11 of .*karpathy.txt is not of the form 'x.jpg,caption'; get it anew"):
        open_published("flickr30k-1k", tmp_path / "bare")


def test_all_of_flickr_is_never_the_1k(tmp_path: Path, capsys) -> None:
    rows = [f"{name}#{k}\t{caption}\n" for name, captions in FLICKR.items() for k, caption in enumerate(captions)]
    put(tmp_path / "results_20130124.token", "".join(rows))
    put_pictures(tmp_path / "flickr30k-images", FLICKR)
    assert content(open_published("flickr30k-all", tmp_path)) == FLICKR
    assert "10 captions here, 158,915 as published" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"Karpathy test 1k needs flickr30k_test.json"):
        open_published("flickr30k-1k", tmp_path)
    put(tmp_path / "results_20130124.token", "a.jpg,caption\n")
    with pytest.raises(InputError, match=r"line 1 of .*token is not of the form"):
        open_published("flickr30k-all", tmp_path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "results_20130124.token").write_bytes(b"a.jpg#0\t\xff\xfe\n")
    with pytest.raises(InputError, match="token cannot be read as UTF-8"):
        open_published("flickr30k-all", tmp_path)


def test_the_validation_split_of_flair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = published("flair/flickr30k-images")
    rows = json.loads((folder / "flickr30k_val.json").read_text(encoding="utf-8"))
    put(tmp_path / "flickr30k-images" / "flickr30k_val.json", json.dumps(rows))
    put_pictures(tmp_path, [row["image"] for row in rows])
    collection = open_published("flickr30k-val", tmp_path)
    assert (len(collection), len(collection.texts)) == (1014, 5070)
    assert collection.captions[0] == rows[0]["caption"]
    assert "as published" not in capsys.readouterr().err
    with pytest.raises(InputError, match=r"Karpathy test 1k needs flickr30k_test.json"):
        open_published("flickr30k-1k", tmp_path)
