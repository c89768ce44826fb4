"""Splits by hash, and names of splits."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

from boresight.data import Collection, load_collection, train_validation_test
from boresight.data.splits import hashed, normal_split, split_of_file, split_of_name, split_of_path
from boresight.errors import InputError
from collection_files import picture, put_pictures


def collection_of(ids: list[str], split: str = "all") -> Collection:
    columns = {"id": ids, "image": [{"bytes": b"", "path": None}] * len(ids), "captions": [["a"]] * len(ids)}
    return Collection(Dataset.from_dict({**columns, "split": [split] * len(ids)}), "mine")


def test_splits_by_hash_are_stable_when_rows_come_and_go() -> None:
    ids = [f"photo {number}.jpg" for number in range(4000)]
    whole = train_validation_test(collection_of(ids))
    split = dict(zip(whole.ids, whole.splits, strict=True))
    shares = [whole.splits.count(name) / len(ids) for name in ("train", "validation", "test")]
    assert np.allclose(shares, [0.8, 0.1, 0.1], atol=0.02)

    picked = collection_of(ids).select([3999, 17, 5])
    part = train_validation_test(picked)
    assert part.ids == [ids[3999], ids[17], ids[5]]
    assert part.splits == [split[name] for name in part.ids]
    assert len(part.split(part.splits[0])) >= 1

    other = train_validation_test(collection_of(ids), seed=1)
    assert 0.5 < np.mean([a == b for a, b in zip(whole.splits, other.splits, strict=True)]) < 0.8
    halves = train_validation_test(collection_of(ids, "train"), fractions=(0.5, 0.5, 0))
    assert set(halves.splits) == {"train", "validation"}


def test_splits_by_hash_refuse_what_they_cannot_do() -> None:
    for fractions in ((0.5, 0.5), (0.5, 0.2, 0.2), (1.2, -0.1, -0.1)):
        with pytest.raises(InputError, match="three shares that sum to 1"):
            train_validation_test(collection_of(["a"]), fractions=fractions)
    split = train_validation_test(collection_of([str(number) for number in range(100)]))
    with pytest.raises(InputError, match="mine already has the splits test, train, validation"):
        train_validation_test(split)


def in_two_splits(where: str, folder: Path) -> Collection:
    """Pictures 0 and 1 in train and test, 2 in train alone, as files or as bytes in rows."""
    rows = [("train", 0, "a"), ("train", 1, "b"), ("train", 2, "c"), ("test", 1, "b"), ("test", 0, "d")]
    if where == "files":
        put_pictures(folder, ["0.png", "1.png", "2.png"])
        with open(folder / "captions.csv", "w", newline="") as handle:
            csv.writer(handle).writerows(
                [("file_name", "caption", "split"), *((f"{n}.png", said, split) for split, n, said in rows)]
            )
        return load_collection(folder)
    parts = {}
    for name in ("train", "test"):
        some = [(number, said) for split, number, said in rows if split == name]
        cells = [{"bytes": picture((number, 0, 0)), "path": None} for number, _ in some]
        parts[name] = Dataset.from_dict({"image": cells, "caption": [[said] for _, said in some]})
    return load_collection(DatasetDict(parts))


@pytest.mark.parametrize("where", ["files", "bytes"])
def test_a_picture_of_two_splits_is_one_image_where_they_are_drawn_anew(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collection = in_two_splits(where, tmp_path)
    assert len(collection) == 5
    anew = train_validation_test(collection, anew=True)
    assert anew.captions == [["a", "d"], ["b"], ["c"]]  # the same list of captions in both counts once
    assert anew.ids == collection.ids[:3]
    assert [anew.image(row).getpixel((0, 0)) for row in range(3)] == [(0, 0, 0), (1, 0, 0), (2, 0, 0)]
    assert "2 pictures of several splits: one image each" in capsys.readouterr().err
    assert collection.captions[0] == ["a"]
    few = train_validation_test(collection.select([4, 2, 0]), anew=True)
    assert few.captions == [["d", "a"], ["c"]]
    assert few.ids == [collection.ids[4], collection.ids[2]]


def test_pictures_that_stand_twice_in_a_split_stay_apart() -> None:
    same = [{"bytes": picture(), "path": None}] * 3
    columns = {"id": ["x", "y", "z"], "image": same, "captions": [["a"], ["b"], ["c"]]}
    collection = Collection(Dataset.from_dict({**columns, "split": ["train", "train", "test"]}))
    assert train_validation_test(collection, anew=True).ids == ["x", "y", "z"]


def test_names_of_splits() -> None:
    assert [normal_split(name) for name in ("val", "VALID", "dev", "validation", "Dev")] == ["validation"] * 5
    assert [normal_split(name) for name in ("Train", "TEST", "Training")] == ["train", "test", "Training"]
    assert [normal_split(name) for name in ("train", "restval", "qual_test", None, "")] == [
        "train",
        "restval",
        "qual_test",
        "all",
        "all",
    ]
    names = {
        "captions_val2017": "validation",
        "captions_train2014": "train",
        "coco_karpathy_test": "test",
        "train-00000-of-00003": "train",
        "flickr30k_val": "validation",
        "validation": "validation",
        "trains": "all",
        "contest": "all",
        "captions": "all",
        "latest": "all",
        "cc3m-train-0001": "train",
    }
    assert {name: split_of_name(name) for name in names} == names
    assert split_of_path("Val/a.jpg") == "validation"
    assert split_of_path("val.jpg") == "all"
    assert split_of_path("deep/train/a.jpg") == "all"
    files = {"val/train.jsonl": "validation", "other/train.jsonl": "train", "captions.jsonl": "all"}
    assert {path: split_of_file(path) for path in files} == files


def test_a_number_by_hash_depends_on_the_text_alone() -> None:
    values = [hashed(str(row)) for row in range(2000)]
    assert values == [hashed(str(row)) for row in range(2000)]
    assert 0 <= min(values) < max(values) < 1
    assert abs(np.mean(values) - 0.5) < 0.03


def test_only_collections_are_split() -> None:
    with pytest.raises(
        InputError, match=r"list cannot be split here, only a collection: split it before .* --split-anew.* `splits`"
    ):
        train_validation_test([1, 2, 3])  # type: ignore[arg-type]
