"""Captions and ids survive every format; splits by hash; the table that collections are built in."""

from __future__ import annotations

import csv
import json
import tempfile
import unicodedata
from collections import defaultdict
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from hypothesis import example, given, settings
from hypothesis import strategies as st

from boresight.data import Collection, load_collection, train_validation_test
from boresight.data.assemble import CHUNK, CaptionLists, Table
from boresight.data.splits import normal_split, split_of_name, split_of_path
from boresight.errors import InputError
from collection_files import picture, write_tar

Written = dict[str, list[str]]

any_text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=40)
captions = st.lists(any_text.map(str.strip).filter(bool), min_size=1, max_size=4)
# Identifiers that are file names too: no separators, no two that a file system takes for one.
stems = st.text(st.characters(categories=("L", "N"), exclude_characters="\u0130"), min_size=1, max_size=8)
written = st.dictionaries(stems.map(lambda stem: unicodedata.normalize("NFC", stem)), captions, min_size=1, max_size=4)
tricky = {"é": ['a "b", c', "two\nlines", "['not', 'a list'", "tab\there", "line\u2028line"], "ß日": ["x"]}


def read(folder: Path, source: Path, given: Written) -> Collection:
    collection = load_collection(source, on_error="refuse", id_column="id")
    assert dict(zip(collection.ids, collection.captions, strict=True)) == given
    return collection


def put(folder: Path, given: Written) -> None:
    for stem in given:
        (folder / f"{stem}.png").write_bytes(picture())


@settings(max_examples=25, deadline=None)
@given(written)
@example(tricky)
def test_json_lines(given: Written) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        put(folder, given)
        rows = [{"file_name": f"{stem}.png", "captions": texts, "id": stem} for stem, texts in given.items()]
        (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        assert read(folder, folder, given).ids == list(given)


@settings(max_examples=25, deadline=None)
@given(written, st.booleans(), st.sampled_from(["\n", "\r\n"]))
@example(tricky, False, "\r\n")
@example(tricky, True, "\n")
def test_csv(given: Written, as_list: bool, newline: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        put(folder, given)
        with open(folder / "captions.csv", "w", encoding="utf-8", newline="") as handle:
            # Python's writer leaves a lone carriage return unquoted where lines end otherwise.
            quoting = csv.QUOTE_ALL if newline == "\n" else csv.QUOTE_MINIMAL
            writer = csv.writer(handle, lineterminator=newline, quoting=quoting)
            writer.writerow(["id", "file_name", "captions"])
            for stem, texts in given.items():
                for cell in [json.dumps(texts)] if as_list else texts:
                    writer.writerow([stem, f"{stem}.png", cell])
        read(folder, folder, given)


@settings(max_examples=25, deadline=None)
@given(written)
@example({"é": ['a "b", c', '"whole"', 'quote"']})
def test_tsv(given: Written) -> None:
    given = {stem: [" ".join(text.split()) or "x" for text in texts] for stem, texts in given.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        put(folder, given)
        with open(folder / "captions.tsv", "w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle, delimiter="\t")
            writer.writerow(["id", "file_name", "captions"])
            writer.writerows([stem, f"{stem}.png", text] for stem, texts in given.items() for text in texts)
        read(folder, folder, given)


@settings(max_examples=20, deadline=None)
@given(written)
@example(tricky)
def test_tar(given: Written) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        members = {}
        for number, (stem, texts) in enumerate(given.items()):
            members[f"{number:06d}.png"] = picture((number, 0, 0))
            members[f"{number:06d}.json"] = json.dumps({"captions": texts, "id": stem}).encode()
        write_tar(folder / "00000.tar", members)
        collection = read(folder, folder, given)
        assert [collection.image(row).getpixel((0, 0))[0] for row in range(len(given))] == list(range(len(given)))


@settings(max_examples=10, deadline=None)
@given(written, st.booleans())
@example(tricky, True)
def test_parquet(given: Written, inside: bool) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / ".cache")
        put(folder, given)
        images = [picture() if inside else f"{stem}.png" for stem in given]
        table = {"image": images, "captions": list(given.values()), "id": list(given)}
        pq.write_table(pa.table(table), folder / "captions.parquet")
        read(folder, folder, given)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.lists(st.text("ab", max_size=3), max_size=3)), max_size=30))
def test_ragged_captions_against_lists_of_lists(rows: list[tuple[int, list[str]]]) -> None:
    builder, plain = CaptionLists(), defaultdict(list)
    for row, texts in rows:
        builder.add(row, texts)
        plain[row] += texts
    assert builder.finish(7).to_pylist() == [plain[row] for row in range(7)]


def test_the_table_is_the_same_over_the_bounds_of_its_chunks() -> None:
    table, n = Table(), 2 * CHUNK + 3
    for row in range(n):
        extras: dict[str, object] = {"late": row} if row > CHUNK else {}
        mixed = {"mixed": row if row < CHUNK else "x", "wide": 0.5 if row < CHUNK else 2**53 + 1}
        at = table.add_image(f"id{row}", {"path": f"{row}.png"}, "all", {**extras, **mixed})
        assert at == row
        table.add_captions(row, [f"first of {row}"])
    for row in range(0, n, 1000):
        table.add_captions(row, [f"second of {row}"])
    dataset = table.finish()
    assert dataset["id"][:] == [f"id{row}" for row in range(n)]
    for row in (0, 1, 1000, CHUNK - 1, CHUNK, n - 1, 2 * CHUNK):
        second = [f"second of {row}"] if row % 1000 == 0 else []
        assert dataset[row]["captions"] == [f"first of {row}", *second]
        assert dataset[row]["image"]["path"] == f"{row}.png"
        assert dataset[row]["late"] == (row if row > CHUNK else None)
        assert dataset[row]["mixed"] == (str(row) if row < CHUNK else "x")
        assert dataset[row]["wide"] == ("0.5" if row < CHUNK else str(2**53 + 1))


# Selections and splits


def collection_of(ids: list[str], split: str = "all") -> Collection:
    columns = {"id": ids, "image": [{"bytes": b"", "path": None}] * len(ids), "captions": [["a"]] * len(ids)}
    return Collection(Dataset.from_dict({**columns, "split": [split] * len(ids)}), "mine")


def test_selections_by_number_and_by_mask() -> None:
    whole = collection_of(["a", "b", "c"])
    for rows in ([2, 0], np.array([-1, -3]), torch.tensor([2, 0])):
        assert whole.select(rows).ids == ["c", "a"]
    for mask in ([True, False, True], np.array([True, False, True])):
        assert whole.select(mask).ids == ["a", "c"]
    assert whole.select([]).ids == []
    with pytest.raises(InputError, match=r"Row 3 does not exist; there are 3 images \(0 to 2\)\."):
        whole.select([0, 3])
    with pytest.raises(InputError, match="A mask of 2 booleans cannot select among 3 images"):
        whole.select([True, False])


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


def test_names_of_splits() -> None:
    assert [normal_split(name) for name in ("val", "VALID", "dev", "validation", "Dev")] == ["validation"] * 5
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
