"""COCO captions json and Karpathy json in both forms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from boresight.data import Problem, load_collection
from boresight.errors import InputError
from collection_files import put_pictures

COCO = {
    "info": {"description": "COCO 2017 Dataset"},
    "licenses": [{"id": 1, "name": "CC"}],
    "images": [
        {"license": 1, "file_name": "000000397133.jpg", "height": 3, "width": 4, "id": 397133},
        {"license": 1, "file_name": "000000037777.jpg", "height": 3, "width": 4, "id": 37777},
    ],
    "annotations": [
        {"image_id": 37777, "id": 38, "caption": "A kitchen, small.\n"},
        {"image_id": 397133, "id": 182, "caption": 'A man "cooks".'},
        {"image_id": 397133, "id": 500, "caption": " Two men "},
        {"image_id": 397133, "id": 3, "caption": "Ein Mann – heiß"},
    ],
}


def write(file: Path, content: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def test_coco_in_its_published_folders(tmp_path: Path) -> None:
    put_pictures(tmp_path / "val2017", ["000000037777.jpg", "000000397133.jpg"])
    file = write(tmp_path / "annotations" / "captions_val2017.json", COCO)
    for source in (file, tmp_path):
        collection = load_collection(source)
        assert collection.ids == ["397133", "37777"]
        assert collection.captions == [['A man "cooks".', "Two men", "Ein Mann – heiß"], ["A kitchen, small."]]
        assert collection.splits == ["validation", "validation"]
        assert collection.image(0).getpixel((0, 0))[0] == 1
        assert not collection.problems


def test_coco_with_the_pictures_elsewhere(tmp_path: Path) -> None:
    put_pictures(tmp_path / "pool", ["000000037777.jpg", "000000397133.jpg"])
    file = write(tmp_path / "mine.json", COCO)
    with pytest.raises(InputError, match=r"2 missing files \(000000397133.jpg, 000000037777.jpg\)"):
        load_collection(file)
    collection = load_collection(file, images=tmp_path / "pool")
    assert len(collection.texts) == 4
    assert set(collection.splits) == {"all"}


def test_trouble_in_coco_is_named(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    content = {
        "images": [
            {"id": 5, "file_name": "a.jpg"},
            {"id": 5, "file_name": "b.jpg"},
            {"id": 900, "file_name": "c.jpg"},
            {"id": 7},
            {"id": 8, "file_name": "gone.jpg"},
            "text",
        ],
        "annotations": [
            {"image_id": "5", "caption": "kept"},
            {"image_id": 5, "caption": ""},
            {"image_id": 5},
            {"image_id": 8, "caption": "no file"},
            {"image_id": 10, "caption": "nobody's"},
            {"caption": "of nothing"},
            7,
        ],
    }
    collection = load_collection(write(tmp_path / "captions.json", content))
    assert (collection.ids, collection.captions) == (["5"], [["kept"]])
    assert sorted((problem.what, problem.where) for problem in collection.problems) == [
        ("caption for an unknown image", "10"),
        ("duplicate id", "5, image 5"),
        ("empty caption", "image 5"),
        ("empty caption", "image 5"),
        ("image without captions", "c.jpg, image 900"),
        ("malformed row", "annotation 5 of captions.json names no image"),
        ("malformed row", "annotation 6 of captions.json names no image"),
        ("malformed row", "image 3 of captions.json lacks an id or a file_name"),
        ("malformed row", "image 5 of captions.json lacks an id or a file_name"),
        ("missing file", "gone.jpg"),
    ]
    with pytest.raises(InputError, match="captions has 10 rows"):
        load_collection(tmp_path / "captions.json", on_error="refuse")


def test_files_that_are_no_captions_are_refused(tmp_path: Path) -> None:
    boxes = {"images": COCO["images"], "annotations": [{"image_id": 37777, "bbox": [0, 0, 1, 1]}]}
    with pytest.raises(InputError, match=r"annotations but no captions; pass COCO's captions_\*\.json"):
        load_collection(write(tmp_path / "instances.json", boxes))
    with pytest.raises(InputError, match="is no Karpathy json"):
        load_collection(write(tmp_path / "other.json", {"rows": []}))
    with pytest.raises(InputError, match="lacks the lists 'images' and 'annotations'"):
        load_collection(write(tmp_path / "list.json", []), format="coco")
    (tmp_path / "torn.json").write_text('{"images": [')
    with pytest.raises(InputError, match=r"torn\.json cannot be read as json"):
        load_collection(tmp_path / "torn.json")


def test_karpathy_by_sentences(tmp_path: Path) -> None:
    names = ["val2014/COCO_val2014_000000522418.jpg", "train2014/COCO_val2014_000000522418.jpg", "val2014/c.jpg"]
    put_pictures(tmp_path, [*names, "val2014/d.jpg"])
    content = {
        "dataset": "coco",
        "images": [
            {
                "filepath": "val2014",
                "filename": "COCO_val2014_000000522418.jpg",
                "split": "restval",
                "sentids": [1, 2],
                "imgid": 0,
                "cocoid": 522418,
                "sentences": [
                    {"tokens": ["a"], "raw": "A woman, a hat."},
                    {"raw": " Second \n", "sentid": 9},
                    {"tokens": ["lost"]},
                ],
            },
            {
                "filepath": "train2014",
                "filename": "COCO_val2014_000000522418.jpg",
                "split": "val",
                "imgid": 77,
                "sentences": [{"raw": f"number {i}"} for i in range(6)],
            },
            {"filepath": "val2014", "filename": "c.jpg", "split": "test", "sentences": [{"raw": "c"}]},
            {"filepath": "val2014", "filename": "d.jpg", "split": "test", "cocoid": 4},
            {"filepath": "val2014", "split": "test"},
        ],
    }
    write(tmp_path / "dataset_coco.json", content)
    collection = load_collection(tmp_path)
    assert collection.ids == ["522418", "77", "val2014/c.jpg"]
    assert collection.splits == ["restval", "validation", "test"]
    assert collection.captions[0] == ["A woman, a hat.", "Second"]
    assert [len(captions) for captions in collection.captions] == [2, 6, 1]
    assert [collection.image(row).getpixel((0, 0))[0] for row in range(3)] == [0, 1, 2]
    assert list(collection.problems) == [
        Problem("empty caption", "image 0 of dataset_coco.json"),
        Problem("image without captions", "val2014/d.jpg, image 3 of dataset_coco.json"),
        Problem("malformed row", "image 4 of dataset_coco.json lacks a filename"),
    ]
    assert load_collection(tmp_path, split="restval").ids == ["522418"]


def test_karpathy_without_folders_in_a_named_place(tmp_path: Path) -> None:
    put_pictures(tmp_path / "flickr30k-images", ["1000092795.jpg"])
    entry = {"filename": "1000092795.jpg", "imgid": 0, "split": "train", "sentences": [{"raw": "Two men."}]}
    file = write(tmp_path / "dataset_flickr30k.json", {"images": [entry]})
    collection = load_collection(file, images=tmp_path / "flickr30k-images")
    assert (collection.ids, collection.splits) == (["0"], ["train"])


def test_karpathy_as_a_list_of_images(tmp_path: Path) -> None:
    put_pictures(tmp_path / "coco", ["val2014/a.jpg", "val2014/b.jpg", "train2014/a.jpg"])
    entries = [
        {"image": "val2014/a.jpg", "caption": ["one, with comma", "two", "three", "four", "five"]},
        {"image": "train2014/a.jpg", "caption": ["one"]},
        {"image": "val2014/b.jpg", "caption": [f"{i}" for i in range(6)]},
    ]
    file = write(tmp_path / "coco_karpathy_test.json", entries)
    collection = load_collection(file, images=tmp_path / "coco")
    assert collection.ids == ["val2014/a.jpg", "train2014/a.jpg", "val2014/b.jpg"]
    assert [len(captions) for captions in collection.captions] == [5, 1, 6]
    assert set(collection.splits) == {"test"}
    # The folder that the names begin with may be given itself; names of other folders do not fall into it.
    inner = load_collection(file, images=tmp_path / "coco" / "val2014")
    assert inner.ids == ["val2014/a.jpg", "val2014/b.jpg"]
    assert list(inner.problems) == [Problem("missing file", "train2014/a.jpg")]


def test_karpathy_with_a_caption_a_row_is_grouped(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["train2014/a.jpg", "val2014/a.jpg"])
    entries = [
        {"caption": "a, one", "image": "train2014/a.jpg", "image_id": "coco_57870"},
        {"caption": "b", "image": "val2014/a.jpg", "image_id": "coco_12"},
        {"caption": "a two ", "image": "train2014/a.jpg", "image_id": "coco_57870"},
        {"caption": "", "image": "val2014/a.jpg", "image_id": "coco_12"},
        "text",
    ]
    collection = load_collection(write(tmp_path / "coco_karpathy_train.json", entries))
    assert collection.ids == ["coco_57870", "coco_12"]
    assert collection.captions == [["a, one", "a two"], ["b"]]
    assert set(collection.splits) == {"train"}
    assert [problem.what for problem in collection.problems] == ["empty caption", "malformed row"]


def test_columns_named_in_vain_are_refused(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.jpg"])
    listed = write(tmp_path / "list.json", [{"image": "a.jpg", "caption": "a", "part": "val"}])
    assert load_collection(listed, split_column="part").splits == ["validation"]
    with pytest.raises(InputError, match=r"list\.json has no column 'prt'; it has 'caption', 'image', 'part'\."):
        load_collection(listed, split_column="prt")
    coco = write(tmp_path / "captions.json", COCO)
    with pytest.raises(
        InputError, match=r"COCO json captions\.json has no columns to choose from; leave out id_column, sp"
    ):
        load_collection(coco, id_column="id", split_column="part")
    karpathy = write(tmp_path / "dataset.json", {"images": []})
    with pytest.raises(
        InputError, match=r"Karpathy json dataset\.json has no columns to choose from; leave out caption"
    ):
        load_collection(karpathy, caption_columns="raw")


def test_a_folder_with_two_json_files_is_ambiguous(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.jpg"])
    for name in ("one.json", "two.json"):
        write(tmp_path / name, [{"image": "a.jpg", "caption": "a"}])
    write(tmp_path / "settings.json", {"theme": "dark"})
    with pytest.raises(InputError, match=r"in several ways: one\.json \(json\), two\.json \(json\); pass one"):
        load_collection(tmp_path)
    assert load_collection(tmp_path / "two.json").ids == ["a.jpg"]


def test_rococos_file_is_told_to_be_half_false(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("BORESIGHT_QUIET", raising=False)
    put_pictures(tmp_path, ["val2014/a.jpg"])
    for name, captions, told in (("danger", 10, True), ("same_concept", 11, True), ("danger", 5, False)):
        file = tmp_path / f"{name}.json"
        texts = [f"caption {number}" for number in range(captions)]
        file.write_text(json.dumps([{"image": "val2014/a.jpg", "caption": texts}]))
        assert len(load_collection(file).captions[0]) == captions
        said = f"{name}.json: as RoCOCO publishes it, the last five captions of every image are altered"
        assert (said in capsys.readouterr().err) == told
