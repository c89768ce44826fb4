"""Winoground, on files written by hand in its published layouts."""

from __future__ import annotations

import io
import json
from pathlib import Path

import datasets
import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature

from boresight.benchmarks.winoground import read_winoground
from boresight.data import Problem
from boresight.errors import InputError
from collection_files import picture, put_pictures
from published_files import write


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setenv("BORESIGHT_QUIET", "1")


def winoground(number: int, **changes: object) -> dict:
    row = {
        "id": number,
        "image_0": f"ex_{number}_img_0",
        "image_1": f"ex_{number}_img_1",
        "caption_0": f"{number} plants near a lamp",
        "caption_1": f"a lamp near {number} plants",
        "tag": "Object",
    }
    return {**row, **changes}


@pytest.mark.parametrize("below", ["", "data"])
def test_winoground_lines(tmp_path: Path, below: str) -> None:
    lines = "\n".join(json.dumps(winoground(number)) for number in (0, 1, 400))
    write(tmp_path / below / "examples.jsonl", lines + "\n\n")
    with pytest.raises(InputError, match=r"Nothing of Winoground .* unpack images.zip beside examples.jsonl"):
        read_winoground(tmp_path)
    names = ["ex_0_img_0", "ex_0_img_1", "ex_1_img_1", "ex_400_img_0", "ex_400_img_1"]
    put_pictures(tmp_path / below / "images", [f"{name}.png" for name in names])
    found = read_winoground(tmp_path)
    assert [(item.group, item.true, item.picture.name) for item in found.items] == [
        ("0", 0, "ex_0_img_0"),
        ("0", 1, "ex_0_img_1"),
        ("400", 0, "ex_400_img_0"),
        ("400", 1, "ex_400_img_1"),
    ]
    assert {item.captions for item in found.items[:2]} == {("0 plants near a lamp", "a lamp near 0 plants")}
    assert list(found.problems) == [Problem("missing file", "images/ex_1_img_0.png")]
    assert found.items[3].picture.open().getpixel((0, 0)) == (4, 0, 0)


def test_winoground_parquet(tmp_path: Path) -> None:
    rows = [winoground(number) for number in (0, 1)]
    for number, row in enumerate(rows):
        for side in (0, 1):
            row[f"image_{side}"] = {"bytes": picture((10 * number + side, 0, 0)), "path": None}
    features = Features(
        {
            **{key: Value("string") for key in ("caption_0", "caption_1", "tag")},
            **{key: ImageFeature() for key in ("image_0", "image_1")},
            "id": Value("int32"),
        }
    )
    (tmp_path / "data").mkdir()
    Dataset.from_list(rows, features=features).to_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
    found = read_winoground(tmp_path)
    assert [item.picture.open().getpixel((0, 0))[0] for item in found.items] == [0, 1, 10, 11]
    assert [(item.group, item.true) for item in found.items] == [("0", 0), ("0", 1), ("1", 0), ("1", 1)]
    assert found.items[2].captions == ("1 plants near a lamp", "a lamp near 1 plants")
    assert len({item.picture.name for item in found.items}) == 4
    (tmp_path / "default").mkdir()
    (tmp_path / "data").rename(tmp_path / "default" / "test")  # as the hub converts it
    assert len(read_winoground(tmp_path)) == 4


def test_bad_winoground(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"Winoground needs examples.jsonl .*huggingface.co/datasets/facebook/winoground"
    ):
        read_winoground(tmp_path)
    write(tmp_path / "examples.jsonl", '{"id": 0')
    with pytest.raises(InputError, match=r"line 1 of .*examples.jsonl is no json"):
        read_winoground(tmp_path)
    write(tmp_path / "examples.jsonl", json.dumps(winoground(0, caption_1=None)))
    with pytest.raises(InputError, match=r"line 1 of .*examples.jsonl has no 'caption_1'"):
        read_winoground(tmp_path)
    Dataset.from_list([{"image_0": b"", "caption_0": "a"}]).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(InputError, match="have no column 'image_1'"):
        read_winoground(tmp_path)
    (tmp_path / "test.parquet").write_bytes(io.BytesIO(b"PAR1 torn").getvalue())
    with pytest.raises(InputError, match=r"No parquet file of .* can be read"):
        read_winoground(tmp_path)
