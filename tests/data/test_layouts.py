"""Whole folders as their publishers and tools lay them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from boresight.data import Collection, Problem, load_collection
from boresight.errors import InputError
from collection_files import picture, put_pictures, write_tar
from published_files import put


def read(collection: Collection) -> dict[str, list[str]]:
    return dict(zip(collection.ids, collection.captions, strict=True))


def put_img2dataset(out: Path, rows: int, **columns: Any) -> None:
    """Its default output of one shard: pictures, texts and jsons, with an index and figures beside the folder."""
    for row in range(rows):
        key = f"00003{row:04d}"
        info = {"caption": f"of {row}", "url": "u", "status": "success", "exif": "{}", "key": key, **columns}
        put_pictures(out, [f"00003/{key}.jpg"])
        put(out / f"00003/{key}.txt", f"of {row}")
        put(out / f"00003/{key}.json", json.dumps(info))
    index = pa.table({"key": ["000030000"], "caption": ["of 0"], "url": ["u"], "status": ["success"]})
    pq.write_table(index, out / "00003.parquet")
    put(out / "00003_stats.json", json.dumps({"count": rows, "successes": rows, "status_dict": {"success": rows}}))


def test_img2dataset_files(tmp_path: Path) -> None:
    put_img2dataset(tmp_path / "out", 5)
    for source in (tmp_path / "out", tmp_path / "out/00003"):
        collection = load_collection(source, on_error="refuse")
        assert read(collection) == {f"00003{row:04d}": [f"of {row}"] for row in range(5)}
        assert collection.dataset["url"][:] == ["u"] * 5
    listed = {"caption": ["one", 'it is "two"'], "split": "dev"}
    put_img2dataset(tmp_path / "lists", 1, **listed)
    collection = load_collection(tmp_path / "lists")
    assert (collection.captions, collection.splits) == ([["one", 'it is "two"']], ["validation"])
    named = load_collection(tmp_path / "out", caption_columns="status", id_column="url", on_error="skip")
    assert (named.ids, named.captions) == (["u"], [["success"]])
    with pytest.raises(InputError, match="has no column 'gone'"):
        load_collection(tmp_path / "out", caption_columns="gone")


def test_pictures_of_img2dataset_are_turned_upright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes what the sensor saw, without EXIF; the json keeps how to turn it."""
    exif = json.dumps({"Image Orientation": "Rotated 90 CW", "Image Make": "x"})
    put_img2dataset(tmp_path / "out", 2, exif=exif)
    marked = Image.new("RGB", (4, 3), "white")
    marked.putpixel((0, 0), (255, 0, 0))
    marked.save(tmp_path / "out/00003/000030000.jpg", "PNG")
    own = marked.getexif()
    own[0x0112] = 6
    marked.save(tmp_path / "out/00003/000030001.jpg", "PNG", exif=own)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")
    members = {path.name: path.read_bytes() for path in sorted((tmp_path / "out/00003").iterdir())}
    write_tar(tmp_path / "x.tar", members)
    info = {"key": ["k"], "caption": ["c"], "exif": [exif], "jpg": [members["000030000.jpg"]]}
    pq.write_table(pa.table(info), tmp_path / "x.parquet")
    for source in (tmp_path / "out", tmp_path / "x.tar", tmp_path / "x.parquet"):
        for row in range(len(collection := load_collection(source))):
            turned = collection.image(row)
            assert (turned.size, turned.getpixel((2, 0))) == ((3, 4), (255, 0, 0)), source


def test_img2dataset_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")
    rows = {"key": ["000000000", "000000001", "000000002"], "caption": ["a", "b", "c"], "status": ["success"] * 3,
            "exif": [None] * 3, "jpg": [picture((1, 0, 0)), None, picture((2, 0, 0))]}  # fmt: skip
    pq.write_table(pa.table(rows), tmp_path / "00000.parquet")
    put(tmp_path / "00000_stats.json", json.dumps({"count": 3}))
    collection = load_collection(tmp_path)
    assert read(collection) == {"000000000": ["a"], "000000002": ["c"]}
    assert [problem.what for problem in collection.problems] == ["missing file"]


def test_jsons_beside_pictures_are_no_sources(tmp_path: Path) -> None:
    put_pictures(tmp_path, [f"{number}.png" for number in range(9)])
    for number in range(9):
        put(tmp_path / f"{number}.json", json.dumps({"caption": "beside", "image": f"{number}.png"}))
    assert load_collection(tmp_path).texts == ["beside"] * 9
    rows = [json.dumps({"file_name": f"{number}.png", "text": str(number)}) for number in range(9)]
    put(tmp_path / "metadata.jsonl", "\n".join(rows))
    assert load_collection(tmp_path).texts == [str(number) for number in range(9)]


def test_a_message_names_three_ways_at_most(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png"])
    for number in range(30):
        put(tmp_path / f"{number:02d}.json", json.dumps([{"image": "a.png", "caption": str(number)}]))
    why = r"several ways: 00\.json \(json\), 01\.json \(json\), 02\.json \(json\) and 27 more; pass one of them\.$"
    for format in (None, "karpathy"):
        with pytest.raises(InputError, match=why):
            load_collection(tmp_path, format=format)
    assert load_collection(tmp_path / "07.json").texts == ["7"]


def put_coco(folder: Path, split: str, year: int, ids: range, pictures: bool = True) -> None:
    images = [{"id": number, "file_name": f"{number:012d}.jpg"} for number in ids]
    texts = [{"id": 9, "image_id": number, "caption": f"{split} {number}"} for number in ids]
    put(folder / f"annotations/captions_{split}{year}.json", json.dumps({"images": images, "annotations": texts}))
    put(folder / f"annotations/instances_{split}{year}.json", json.dumps({"images": images, "annotations": []}))
    if pictures:
        put_pictures(folder / f"{split}{year}", [image["file_name"] for image in images])


@pytest.mark.parametrize("format", [None, "coco"])
def test_cocos_tree_is_read_as_its_splits(tmp_path: Path, format: str | None) -> None:
    put_coco(tmp_path, "train", 2017, range(3))
    put_coco(tmp_path, "val", 2017, range(3, 5))
    collection = load_collection(tmp_path, format=format, on_error="refuse")
    assert read(collection) == {**{f"{n}": [f"train {n}"] for n in range(3)}, "3": ["val 3"], "4": ["val 4"]}
    assert collection.splits == ["train"] * 3 + ["validation"] * 2
    assert Path(collection.dataset[3]["image"]["path"]).parent == tmp_path / "val2017"
    assert len(load_collection(f"{tmp_path}/annotations/captions_*2017.json")) == 5

    put_coco(tmp_path, "train", 2014, range(3), pictures=False)
    assert len(load_collection(tmp_path, format=format)) == 5  # there are pictures of 2017 alone
    (tmp_path / "train2014").mkdir()
    why = r"annotations/captions_\*2014\.json \(json\), annotations/captions_\*2017\.json \(json\); pass one of them\."
    with pytest.raises(InputError, match=why):
        load_collection(tmp_path, format=format)


def test_splits_in_jsons_of_their_own_with_names_and_ids_that_start_anew(tmp_path: Path) -> None:
    put_coco(tmp_path, "train", 2030, range(2))
    put_coco(tmp_path, "val", 2030, range(2))
    assert read(load_collection(tmp_path)) == {
        "train/0": ["train 0"], "train/1": ["train 1"], "validation/0": ["val 0"], "validation/1": ["val 1"]
    }  # fmt: skip


def test_kohyas_captions(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png", "sub/b.jpg", "c.webp"])
    put(tmp_path / "a.txt", "not this")
    content = {"a": {"caption": "of a", "tags": "x, y"}, "sub/b": {"tags": "u, v"}, "c.webp": {"caption": "of c"}}
    put(tmp_path / "meta_cap.json", json.dumps(content | {"gone": {"caption": "x"}}))
    collection = load_collection(tmp_path)
    assert read(collection) == {"a": ["of a"], "sub/b": ["u, v"], "c.webp": ["of c"]}
    assert list(collection.problems) == [Problem("missing file", "gone")]
    put(tmp_path / "named.json", json.dumps({"a.png": "one", "c.webp": ["two", "three"]}))
    assert read(load_collection(tmp_path / "named.json")) == {"a.png": ["one"], "c.webp": ["two", "three"]}


TOKEN = '1_a.jpg#0\tA dog , a cat .\n1_a.jpg#1\tHe said "hi", twice\n2_b.jpg#0\tTwo .\n'
KAGGLE = {
    "captions.txt": "image,caption\n1_a.jpg,A dog , a cat .\n1_a.jpg,\"He said \"\"hi\"\", twice\"\n2_b.jpg,Two .\n",
    "flickr30k_images/results.csv": "image_name| comment_number| comment\n1_a.jpg| 0| A dog , a cat .\n"
    "1_a.jpg| 1| He said \"hi\", twice\n2_b.jpg| 0| Two .\n2_b.jpg| 4   no sign\n",
    "Flickr8k_text/Flickr8k.token.txt": TOKEN,
    "results_20130124.token": TOKEN,
    "my words.csv": "image;caption\n1_a.jpg;A dog , a cat .\n1_a.jpg;\"He said \"\"hi\"\", twice\"\n2_b.jpg;Two .\n",
}  # fmt: skip


@pytest.mark.parametrize("table", KAGGLE)
@pytest.mark.parametrize("pictures", ["Images", "flickr30k_images/flickr30k_images", "Flicker8k_Dataset", "."])
def test_flickr_as_kaggle_and_its_makers_have_it(table: str, pictures: str, tmp_path: Path) -> None:
    put_pictures(tmp_path / pictures, ["1_a.jpg", "2_b.jpg"])
    put(tmp_path / table, KAGGLE[table])
    if "Flickr8k" in table:
        put(tmp_path / "Flickr8k_text/Flickr8k.lemma.token.txt", "1_a.jpg#0\tdog cat .\n")
        put(tmp_path / "Flickr8k_text/Flickr_8k.trainImages.txt", "1_a.jpg\n")
        put(tmp_path / "Flickr8k_text/readme.txt", "about it\n")
    collection = load_collection(tmp_path)
    expected = [["A dog , a cat .", 'He said "hi", twice'], ["Two ."]]
    assert (collection.captions, [problem.what for problem in collection.problems]) == (
        expected, ["malformed row"] if "no sign" in KAGGLE[table] else []
    )  # fmt: skip
    if pictures == "Images" and "/" not in table:
        assert load_collection(tmp_path / table).captions == expected


def test_a_name_of_two_pictures_is_of_neither(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["x/a.jpg", "y/a.jpg", "y/b.jpg"])
    put(tmp_path / "captions.csv", "image,caption\na.jpg,one\nb.jpg,two\nx/b.jpg,three\n")
    collection = load_collection(tmp_path)
    assert collection.captions == [["two"]]
    missing = [problem.where for problem in collection.problems if problem.what == "missing file"]
    assert missing == ["a.jpg", "x/b.jpg"]
