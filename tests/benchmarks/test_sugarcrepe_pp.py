"""SugarCrepe++, on files written by hand in its published layout, and on the published ones where they are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import datasets
import pytest

from boresight.benchmarks.job import BenchmarkJob
from boresight.benchmarks.registry import run_benchmark
from boresight.benchmarks.sugarcrepe_pp import GROUPS, read_sugarcrepe_pp
from boresight.data import Problem
from boresight.editing import CaptionEditor
from boresight.errors import InputError
from boresight.evaluation.contrasts import Contrast, Picture
from collection_files import put_pictures
from published_files import published, write
from tiny_editor import TINY_EDITOR


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setenv("BORESIGHT_QUIET", "1")


def crepe(filename: str, one: str = "a dog", two: str = "one dog", false: str = "a cat") -> dict[str, object]:
    return {"id": 0, "filename": filename, "caption": one, "caption2": two, "negative_caption": false}


def put_files(folder: Path, **rows: list) -> None:
    for group in GROUPS:
        write(folder / f"{group}.json", rows.get(group, [crepe("000000000139.jpg")]))


@pytest.mark.parametrize("below", ["", "data"])
def test_two_right_captions_and_a_wrong_one(below: str, tmp_path: Path) -> None:
    put_pictures(tmp_path / "val2017", ["000000000139.jpg", "000000000285.jpg"])
    rows = [crepe("000000000285.jpg", "a bear ", "it is a bear", "no bear"), crepe("000000000632.jpg")]
    put_files(tmp_path / below, replace_rel=rows)
    items = read_sugarcrepe_pp(tmp_path)
    assert (items.name, items.published) == ("SugarCrepe++", 4757)
    assert Counter(item.group for item in items.items) == dict.fromkeys(GROUPS, 1)
    assert list(items.problems) == [Problem("missing file", "000000000632.jpg")]
    picture = Picture("000000000285.jpg", str(tmp_path / "val2017" / "000000000285.jpg"))
    assert items.items[-1] == Contrast(picture, ("a bear", "it is a bear", "no bear"), (0, 1), "replace_rel")


def test_bad_files(tmp_path: Path) -> None:
    put_files(tmp_path)
    with pytest.raises(InputError, match=r"Nothing of SugarCrepe.* 5 missing files .*pass `images`, the folder of"):
        read_sugarcrepe_pp(tmp_path)
    put_pictures(tmp_path, ["000000000139.jpg"])
    (tmp_path / "swap_att.json").unlink()
    with pytest.raises(InputError, match=r"needs swap_att.json .*github.com/Sri-Harsha/scpp"):
        read_sugarcrepe_pp(tmp_path)
    for content, said in (
        ({"0": crepe("000000000139.jpg")}, "swap_att.json holds an object, as SugarCrepe's file of that name does"),
        ([crepe("000000000139.jpg", two=" ")], "row 0 of .*swap_att.json has no 'caption2'"),
        ("[", "swap_att.json cannot be read as json"),
    ):
        write(tmp_path / "swap_att.json", content)
        with pytest.raises(InputError, match=said):
            read_sugarcrepe_pp(tmp_path)


def test_a_run_has_both_tasks(encoder, scenes, tmp_path: Path) -> None:
    (tmp_path / "val2017").mkdir()
    for row in range(2):
        scenes.image(row).save(tmp_path / "val2017" / f"{row}.jpg")
    put_files(tmp_path, **{group: [crepe(f"{row}.jpg", false="a dog") for row in (0, 1)] for group in GROUPS})
    job = BenchmarkJob(encoder=encoder, data=tmp_path, out=tmp_path / "run", editor=CaptionEditor.load(TINY_EDITOR))
    run = run_benchmark("sugarcrepe-pp", job)
    names = [*GROUPS, "macro accuracy", "micro accuracy"]
    assert list(run.scores["edited"]) == [f"image-to-text {name}" for name in names]
    assert list(run.scores["plain"]) == [f"{task} {name}" for task in ("image-to-text", "text-only") for name in names]
    assert set(run.scores["plain"].values()) == {0.0}  # the wrong caption is the first right one: a tie is a miss
    assert run.facts["items, not as published"] == "10 of 4,757"
    assert run.facts["chance"] == "33.3"


def test_the_published_files(tmp_path: Path) -> None:
    folder = published("sugar-crepe-pp")
    rows = {group: json.loads((folder / f"{group}.json").read_text("utf-8")) for group in GROUPS}
    put_pictures(tmp_path, {row["filename"] for of_group in rows.values() for row in of_group})
    items = read_sugarcrepe_pp(folder, images=tmp_path)
    assert (len(items), list(items.problems)) == (4757, [])
    assert Counter(item.group for item in items.items) == {
        "swap_obj": 245,
        "swap_att": 666,
        "replace_obj": 1652,
        "replace_att": 788,
        "replace_rel": 1406,
    }
    captions = [item.captions for item in items.items]
    assert sum(one == false or two == false for one, two, false in captions) == 2  # no model can be right
    assert sum(one == two for one, two, _ in captions) == 1  # no encoder of texts can be wrong
