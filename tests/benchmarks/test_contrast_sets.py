"""Readers of SugarCrepe, Winoground and ARO, on files written by hand in their published layouts."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from boresight.benchmarks.aro_relations import SYMMETRIC
from boresight.benchmarks.contrast_sets import (
    SUGARCREPE,
    read_aro,
    read_sugarcrepe,
    read_winoground,
)
from boresight.data import Problem
from boresight.errors import InputError
from boresight.evaluation.contrasts import Contrast, Picture
from boresight.evaluation.word_order import shuffles_of, words_of
from collection_files import picture, put_pictures


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setenv("BORESIGHT_QUIET", "1")


def write(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def crepe(filename: str, true: str = "a dog", false: str = "a cat") -> dict[str, str]:
    return {"filename": filename, "caption": true, "negative_caption": false}


def put_sugarcrepe(folder: Path, **rows: dict) -> None:
    for group in SUGARCREPE:
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
    assert Counter(item.group for item in found.items) == {**dict.fromkeys(SUGARCREPE, 1), "swap_obj": 2}
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
        ([crepe("000000000139.jpg")], "swap_att.json holds no object of rows"),
        ({"5": {"filename": "000000000139.jpg", "caption": "a"}}, "row 5 of .*swap_att.json has no 'negative_caption'"),
        ({"5": crepe("000000000139.jpg", "  ")}, "row 5 of .*swap_att.json has no 'caption'"),
        ({"5": "a dog"}, "row 5 of .*swap_att.json has no 'caption'"),
    ):
        write(tmp_path / "swap_att.json", content)
        with pytest.raises(InputError, match=said):
            read_sugarcrepe(tmp_path)


def visual_genome(name: str, box: tuple, **more: object) -> dict:
    captions = {"true_caption": "the man is on the horse", "false_caption": "the horse is on the man"}
    return {"image_path": name, **{f"bbox_{end}": box[i] for i, end in enumerate("xywh")}, **captions, **more}


def put_noise(file: Path, width: int, height: int) -> np.ndarray:
    pixels = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return pixels


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


@pytest.mark.parametrize("box", [(12, 0, 5, 5), (-5, 2, 5, 5), (0, 9, 3, 3)])
def test_a_box_beside_the_picture(tmp_path: Path, box: tuple) -> None:
    put_noise(tmp_path / "7.png", 12, 9)
    with pytest.raises(InputError, match=r"box .* of 'seven' shows nothing of the picture"):
        Picture("seven", tmp_path / "7.png", box).open()


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
        ({"0": good}, "holds no list of rows"),
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


def threes(words: list[str]) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + 3]) for start in range(0, len(words), 3)]


@given(st.lists(st.text("abc", min_size=1, max_size=2), min_size=7, max_size=40, unique=True), st.integers(0, 5))
def test_shuffles_are_what_they_are_called(words: list[str], seed: int) -> None:
    found = [text.split() for text in shuffles_of(words, seed)]
    assert len(found) == 4
    assert all(sorted(other) == sorted(words) and other != words for other in found)
    _, _, within, blocks = found
    assert [sorted(three) for three in threes(within)] == [sorted(three) for three in threes(words)]
    remaining = threes(words)
    while blocks:
        first = next(three for three in remaining if tuple(blocks[: len(three)]) == three)
        remaining.remove(first)
        blocks = blocks[len(first) :]


def test_words_that_cannot_be_shuffled() -> None:
    assert shuffles_of(["dog"], 0) == []
    assert shuffles_of(["so", "so", "so", "so"], 0) == []
    assert {tuple(text.split()) for text in shuffles_of(["a", "b"], 0)} == {("b", "a")}
    assert len(shuffles_of(["a", "b", "c"], 0)) == 3  # a single trigram has no order among trigrams


def test_the_words_of_a_caption() -> None:
    assert words_of('A  "Dog" (brown) runs, fast; it\'s 3:30.') == [
        "a",
        "dog",
        "brown",
        "runs,",
        "fast",
        "it's",
        "3",
        "30",
    ]
    assert words_of(" ".join(map(str, range(50)))) == [str(number) for number in range(30)]


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
    with pytest.raises(InputError, match=r"examples.jsonl cannot be read as json lines"):
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


def test_an_item_needs_two_captions_and_a_true_one() -> None:
    with pytest.raises(InputError, match="'p' has 1 captions of which number 0 is true"):
        Contrast(Picture("p", "p.png"), ("only",), 0, "g")
    with pytest.raises(InputError, match="number 2 is true"):
        Contrast(Picture("p", "p.png"), ("one", "two"), 2, "g")
