"""ARO, on files written by hand in its published layout."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest

from boresight.benchmarks.aro import SYMMETRIC, read_aro
from boresight.benchmarks.job import BenchmarkJob
from boresight.benchmarks.registry import run_benchmark
from boresight.data import Problem
from boresight.errors import InputError
from boresight.reports.benchmark_page import write_benchmark_report
from collection_files import put_pictures
from published_files import put_noise, write


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setenv("BORESIGHT_QUIET", "1")


def visual_genome(name: str, box: tuple, **more: object) -> dict:
    captions = {"true_caption": "the man is on the horse", "false_caption": "the horse is on the man"}
    return {"image_path": name, **{f"bbox_{end}": box[i] for i, end in enumerate("xywh")}, **captions, **more}


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((2, 1, 5, 4), slice(1, 5), slice(2, 7)),
        ((0, 0, 12, 9), slice(0, 9), slice(0, 12)),
        ((8, 6, 7, 5), slice(6, 11), slice(8, 15)),  # over the right and the lower edge
    ],
)
def test_the_crop_of_a_relation(tmp_path: Path, box: tuple, rows: slice, columns: slice) -> None:
    pixels = put_noise(tmp_path / "images" / "7.png", 12, 9)
    write(tmp_path / "visual_genome_relation.json", [visual_genome("7.png", box, relation_name="on")])
    found = read_aro(tmp_path, "vg-relation")
    padded = np.pad(pixels, ((0, 9), (0, 12), (0, 0)))
    np.testing.assert_array_equal(np.asarray(found.items[0].picture.open()), padded[rows, columns])
    assert found.items[0].group == "on"
    assert found.items[0].captions[found.items[0].true] == "the man is on the horse"


def test_what_the_published_macro_means_are_over(tmp_path: Path) -> None:
    put_noise(tmp_path / "images" / "7.png", 12, 9)
    write(tmp_path / "visual_genome_relation.json", [visual_genome("7.png", (0, 0, 3, 3), relation_name="near")])
    row = visual_genome("7.png", (0, 0, 3, 3), attributes=["white", "wooden"], relation_name="?")
    write(tmp_path / "visual_genome_attribution.json", [row, {**row, "image_path": "8.png"}])
    relation = read_aro(tmp_path, "vg-relation")
    assert (relation.fewest, relation.outside_macro) == (1, SYMMETRIC)
    attribution = read_aro(tmp_path, "vg-attribution")
    assert (attribution.fewest, attribution.outside_macro) == (25, frozenset())
    assert [item.group for item in attribution.items] == ["white, wooden"]
    assert list(attribution.problems) == [Problem("missing file", "8.png")]
    # One from each end of the published list and from its middle, and relations that the paper's table keeps.
    assert {"adjusting", "parked in front of", "around", "by", "with"} <= SYMMETRIC
    assert not {"to the left of", "on", "behind", "riding", "wearing", "holding"} & SYMMETRIC
    assert len(SYMMETRIC) == 157


def test_bad_aro(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no part 'vg-order'; choose one of vg-relation"):
        read_aro(tmp_path, "vg-order")
    with pytest.raises(InputError, match=r"ARO needs visual_genome_relation.json.*mertyg"):
        read_aro(tmp_path, "vg-relation")
    with pytest.raises(InputError, match=r"Karpathy test 1k needs flickr30k_test.json \(nor .*dataset_flickr"):
        read_aro(tmp_path, "flickr-order")
    put_noise(tmp_path / "images" / "7.png", 12, 9)
    good = visual_genome("7.png", (0, 0, 3, 3), relation_name="on")
    for content, said in (
        ({"0": good}, "holds a dict at its top and not what it is published with"),
        ([good, {**good, "bbox_w": 0}], r"row 1 of .* has no box: .* are \[0, 0, 0, 3\]"),
        ([{**good, "bbox_x": "0"}], "row 0 of .* has no box"),
        ([{key: value for key, value in good.items() if key != "bbox_h"}], "row 0 of .* has no box"),
        ([{**good, "relation_name": None}], "row 0 of .* has no 'relation_name'"),
        ([{**good, "image_path": "8.png"}], r"Nothing of ARO VG-Relation.*1 missing file \(8.png\).*vgr_vga_images"),
    ):
        write(tmp_path / "visual_genome_relation.json", content)
        with pytest.raises(InputError, match=said):
            read_aro(tmp_path, "vg-relation")
    write(tmp_path / "visual_genome_attribution.json", [{**good, "attributes": ["white"]}])
    with pytest.raises(InputError, match=r"row 0 of .* has no 'attributes' that are two texts"):
        read_aro(tmp_path, "vg-attribution")


def test_coco_order(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["val2014/COCO_val2014_000000000042.jpg"])
    rows = [
        {"image": "val2014/COCO_val2014_000000000042.jpg", "caption": ["A man rides a brown horse.", "Horse!"]},
        {"image": "val2014/COCO_val2014_000000000073.jpg", "caption": ["Two parked motor cycles in the grass."]},
    ]
    write(tmp_path / "coco_karpathy_test.json", rows)
    found = read_aro(tmp_path, "coco-order")
    assert [(item.captions[0], item.true, item.group) for item in found.items] == [
        ("a man rides a brown horse", 0, "coco-order")
    ]
    assert len(found.items[0].captions) == 5
    assert found.items[0].picture.open().size == (4, 3)
    assert Counter(problem.what for problem in found.problems) == {"missing file": 1, "unshufflable caption": 1}
    # Another picture's absence, and another process, change nothing; another seed does.
    put_pictures(tmp_path, ["val2014/COCO_val2014_000000000073.jpg"])
    again = read_aro(tmp_path, "coco-order")
    assert len(again) == 2
    assert again.items[0].captions == found.items[0].captions
    assert read_aro(tmp_path, "coco-order", seed=1).items[0].captions != found.items[0].captions


def test_flickr_order_of_the_original_json(tmp_path: Path) -> None:
    put_pictures(tmp_path / "Images", ["1.jpg", "2.jpg"])
    images = [
        {"filename": f"{n}.jpg", "split": split, "sentences": [{"raw": f"{split} has a dog with {n} legs"}]}
        for n, split in ((1, "train"), (2, "test"))
    ]
    write(tmp_path / "annotations" / "dataset_flickr30k.json", {"images": images})
    assert [item.captions[0] for item in read_aro(tmp_path, "flickr-order").items] == ["test has a dog with 2 legs"]


def test_a_measure_that_is_not_defined_is_named(encoder, scenes, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    rows = []
    for row in range(4):
        scenes.image(row).save(tmp_path / "images" / f"{row}.png")
        box = {f"bbox_{side}": value for side, value in zip("xywh", (0, 0, 50, 50), strict=True)}
        said = {"true_caption": "a red ring", "false_caption": "a blue ring", "attributes": ["red", "blue"]}
        rows.append({"image_path": f"{row}.png", **box, **said})
    (tmp_path / "visual_genome_attribution.json").write_text(json.dumps(rows))
    job = BenchmarkJob(encoder=encoder, data=tmp_path, out=tmp_path / "run", workers=0)
    run = run_benchmark("aro-vg-attribution", job)
    assert "macro accuracy" not in run.scores["plain"]
    assert run.facts["not defined on these data"] == "macro accuracy"
    assert "NaN" not in (tmp_path / "run" / "benchmark.json").read_text()
    earlier = replace(run, scores={"plain": {**run.scores["plain"], "macro accuracy": float("nan")}})
    write_benchmark_report(tmp_path / "page.html", [run, earlier])
    assert "nan" not in (tmp_path / "page.html").read_text().split("<h3>")[0].split("<table")[1]
