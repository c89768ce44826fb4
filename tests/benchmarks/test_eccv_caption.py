"""ECCV Caption and CxC, on files written by hand in their layout, and on the published ones where they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from boresight.benchmarks.eccv_caption import SETS, more_answers, read_test
from boresight.benchmarks.files import PublishedFiles
from boresight.benchmarks.job import BenchmarkJob
from boresight.benchmarks.registry import open_published, run_benchmark
from boresight.editing import CaptionEditor, PlainScorer
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from collection_files import put_pictures
from published_files import published, write
from tiny_editor import TINY_EDITOR

MEASURES = [
    *(f"CxC {direction} R@{k}" for direction in ("T2I", "I2T") for k in (1, 5, 10)),
    *(f"ECCV {direction} {name}" for direction in ("T2I", "I2T") for name in ("R@1", "R-Precision", "mAP@R")),
]


def put_files(folder: Path, images: int, *, data: str = "data") -> None:
    """`images` test images, numbers 70, 71, ..., the last first, and one more; image 70 + i has captions 10 i + 0..4.

    A sixth caption of each is not among the queries, as in COCO. By CxC a caption fits its own image and the next; by
    ECCV Caption image 70 has all captions numbered 0 to 4, 10 and the sixth of image 71, and caption 0 images 70, 71.
    """
    numbers = range(70, 71 + images)
    captions = [
        {"id": 10 * (number - 70) + each, "image_id": number, "caption": f"scene {number}, {each}"}
        for number in numbers
        for each in range(6)
    ]
    names = [{"id": number, "file_name": f"COCO_val2014_{number:012}.jpg"} for number in numbers]
    write(folder / "annotations" / "captions_val2014.json", {"images": names, "annotations": captions[::-1]})
    tests = {number: [10 * (number - 70) + each for each in range(5)] for number in range(69 + images, 69, -1)}
    (folder / data).mkdir(parents=True, exist_ok=True)
    np.save(folder / data / "coco_test_ids.npy", [caption for of_image in tests.values() for caption in of_image])
    cxc = {
        caption: [70 + caption // 10, 70 + (caption // 10 + 1) % images] for each in tests.values() for caption in each
    }
    write(folder / data / "cxc_caption_to_image.json", {str(caption): own for caption, own in cxc.items()})
    write(folder / data / "cxc_image_to_caption.json", {str(number): own for number, own in tests.items()})
    write(folder / data / "eccv_caption_to_image.json", {"0": [70, 71]})
    write(folder / data / "eccv_image_to_caption.json", {"70": [0, 1, 2, 3, 4, 10, 15]})


@pytest.mark.parametrize("data", ["", "data", "eccv_caption/data"])
def test_five_captions_of_each_test_image(data: str, tmp_path: Path) -> None:
    put_files(tmp_path, 3, data=data)
    put_pictures(tmp_path / "val2014", [f"COCO_val2014_{number:012}.jpg" for number in (70, 71, 72)])
    collection = open_published("eccv-caption", tmp_path)
    assert collection.ids == ["72", "71", "70"]
    assert collection.captions[0] == [f"scene 72, {each}" for each in range(5)]
    assert (collection.splits, collection.problems) == (["test"] * 3, ())


def test_a_run_beside_its_rivals(encoder, scenes, tmp_path: Path) -> None:
    put_files(tmp_path, 3)
    (tmp_path / "val2014").mkdir()
    for number in (70, 71, 72):
        scenes.image(number - 70).save(tmp_path / "val2014" / f"COCO_val2014_{number:012}.jpg")
    job = BenchmarkJob(encoder=encoder, data=tmp_path, out=tmp_path / "run", editor=CaptionEditor.load(TINY_EDITOR))
    run = run_benchmark("eccv-caption", job)
    assert {"plain", "edited"} < run.scores.keys()
    for values in run.scores.values():
        assert list(values)[6:] == MEASURES
        assert values["CxC I2T R@5"] >= values["CxC I2T R@1"]
        assert values["ECCV I2T R-Precision"] <= 100 * 6 / 7  # the seventh answer is in no gallery
    assert run.verdict is not None
    assert run.facts["images, not as published"] == "3 of 5,000"
    assert run.facts["captions, not as published"] == "15 of 25,000"


def test_a_missing_picture_takes_its_answers_along(tmp_path: Path) -> None:
    """They count in R and are not found."""
    put_files(tmp_path, 3)
    rows = torch.eye(3)[[0, 1]]
    embeddings = Embeddings.from_arrays(rows, rows.repeat_interleave(5, 0), [0] * 5 + [1] * 5, ids=["72", "70"])
    figures = more_answers(PublishedFiles(tmp_path, "ECCV Caption", ""), embeddings)(PlainScorer())
    assert figures["ECCV T2I R@1"] == 100
    assert figures["ECCV T2I R-Precision"] == 50
    assert figures["ECCV I2T R-Precision"] == pytest.approx(100 * 5 / 7)
    assert figures["CxC T2I R@1"] == 100


def test_bad_files(tmp_path: Path) -> None:
    put_files(tmp_path, 2)
    put_pictures(tmp_path, ["COCO_val2014_000000000070.jpg"])
    files = PublishedFiles(tmp_path, "ECCV Caption", "https://")
    embeddings = Embeddings.from_arrays(torch.eye(1), torch.ones(5, 1), [0] * 5, ids=["70"])
    np.save(tmp_path / "data" / "coco_test_ids.npy", [0, 1, 99])
    with pytest.raises(InputError, match=r"coco_test_ids.npy names the caption 99, which captions_val2014.json lacks"):
        list(read_test(files))
    np.save(tmp_path / "data" / "coco_test_ids.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(InputError, match=r"coco_test_ids.npy is no list of numbers"):
        list(read_test(files))
    np.save(tmp_path / "data" / "coco_test_ids.npy", range(5))
    write(tmp_path / "data" / "eccv_image_to_caption.json", {"70": "all"})
    with pytest.raises(InputError, match=r"eccv_image_to_caption.json has an entry that is not numbers by number"):
        more_answers(files, embeddings)
    (tmp_path / "data" / "cxc_image_to_caption.json").unlink()
    with pytest.raises(InputError, match=r"needs cxc_image_to_caption.json"):
        more_answers(files, embeddings)
    write(tmp_path / "annotations" / "captions_val2014.json", {"images": [], "annotations": [{"id": 1}]})
    with pytest.raises(InputError, match=r"captions_val2014.json is not COCO's"):
        list(read_test(files))


def recall(found: dict[int, list[int]], right: dict[str, list[int]], k: int) -> float:
    return float(np.mean([bool({*found[int(query)][:k]} & {*answers}) for query, answers in right.items()]))


def at_r(found: dict[int, list[int]], right: dict[str, list[int]]) -> tuple[float, float]:
    """R-Precision and mAP@R as the paper words them, of rankings by query."""
    precisions, means = [], []
    for query, answers in right.items():
        hits = np.isin(found[int(query)][: len(answers)], answers)
        precisions.append(hits.mean())
        means.append((hits * hits.cumsum() / np.arange(1, len(hits) + 1)).sum() / len(answers))
    return float(np.mean(precisions)), float(np.mean(means))


def test_the_published_files(tmp_path: Path) -> None:
    """Counts of their publisher, and every figure of a noisy model against rankings that are written out."""
    folder = published("eccv_caption")
    right = {file.stem: json.loads(file.read_text("utf-8")) for file in folder.glob("*.json")}
    order = np.load(folder / "coco_test_ids.npy").tolist()
    owner = {int(caption): image for caption, (image,) in right["original_caption_to_image"].items()}
    names = {image: f"COCO_val2014_{image:012}.jpg" for image in owner.values()}
    annotations = [{"id": caption, "image_id": owner[caption], "caption": f"{caption}"} for caption in order]
    coco = {"images": [{"id": image, "file_name": name} for image, name in names.items()], "annotations": annotations}
    write(tmp_path / "captions_val2014.json", coco)
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    put_names = tmp_path / "val2014"
    put_names.mkdir()
    put_pictures(put_names, ["one.jpg"])
    for name in names.values():
        (put_names / name).hardlink_to(put_names / "one.jpg")
    collection = open_published("eccv-caption", tmp_path)
    assert SETS[0].differs(len(collection), len(collection.texts)) == {}
    assert [int(text) for text in collection.texts] == order
    assert (len(right["eccv_caption_to_image"]), len(right["eccv_image_to_caption"])) == (1332, 1261)
    assert (len(right["cxc_caption_to_image"]), len(right["cxc_image_to_caption"])) == (24972, 5000)

    draw = np.random.default_rng(0)
    rows = draw.normal(size=(5000, 24)).astype(np.float32)
    texts = rows[collection.owners] + 0.5 * draw.normal(size=(25000, 24)).astype(np.float32)
    embeddings = Embeddings.from_arrays(rows, texts, collection.owners, ids=collection.ids)
    figures = more_answers(PublishedFiles(tmp_path, "", ""), embeddings)(PlainScorer())
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (rows, texts)]
    ids = [np.array(collection.ids, np.int64), np.array(order)]
    for direction, (mine, theirs), name in (("I2T", (0, 1), "image_to_caption"), ("T2I", (1, 0), "caption_to_image")):
        found = {}
        for start in range(0, len(ids[mine]), 1000):
            scores = unit[mine][start : start + 1000] @ unit[theirs].T
            first = np.argpartition(-scores, 60, axis=1)[:, :60]
            first = np.take_along_axis(first, np.argsort(-np.take_along_axis(scores, first, 1), axis=1), 1)
            found |= dict(zip(ids[mine][start : start + 1000].tolist(), ids[theirs][first].tolist(), strict=True))
        for k in (1, 5, 10):
            expected = 100 * recall(found, right[f"cxc_{name}"], k)
            assert figures[f"CxC {direction} R@{k}"] == pytest.approx(expected, abs=0.02)
        expected = 100 * recall(found, right[f"eccv_{name}"], 1)
        assert figures[f"ECCV {direction} R@1"] == pytest.approx(expected, abs=0.1)
        both = figures[f"ECCV {direction} R-Precision"], figures[f"ECCV {direction} mAP@R"]
        assert both == pytest.approx([100 * value for value in at_r(found, right[f"eccv_{name}"])], abs=0.02)
