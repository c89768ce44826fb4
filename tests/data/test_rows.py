"""Which rows are of one image, in every form of a source, against plain dictionaries."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict, Image
from hypothesis import example, given, settings
from hypothesis import strategies as st

from boresight.data import Collection, Problem, load_collection, train_validation_test
from collection_files import picture, put_pictures

Row = tuple[int, str, str | list[str]]  # picture, split, caption or captions


def owned(collection: Collection) -> dict[tuple[int, str], list[str]]:
    """Captions by the picture's first red value and its split."""
    reds = [collection.image(row).getpixel((0, 0))[0] for row in range(len(collection))]
    assert len(set(collection.ids)) == len(collection)
    images = list(zip(reds, collection.splits, strict=True))
    assert len(set(images)) == len(images)
    return dict(zip(images, collection.captions, strict=True))


def joined(rows: Sequence[Row]) -> dict[tuple[int, str], list[str]]:
    """Slow and plain: all captions of a picture in a split; a list that stood before adds nothing."""
    texts: dict[tuple[int, str], list[str]] = {}
    lists: set[tuple[int, str, tuple[str, ...]]] = set()
    for number, split, captions in rows:
        if isinstance(captions, list):
            if (number, split, tuple(captions)) in lists:
                continue
            lists.add((number, split, tuple(captions)))
        texts.setdefault((number, split), []).extend([captions] if isinstance(captions, str) else captions)
    return texts


def cell(number: int) -> dict[str, Any]:
    return {"bytes": picture((number, 0, 0)), "path": None}


words = st.sampled_from(["a", "b", "c"])


def rows_of(captions: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Row]]:
    row = st.tuples(st.integers(0, 3), st.sampled_from(["train", "test"]), captions)
    return st.lists(row, min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(st.one_of(rows_of(words), rows_of(st.lists(words, min_size=1, max_size=2))), st.booleans())
@example([(0, "train", "a"), (1, "train", "a"), (0, "test", "a"), (0, "train", "a")], True)
def test_pictures_inside_rows(rows: list[Row], ids: bool) -> None:
    """Ids that number the rows of a split are of captions, so they tell no pictures apart."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for number, split, captions in rows:
        part = parts.setdefault(split, [])
        lists = isinstance(captions, list)
        part.append({"image": cell(number), "text": captions} | ({"id": len(part)} if ids and not lists else {}))
    whole = DatasetDict({name: Dataset.from_list(part).cast_column("image", Image()) for name, part in parts.items()})
    assert owned(load_collection(whole)) == joined(rows)
    flat = [{"image": cell(number), "split": split, "captions": captions} for number, split, captions in rows]
    assert owned(load_collection(Dataset.from_list(flat).cast_column("image", Image()))) == joined(rows)


@settings(max_examples=25, deadline=None)
@given(rows_of(st.one_of(words, st.lists(words, min_size=1, max_size=2))), st.booleans())
@example([(0, "train", "a"), (0, "test", ["a"]), (1, "test", "a"), (0, "test", ["a"])], True)
def test_rows_of_tables(rows: list[Row], spelt: bool) -> None:
    """However a name is spelt, the file is one picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        put_pictures(folder, [f"images/{number}.png" for number in range(4)])
        spellings = ("{}.png", "./{}.png", "images/{}.png", "images\\{}.png", " {}.png") if spelt else ("{}.png",)
        lines = [
            {"file_name": spellings[row % len(spellings)].format(number), "split": split, "text": captions}
            for row, (number, split, captions) in enumerate(rows)
        ]
        (folder / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert owned(load_collection(folder)) == joined(rows)


def test_one_caption_a_row_with_the_picture_inside(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"image": cell(number), "text": f"{way} of {number}"} for number in range(40) for way in range(5)]
    collection = load_collection(Dataset.from_list(rows).cast_column("image", Image()))
    assert (len(collection), len(collection.texts), collection.problems) == (40, 200, ())
    assert collection.captions[3] == [f"{way} of 3" for way in range(5)]
    assert "the dataset: 40 images, 200 captions, from the column 'text'." in capsys.readouterr().err
    split = train_validation_test(collection)
    assert len({split.image(row).tobytes() for row in range(len(split))}) == len(split)


def test_equal_pictures_with_ids_of_their_own_stay_two_where_an_id_is_an_images() -> None:
    lists = {"image": [cell(1), cell(1)], "captions": [["a", "b"], ["c"]], "id": ["x", "y"]}
    assert load_collection(Dataset.from_dict(lists).cast_column("image", Image())).ids == ["x", "y"]
    single = Dataset.from_dict(lists | {"captions": ["a", "b"]}).cast_column("image", Image())
    assert load_collection(single).ids == ["x"]
    assert load_collection(single, id_column="id").ids == ["x", "y"]


def test_one_caption_a_row_in_an_object() -> None:
    """Ids that number such rows are of captions, as those of plain captions are."""
    rows = [{"image": cell(n // 2), "id": n, "caption": {"raw": f"caption {n}"}} for n in range(6)]
    collection = load_collection(Dataset.from_list(rows).cast_column("image", Image()))
    assert collection.captions == [[f"caption {2 * n}", f"caption {2 * n + 1}"] for n in range(3)]


def test_one_picture_under_several_ids_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"image": cell(n // 2), "id": n, "caption": [f"caption {n}"]} for n in range(6)]
    dataset = Dataset.from_list(rows).cast_column("image", Image())
    assert len(load_collection(dataset)) == 6
    assert "3 pictures, the same byte for byte, under several ids are an image for each id" in capsys.readouterr().err
    assert len(load_collection(dataset.remove_columns("id"))) == 3
    load_collection(dataset, id_column="id")
    assert "under several ids" not in capsys.readouterr().err


def test_one_id_for_two_pictures_is_named() -> None:
    rows = {"image": [cell(1), cell(2)], "text": ["a", "b"], "id": [7, 7]}
    collection = load_collection(Dataset.from_dict(rows).cast_column("image", Image()))
    assert list(collection.problems) == [Problem("duplicate id", "7, row 1 of the dataset")]


def test_ids_that_start_anew_in_each_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = {}
    for split, numbers in (("train", range(6)), ("test", range(100, 104))):
        put_pictures(tmp_path / split, [f"{row}.png" for row in range(len(numbers))])
        rows = [{"id": row, "file_name": f"{row}.png", "text": str(number)} for row, number in enumerate(numbers)]
        (tmp_path / split / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        inside = [{"id": row, "image": cell(number), "text": str(number)} for row, number in enumerate(numbers)]
        parts[split] = Dataset.from_list(inside).cast_column("image", Image())
    for source in (DatasetDict(parts), tmp_path):
        collection = load_collection(source)
        assert (len(collection), collection.problems) == (10, ())
        where = dict(zip(collection.texts, collection.ids, strict=True))
        assert (where["3"], where["103"]) == ("train/3", "test/3")
        assert "ids repeat from split to split" in capsys.readouterr().err
        assert load_collection(source, split="test").ids == [f"test/{row}" for row in range(4)]


def test_a_picture_in_several_splits_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_pictures(tmp_path, ["a.png", "b.png"])
    rows = [("a.png", "train", "1"), ("a.png", "test", "2"), ("b.png", "test", "3"), ("a.png", None, "4")]
    table = [{"file_name": name, "split": split, "text": text} for name, split, text in rows]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    collection = load_collection(tmp_path)
    assert dict(zip(collection.ids, collection.captions, strict=True)) == {
        "train/a.png": ["1", "4"], "test/a.png": ["2"], "test/b.png": ["3"]
    }  # fmt: skip
    assert "1 picture stands in several splits (a.png)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("columns", "read", "unread"),
    [
        ({"caption": "a", "caption_1": "b", "caption_2": "c"}, ["a", "b", "c"], ()),
        ({"sentence10": "c", "sentence2": "b", "sentence1": "a"}, ["a", "b", "c"], ()),
        ({"text": "a", "alt_text": "b", "text_length": 3}, ["a"], ("alt_text",)),
        ({"captions": ["a", "b"], "caption": "b", "short_caption": "c"}, ["a", "b"], ("caption", "short_caption")),
        ({"Caption": "a", "captions_en": "b", "caption_id": 7}, ["a"], ("captions_en",)),
        ({"TEXT": "a", "description": "b"}, ["a"], ("description",)),
    ],
)
def test_several_columns_that_hold_captions(
    columns: dict[str, Any], read: list[str], unread: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = Dataset.from_list([{"image": cell(1), **columns}]).cast_column("image", Image())
    assert load_collection(rows).texts == read
    said = capsys.readouterr().err
    for name in columns:
        assert (f"'{name}'" in said.partition("to read")[2]) is (name in unread)
