"""SugarCrepe, on files written by hand in its published layout."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import datasets
import pytest

from boresight.benchmarks.job import BenchmarkJob
from boresight.benchmarks.registry import run_benchmark
from boresight.benchmarks.sugarcrepe import GROUPS, read_sugarcrepe
from boresight.data import Problem
from boresight.errors import InputError
from boresight.evaluation.contrasts import Contrast, Picture
from collection_files import put_pictures
from published_files import write


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setenv("BORESIGHT_QUIET", "1")


def crepe(filename: str, true: str = "a dog", false: str = "a cat") -> dict[str, str]:
    return {"filename": filename, "caption": true, "negative_caption": false}


def put_sugarcrepe(folder: Path, **rows: dict) -> None:
    for group in GROUPS:
        write(folder / f"{group}.json", rows.get(group, {"0": crepe("000000000139.jpg")}))


def test_sugarcrepe_with_gaps_in_its_keys_and_a_picture_missing(tmp_path: Path) -> None:
    put_pictures(tmp_path / "val2017", ["000000000139.jpg", "000000000285.jpg"])
    rows = {
        "0": crepe("000000000139.jpg"),
        "2": crepe("000000000285.jpg", "a bear ", "no bear"),
        "17": crepe("000000000632.jpg"),
    }
    put_sugarcrepe(tmp_path / "data", swap_obj=rows)
    found = read_sugarcrepe(tmp_path)
    assert found.name == "SugarCrepe"
    assert Counter(item.group for item in found.items) == {**dict.fromkeys(GROUPS, 1), "swap_obj": 2}
    assert found.items[-1] == Contrast(
        Picture("000000000285.jpg", str(tmp_path / "val2017" / "000000000285.jpg")),
        ("a bear", "no bear"),
        0,
        "swap_obj",
    )
    assert list(found.problems) == [Problem("missing file", "000000000632.jpg")]
    assert found.items[-1].picture.open().getpixel((0, 0)) == (1, 0, 0)
    assert (found.fewest, found.outside_macro) == (1, frozenset())


def test_sugarcrepe_pictures_elsewhere(tmp_path: Path) -> None:
    put_sugarcrepe(tmp_path / "texts")
    with pytest.raises(
        InputError, match=r"Nothing of SugarCrepe .* 7 missing files .*pass `images`, the folder of COCO"
    ):
        read_sugarcrepe(tmp_path / "texts")
    put_pictures(tmp_path / "coco" / "val2017", ["000000000139.jpg"])
    assert len(read_sugarcrepe(tmp_path / "texts", tmp_path / "coco" / "val2017")) == 7
    assert len(read_sugarcrepe(tmp_path / "texts", tmp_path / "coco")) == 7
    with pytest.raises(InputError, match=r"image folder .*nowhere does not exist"):
        read_sugarcrepe(tmp_path / "texts", tmp_path / "nowhere")


def test_bad_sugarcrepe(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["000000000139.jpg"])
    put_sugarcrepe(tmp_path)
    (tmp_path / "swap_att.json").unlink()
    with pytest.raises(InputError, match=r"SugarCrepe needs swap_att.json .*github.com/RAIVNLab/sugar-crepe"):
        read_sugarcrepe(tmp_path)
    for content, said in (
        ('{"0": {"file', "swap_att.json cannot be read as json"),
        ([crepe("000000000139.jpg")], "swap_att.json holds a list at its top and not what it is published with"),
        ({"5": {"filename": "000000000139.jpg", "caption": "a"}}, "row 5 of .*swap_att.json has no 'negative_caption'"),
        ({"5": crepe("000000000139.jpg", "  ")}, "row 5 of .*swap_att.json has no 'caption'"),
        ({"5": "a dog"}, "row 5 of .*swap_att.json has no 'caption'"),
    ):
        write(tmp_path / "swap_att.json", content)
        with pytest.raises(InputError, match=said):
            read_sugarcrepe(tmp_path)


def test_less_than_was_published_is_recorded(encoder, scenes, tmp_path: Path) -> None:
    (tmp_path / "val2017").mkdir()
    for row in range(2):
        scenes.image(row).save(tmp_path / "val2017" / f"{row}.jpg")
    (tmp_path / "val2017" / "1.jpg").write_bytes(b"torn")
    row = {"caption": "a red ring", "negative_caption": "a blue ring"}
    for group in GROUPS:
        rows = {str(n): {"filename": f"{n}.jpg", **row} for n in (0, 1)} if group != "add_att" else {}
        (tmp_path / f"{group}.json").write_text(json.dumps(rows))
    job = BenchmarkJob(encoder=encoder, data=tmp_path, out=tmp_path / "run", workers=0)
    facts = run_benchmark("sugarcrepe", job).facts
    assert facts["items"] == "6"
    assert facts["items, not as published"] == "6 of 7,511"
    assert facts["left out"] == "6 x unreadable picture"
