"""ImageInWords, its three parts and all together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from boresight.benchmarks.registry import open_published
from collection_files import put_pictures
from published_files import content, lines, published, put


@pytest.fixture(autouse=True)
def spoken(monkeypatch):
    monkeypatch.delenv("BORESIGHT_QUIET", raising=False)


def test_iiw_parts_name_their_pictures_differently(tmp_path: Path) -> None:
    lines(
        tmp_path / "datasets/IIW-400/data.jsonl", [{"image/key": "aar_test_04600", "IIW": "Aaa. Bbb.", "IIW-P5B": "no"}]
    )
    lines(tmp_path / "DCI_TEST/data.jsonl", [{"image": "sa_1.jpg", "ex_id": "1-data.json", "IIW": "Ccc\n\n\nDdd. "}])
    lines(tmp_path / "DOCCI_Test/data.jsonl", [{"image": "test_00731", "DOCCI": "no", "IIW": "It is 2.5 feet."}])
    put_pictures(tmp_path, ["docci_aar/aar_test_04600.jpg", "dci/sa_1.jpg", "docci/test_00731.jpg"])
    whole = {"aar_test_04600.jpg": ["Aaa. Bbb."], "sa_1.jpg": ["Ccc\n\n\nDdd."], "test_00731.jpg": ["It is 2.5 feet."]}
    split = {"aar_test_04600.jpg": ["Aaa", "Bbb"], "sa_1.jpg": ["Ccc", "Ddd"], "test_00731.jpg": ["It is 2", "5 feet"]}
    assert content(open_published("iiw", tmp_path)) == whole
    assert content(open_published("iiw-sentences", tmp_path)) == split
    for name, picture in (("iiw-400", "aar_test_04600.jpg"), ("iiw-dci", "sa_1.jpg"), ("iiw-docci", "test_00731.jpg")):
        assert content(open_published(name, tmp_path)) == {picture: whole[picture]}
        assert content(open_published(f"{name}-sentences", tmp_path)) == {picture: split[picture]}
    fine = [{"image_id": 0, "image": "docci_aar/aar_test_04600.jpg", "caption": text} for text in ("A", "B")]
    put(tmp_path / "test_annotations.json", json.dumps({"annotations": fine}))
    assert content(open_published("iiw-sentences", tmp_path)) == {"aar_test_04600.jpg": ["A", "B"]}
    assert content(open_published("iiw-400-sentences", tmp_path)) == {"aar_test_04600.jpg": ["Aaa", "Bbb"]}


def test_its_sentences_are_those_that_flair_published(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    shutil.copytree(published("imageinwords") / "datasets", ours / "datasets")
    file = published("flair") / "imageinwords" / "test_annotations.json"
    pictures = {entry["image"] for entry in json.loads(file.read_text())["annotations"]}
    for folder in (ours, theirs):
        put_pictures(folder, sorted(pictures))
    shutil.copy(file, theirs)
    found = [content(open_published("iiw-sentences", folder)) for folder in (ours, theirs)]
    assert sum(map(len, found[0].values())) == 6204
    assert {Path(name).name: texts for name, texts in found[0].items()} == {
        Path(name).name: texts for name, texts in found[1].items()
    }
