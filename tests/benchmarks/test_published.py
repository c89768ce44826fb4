"""Published retrieval benchmarks: each layout as it is published, its traps, and what is said when it is not whole."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.benchmarks import published_readers
from boresight.benchmarks.published import RETRIEVAL, Published, open_published
from boresight.errors import InputError
from collection_files import put_pictures

COCO = {f"COCO_val2014_{number:012}.jpg": [f"{number}, {word}." for word in "abcdef"[: 5 + number % 2]]
        for number in (391895, 60623, 483108)}  # fmt: skip
FLICKR = {
    "1007129816.jpg": ["A man, in a hat.", 'The "hat", of a.jpg, is orange.', "c", "d", "e"],
    "1009434119.jpg": ["A dog, runs .", "b", "c", "d", "e"],
}


@pytest.fixture(autouse=True)
def spoken(monkeypatch):
    monkeypatch.delenv("BORESIGHT_QUIET", raising=False)


def put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def lines(file: Path, rows: list[dict]) -> None:
    put(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def content(collection) -> dict[str, list[str]]:
    """Captions by the name of the picture that is shown, which must be there."""
    names = [Path(cell["path"]) for cell in collection.dataset["image"]]
    assert all(name.is_file() for name in names)
    return {name.name: captions for name, captions in zip(names, collection.captions, strict=True)}


def karpathy(pictures: dict[str, list[str]], filepath: str | None, identity: str) -> str:
    """The original json: other splits too, whose pictures nobody has to have."""
    rows = [
        {"filename": name, "split": split, identity: number, "sentences": [{"raw": raw, "tokens": []} for raw in raws]}
        | ({"filepath": filepath} if filepath else {})
        for number, (name, raws, split) in enumerate(
            [("x.jpg", ["train"], "train"), *((*one, "test") for one in pictures.items()), ("y.jpg", ["r"], "restval")]
        )
    ]
    return json.dumps({"images": rows, "dataset": "toy"})


def coco_captions(pictures: dict[str, list[str]], folder: str = "") -> str:
    images = [{"id": 100 + place, "file_name": folder + name} for place, name in enumerate(pictures)]
    annotations = [
        {"id": 1, "image_id": 100 + place, "caption": caption}
        for place, captions in enumerate(pictures.values())
        for caption in captions
    ]
    return json.dumps({"images": images, "annotations": annotations[::-1]})


def test_coco_in_its_three_files(tmp_path: Path) -> None:
    blip = [{"image": f"val2014/{name}", "caption": captions} for name, captions in COCO.items()]
    layouts = {
        "coco_karpathy_test.json": json.dumps(blip),
        "annotations/coco_test_karpathy.json": coco_captions(COCO),
        "dataset_coco.json": karpathy(COCO, "val2014", "cocoid"),
    }
    for number, (name, text) in enumerate(layouts.items()):
        for where in ("val2014", "images/val2014", "images"):
            folder = tmp_path / f"{number} {where.replace('/', ' ')}"
            put(folder / name, text)
            put_pictures(folder / where, COCO)
            for benchmark in ("coco-karpathy-5k", "coco-karpathy-1k"):
                collection = open_published(benchmark, folder)
                assert {key: sorted(value) for key, value in content(collection).items()} == COCO
                assert list(content(collection)) == list(COCO)  # the order that makes the folds
                assert (collection.splits, collection.problems) == (["test"] * 3, ())
                assert collection.name == benchmark
    put(tmp_path / "apart" / "coco_karpathy_test.json", layouts["coco_karpathy_test.json"])
    for images in (tmp_path / "0 val2014", tmp_path / "0 val2014" / "val2014", tmp_path / "0 images"):
        assert content(open_published("coco-karpathy-5k", tmp_path / "apart", images=images)) == COCO


def test_folds_are_runs_of_equal_length() -> None:
    folds = RETRIEVAL["coco-karpathy-1k"].galleries(5000)
    assert [(fold.start, fold.stop) for fold in folds] == [(start, start + 1000) for start in range(0, 5000, 1000)]
    assert RETRIEVAL["coco-karpathy-5k"].galleries(5000) == [range(5000)]
    ragged = RETRIEVAL["coco-karpathy-1k"].galleries(13)
    assert [row for fold in ragged for row in fold] == list(range(13))
    assert {len(fold) for fold in ragged} == {2, 3}


@pytest.mark.parametrize("above", ["", "annotations/"])
def test_coco_val2017_is_another_5k(above: str, tmp_path: Path, capsys) -> None:
    put(tmp_path / f"{above}captions_val2017.json", coco_captions({"000000000139.jpg": ["a", "b"]}))
    put_pictures(tmp_path / "val2017", ["000000000139.jpg"])
    collection = open_published("coco-val2017", tmp_path)
    assert content(collection) == {"000000000139.jpg": ["b", "a"]}
    assert collection.splits == ["test"]
    said = capsys.readouterr().err
    assert "COCO val2017 5k (not Karpathy's): 1 images here, 5,000 as published." in said
    assert "2 captions here, 25,014 as published" in said
    with pytest.raises(InputError, match=r"Karpathy test 5k needs coco_karpathy_test.json"):
        open_published("coco-karpathy-5k", tmp_path)


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


def test_docci_whole_and_by_sentence(tmp_path: Path, capsys) -> None:
    first = "A close view of a 3.5 m wall, by Dr. Lee. It is red\u2028and old!\nNo shade."
    rows = [
        {"split": "train", "example_id": "train_0", "image_file": "train_0.jpg", "description": "no"},
        {"split": "test", "example_id": "test_0", "image_file": "test_0.jpg", "description": first},
        {"split": "qual_test", "example_id": "q", "image_file": "q.jpg", "description": "no"},
        {"split": "test", "example_id": "test_1", "description": "One. Two."},
    ]
    lines(tmp_path / "docci_descriptions.jsonlines", rows)
    put_pictures(tmp_path / "images", ["test_0.jpg", "test_1.jpg", "train_0.jpg"])
    assert content(open_published("docci", tmp_path)) == {"test_0.jpg": [first], "test_1.jpg": ["One. Two."]}
    parts = ["A close view of a 3.5 m wall, by Dr. Lee.", "It is red\u2028and old!", "No shade."]
    assert content(open_published("docci-sentences", tmp_path)) == {"test_0.jpg": parts, "test_1.jpg": ["One.", "Two."]}
    assert "2 images here, 5,000 as published" in capsys.readouterr().err

    annotations = [
        {"image_id": 1, "image": "images/test_1.jpg", "caption": "Two", "caption_id": 0},
        {"image_id": 0, "image": "images/test_0.jpg", "caption": "It is red", "caption_id": 1},
        {"image_id": 1, "image": "images/test_1.jpg", "caption": "One", "caption_id": 2},
        {"image_id": 1, "image": "images/test_1.jpg", "caption": "One", "caption_id": 3},
    ]
    put(tmp_path / "annotations" / "test_annotations.json", json.dumps({"annotations": annotations}))
    split = open_published("docci-sentences", tmp_path)
    assert content(split) == {"test_1.jpg": ["Two", "One", "One"], "test_0.jpg": ["It is red"]}
    assert "sentences as in" in capsys.readouterr().err
    assert len(open_published("docci", tmp_path).texts) == 2  # FLAIR's file is not for whole captions


def test_iiw_parts_name_their_pictures_differently(tmp_path: Path) -> None:
    lines(
        tmp_path / "datasets/IIW-400/data.jsonl", [{"image/key": "aar_test_04600", "IIW": "Aa. Bb.", "IIW-P5B": "no"}]
    )
    lines(tmp_path / "DCI_TEST/data.jsonl", [{"image": "sa_1.jpg", "ex_id": "1-data.json", "IIW": "C\n\n\nD. "}])
    lines(tmp_path / "DOCCI_Test/data.jsonl", [{"image": "test_00731", "DOCCI": "no", "IIW": "E is e.g. here."}])
    put_pictures(tmp_path, ["docci_aar/aar_test_04600.jpg", "dci/sa_1.jpg", "docci/test_00731.jpg"])
    whole = {"aar_test_04600.jpg": ["Aa. Bb."], "sa_1.jpg": ["C\n\n\nD."], "test_00731.jpg": ["E is e.g. here."]}
    split = {"aar_test_04600.jpg": ["Aa.", "Bb."], "sa_1.jpg": ["C", "D."], "test_00731.jpg": ["E is e.g. here."]}
    assert content(open_published("iiw", tmp_path)) == whole
    assert content(open_published("iiw-sentences", tmp_path)) == split
    for name, picture in (("iiw-400", "aar_test_04600.jpg"), ("iiw-dci", "sa_1.jpg"), ("iiw-docci", "test_00731.jpg")):
        assert content(open_published(name, tmp_path)) == {picture: whole[picture]}
        assert content(open_published(f"{name}-sentences", tmp_path)) == {picture: split[picture]}
    fine = [{"image_id": 0, "image": "docci_aar/aar_test_04600.jpg", "caption": text} for text in ("A", "B")]
    put(tmp_path / "test_annotations.json", json.dumps({"annotations": fine}))
    assert content(open_published("iiw-sentences", tmp_path)) == {"aar_test_04600.jpg": ["A", "B"]}
    assert content(open_published("iiw-400-sentences", tmp_path)) == {"aar_test_04600.jpg": ["Aa.", "Bb."]}


@pytest.mark.parametrize(("above", "pictures"), [("Urban1k/", "image"), ("", "images")])
def test_urban1k_takes_the_first_line(above: str, pictures: str, tmp_path: Path) -> None:
    for number in (1, 10, 2):
        put(tmp_path / f"{above}caption/{number}.txt", f"Street {number}, long.\nsecond line\n")
    put_pictures(tmp_path / f"{above}{pictures}", ["1.jpg", "2.jpg", "10.jpg", "11.jpg"])
    collection = open_published("urban1k", tmp_path)
    assert list(content(collection).items()) == [(f"{n}.jpg", [f"Street {n}, long."]) for n in (1, 2, 10)]


def test_urban1k_as_flair_lays_it_out(tmp_path: Path) -> None:
    rows = [{"image_id": n, "image": f"{n}.jpg", "caption": f"Street {n}."} for n in (1, 2)]
    put(tmp_path / "annotations" / "annotations.json", json.dumps({"annotations": rows}))
    put_pictures(tmp_path / "images", ["1.jpg", "2.jpg"])
    assert content(open_published("urban1k", tmp_path)) == {"1.jpg": ["Street 1."], "2.jpg": ["Street 2."]}


def test_what_systems_leave_beside_files_is_not_read(tmp_path: Path) -> None:
    put(tmp_path / "caption" / "1.txt", "Street")
    (tmp_path / "caption" / "._1.txt").write_bytes(b"\0\5\x16\7\xff")
    put_pictures(tmp_path / "image", ["1.jpg"])
    assert content(open_published("urban1k", tmp_path)) == {"1.jpg": ["Street"]}


def test_sharegpt4v_takes_the_first_entries(tmp_path: Path, capsys) -> None:
    entries = [
        {"image": f"sam/images/sa_{n}.jpg", "conversations": [{"value": "Describe."}, {"value": f"A\n\nb {n}\n"}]}
        for n in range(1003)
    ]
    put(tmp_path / "share-captioner_coco_lcs_sam_1246k_1107.json", json.dumps(entries))
    put_pictures(tmp_path, ["sam/images/sa_3.jpg", "sam/images/sa_999.jpg", "sam/images/sa_1000.jpg"])
    small = open_published("sharegpt4v-1k", tmp_path)
    assert content(small) == {"sa_3.jpg": ["A  b 3"], "sa_999.jpg": ["A  b 999"]}
    said = capsys.readouterr().err
    assert "skipped 998 rows: 998 missing files" in said
    assert "figures over fewer images are not the published ones" in said
    assert len(open_published("sharegpt4v-10k", tmp_path, images=tmp_path / "sam" / "images")) == 3
    put_pictures(tmp_path / "moved" / "sa_000048", ["sa_7.jpg"])
    entries[7]["image"] = "sa_000048/images/sa_7.jpg"  # as the list says, and a folder less on disk
    put(tmp_path / "share4v_sam_10k.json", json.dumps(entries))
    assert content(open_published("sharegpt4v-10k", tmp_path, images=tmp_path / "moved")) == {"sa_7.jpg": ["A  b 7"]}
    (tmp_path / "share4v_sam_10k.json").unlink()
    put(tmp_path / "share-captioner_coco_lcs_sam_1246k_1107.json", json.dumps([{"image": "a.jpg"}]))
    with pytest.raises(InputError, match=r"entry 0 of .* lacks 'conversations'"):
        open_published("sharegpt4v-1k", tmp_path)


@given(st.lists(st.dictionaries(st.text(), st.text())), st.integers(1, 9), st.sampled_from([None, 2]))
@settings(deadline=None)
def test_entries_are_read_one_after_another(entries: list[Any], size: int, indent: int | None) -> None:
    with TemporaryDirectory() as folder, mock.patch.object(published_readers, "_READ", size):
        file = Path(folder) / "a.json"
        put(file, json.dumps(entries, indent=indent, ensure_ascii=size % 2 == 0) + "\n")
        place = published_readers.Place(Path(folder), [Path(folder)], "a", "b")
        assert list(published_readers._entries(place, file)) == entries


def test_missing_pictures_are_counted_and_named(tmp_path: Path, capsys) -> None:
    put(
        tmp_path / "coco_karpathy_test.json",
        json.dumps([{"image": f"val2014/{n}", "caption": c} for n, c in COCO.items()]),
    )
    put_pictures(tmp_path / "val2014", list(COCO)[1:])
    collection = open_published("coco-karpathy-5k", tmp_path)
    assert len(collection) == 2
    assert [(problem.what, problem.where) for problem in collection.problems] == [("missing file", next(iter(COCO)))]
    said = capsys.readouterr().err
    assert "skipped 1 row: 1 missing file (COCO_val2014_000000391895.jpg); figures over fewer images are not" in said

    for file in (tmp_path / "val2014").iterdir():
        file.unlink()
    first = tmp_path / "val2014" / "COCO_val2014_000000391895.jpg"
    with pytest.raises(InputError, match="None of the 3 pictures of COCO, Karpathy test 5k is there") as caught:
        open_published("coco-karpathy-5k", tmp_path)
    assert str(first) in str(caught.value)
    with pytest.raises(InputError, match=r"The image folder .*nowhere does not exist"):
        open_published("coco-karpathy-5k", tmp_path, images=tmp_path / "nowhere")


@pytest.mark.parametrize("published", RETRIEVAL.values(), ids=RETRIEVAL)
def test_every_benchmark_asks_for_its_file(published: Published, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs .*, which .* lacks; it is published at https://"):
        open_published(published.name, tmp_path)
    with pytest.raises(InputError, match="There is no folder"):
        open_published(published.name, tmp_path / "nowhere")


def test_names_and_titles_are_apart() -> None:
    assert len({published.title for published in RETRIEVAL.values()}) == len(RETRIEVAL) == 18
    assert all(published.name == name for name, published in RETRIEVAL.items())
    with pytest.raises(InputError, match="There is no benchmark 'coco'; choose one of coco-karpathy-5k"):
        open_published("coco", ".")


@pytest.mark.parametrize(
    ("benchmark", "name", "text", "why"),
    [
        ("coco-karpathy-5k", "coco_karpathy_test.json", '[{"image": "a', "cannot be read as json"),
        ("coco-karpathy-5k", "coco_karpathy_test.json", "3", "holds a int at its top"),
        ("coco-karpathy-5k", "coco_karpathy_test.json", '[{"caption": []}]', "entry 0 of .* lacks a text 'image'"),
        ("coco-karpathy-5k", "dataset_coco.json", '{"images": []}', "its file holds no test images"),
        ("coco-val2017", "captions_val2017.json", '{"images": []}', "is no COCO captions file"),
        ("docci", "docci_descriptions.jsonlines", '{"split": "test"}\n', "line 1 of .* lacks a text 'example_id'"),
        ("docci", "docci_descriptions.jsonlines", '\n{"split": \n', "line 2 of .* is no json"),
        ("docci", "docci_descriptions.jsonlines", "[1]\n", "line 1 of .* is no json object"),
        ("docci-sentences", "test_annotations.json", "[]", "holds a list at its top"),
        ("docci-sentences", "test_annotations.json", "{}", "lacks the list 'annotations'"),
        ("docci-sentences", "test_annotations.json", '{"annotations": [{}]}', "annotation 0 of .* a text 'image'"),
        ("iiw-400", "IIW-400/data.jsonl", '{"image/key": "a", "IIW-P5B": "x"}\n', "lacks a text 'IIW'"),
        ("sharegpt4v-1k", "share4v_sam_10k.json", '{"a": 1}', "holds no list of entries"),
        ("sharegpt4v-1k", "share4v_sam_10k.json", '[{"image": "a.jpg", "conv', "cannot be read as json"),
        ("sharegpt4v-1k", "share4v_sam_10k.json", '[{"image": "a.jpg"} x]', "lacks 'conversations'"),
    ],
)  # fmt: skip
def test_torn_files_are_named(benchmark: str, name: str, text: str, why: str, tmp_path: Path) -> None:
    put(tmp_path / name, text)
    with pytest.raises(InputError, match=why):
        open_published(benchmark, tmp_path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "results_20130124.token").write_bytes(b"a.jpg#0\t\xff\xfe\n")
    with pytest.raises(InputError, match="token cannot be read as UTF-8"):
        open_published("flickr30k-all", tmp_path)
