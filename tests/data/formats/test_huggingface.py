"""Parquet files and Hugging Face datasets, all local."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value

from boresight.data import Problem, load_collection
from boresight.errors import InputError
from collection_files import picture, put_pictures


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def embedded(numbers: list[int], **columns: list) -> Dataset:
    cells = [{"bytes": picture((number, 0, 0)), "path": None} for number in numbers]
    return Dataset.from_dict({"image": cells, **columns}).cast_column("image", Image())


def first_red(collection: object) -> list[int]:
    return [collection.image(row).getpixel((0, 0))[0] for row in range(len(collection))]


def test_a_dataset_in_hand_keeps_its_pictures_and_columns() -> None:
    dataset = embedded([1, 2, 3], caption=[["a, “b”", " c "], ["d"], ["e"] * 7], image_id=[30, 10, 20], extra=[1, 2, 3])
    collection = load_collection(dataset, name="mine")
    assert collection.ids == ["30", "10", "20"]
    assert collection.captions == [["a, “b”", "c"], ["d"], ["e"] * 7]
    assert set(collection.splits) == {"all"}
    assert collection.dataset["extra"][:] == [1, 2, 3]
    assert collection.dataset.column_names == ["id", "image", "captions", "split", "extra"]
    assert first_red(collection) == [1, 2, 3]
    assert collection.name == "mine"


def test_a_selection_and_a_format_do_not_matter() -> None:
    dataset = embedded([1, 2, 3, 4], text=["a", "b", "c", "d"]).select([3, 1]).with_format("numpy")
    collection = load_collection(dataset)
    assert (collection.texts, first_red(collection)) == (["d", "b"], [4, 2])


def test_splits_are_kept_and_a_split_column_goes_first() -> None:
    parts = DatasetDict(
        train=embedded([1, 2], caption=["a", "b"], only_here=[1, 2]),
        dev=embedded([3], caption=["c"]),
    )
    collection = load_collection(parts)
    assert collection.splits == ["train", "train", "validation"]
    assert collection.ids == ["train/0", "train/1", "validation/0"]
    assert "only_here" not in collection.dataset.column_names
    assert first_red(load_collection(parts, split="val")) == [3]

    whole = DatasetDict(test=embedded([1, 2], caption=[["a"], ["b"]], split=["train", "val"]))
    assert load_collection(whole).splits == ["train", "validation"]


def test_numbered_and_named_caption_columns() -> None:
    dataset = embedded([1, 2], caption_1=["b", ""], caption_0=["a", "z"], short=["s", "t"], key=["k1", "k2"])
    assert load_collection(dataset).captions == [["a", "b"], ["z"]]
    named = load_collection(dataset, caption_columns=["short", "caption_1"], id_column="key")
    assert (named.ids, named.captions) == (["k1", "k2"], [["s", "b"], ["t"]])
    with pytest.raises(InputError, match="has no column 'long'; it has 'image', 'caption_1'"):
        load_collection(dataset, caption_columns="long")
    with pytest.raises(InputError, match="the dataset has no known caption column"):
        load_collection(dataset.select_columns(["image", "short"]))


def test_trouble_in_a_dataset_is_named_and_the_rest_kept() -> None:
    good = picture()
    cells = [{"bytes": good, "path": None}] * 4 + [
        {"bytes": None, "path": "gone.png"},
        None,
        {"bytes": b"", "path": None},
    ]
    captions = [["a"], ["a", "", None], [], None, ["e"], ["f"], ["g"]]
    features = Features({"image": Image(decode=False), "captions": List(Value("string")), "id": Value("string")})
    dataset = Dataset.from_dict(
        {"image": cells, "captions": captions, "id": ["a", "a", "c", "d", "e", "f", "g"]}, features=features
    )
    collection = load_collection(dataset)
    assert (collection.ids, collection.captions) == (["a"], [["a"]])
    assert list(collection.problems) == [
        Problem("duplicate row", "a, row 1 of the dataset"),
        Problem("image without captions", "row 2 of the dataset"),
        Problem("image without captions", "row 3 of the dataset"),
        Problem("missing file", "gone.png, row 4 of the dataset"),
        Problem("missing file", "no picture, row 5 of the dataset"),
        Problem("missing file", "no picture, row 6 of the dataset"),
    ]
    with pytest.raises(InputError, match="6 rows: 1 duplicate row"):
        load_collection(dataset, on_error="refuse")


def test_corrupt_bytes_are_found_when_asked() -> None:
    dataset = Dataset.from_dict({"image": [picture(), b"no picture"], "text": ["a", "b"]})
    collection = load_collection(dataset, check_images=True)
    assert (collection.texts, first_red(collection)) == (["a"], [10])
    assert list(collection.problems) == [Problem("corrupt image", "all/1")]


def test_paths_of_pictures_serve_as_ids_and_group_captions(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["x/a.png", "y/a.png"])
    paths = ["x/a.png", "y/a.png", "x/a.png", "z/a.png"]
    dataset = Dataset.from_dict({"image_path": paths, "text": ["one", "two", "three", "four"], "n": [1, 2, 3, 4]})
    collection = load_collection(dataset, images=tmp_path)
    assert collection.ids == ["x/a.png", "y/a.png"]
    assert collection.captions == [["one", "three"], ["two"]]
    assert collection.dataset["n"][:] == [1, 2]
    assert first_red(collection) == [0, 1]
    assert list(collection.problems) == [Problem("missing file", "z/a.png")]

    longer = dataset.select([0, 1, 2, 0, 1])
    assert load_collection(longer, images=tmp_path).captions == [["one", "three", "one"], ["two", "two"]]

    absolute = Dataset.from_dict({"image": [str(tmp_path / "y/a.png")], "text": ["two"]}).cast_column("image", Image())
    assert load_collection(absolute, images=tmp_path).ids == ["y/a.png"]


def test_a_column_that_holds_no_pictures_is_refused() -> None:
    dataset = Dataset.from_dict({"image": [1, 2], "text": ["a", "b"]})
    with pytest.raises(InputError, match=r"column 'image' of the dataset holds Value\('int64'\), not pictures"):
        load_collection(dataset)


def test_a_saved_dataset_is_read_from_its_folder(tmp_path: Path) -> None:
    embedded([1], text=["one"]).save_to_disk(str(tmp_path / "one"))
    DatasetDict(train=embedded([1], text=["a"]), test=embedded([2], text=["b"])).save_to_disk(str(tmp_path / "many"))
    assert load_collection(tmp_path / "one").texts == ["one"]
    many = load_collection(tmp_path / "many")
    assert (many.splits, first_red(many), many.name) == (["train", "test"], [1, 2], "many")
    next((tmp_path / "one").glob("*.arrow")).write_bytes(b"torn")
    with pytest.raises(InputError, match="one is no whole dataset of save_to_disk"):
        load_collection(tmp_path / "one")


def test_parquet_with_pictures_inside_split_by_name(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    embedded([1, 2], caption=["a", "b"]).to_parquet(str(tmp_path / "data" / "train-00000-of-00002.parquet"))
    embedded([3], caption=["c"]).to_parquet(str(tmp_path / "data" / "train-00001-of-00002.parquet"))
    embedded([4], caption=["d"]).to_parquet(str(tmp_path / "data" / "validation-00000-of-00001.parquet"))
    (tmp_path / "data" / "test-00000-of-00001.parquet").write_bytes(b"PAR1 torn")
    collection = load_collection(tmp_path)
    assert collection.texts == ["a", "b", "c", "d"]
    assert collection.splits == ["train", "train", "train", "validation"]
    assert first_red(collection) == [1, 2, 3, 4]
    assert [problem.what for problem in collection.problems] == ["unreadable file"]
    assert collection.problems[0].where.startswith("data/test-00000-of-00001.parquet: ")
    (tmp_path / "data" / "test-00000-of-00001.parquet").unlink()
    assert len(load_collection(f"{tmp_path}/data/train-*.parquet")) == 3


def test_parquet_with_plain_columns(tmp_path: Path) -> None:
    bare = pa.table({"image": [picture((7, 0, 0))], "captions": [["a", "b"]], "id": ["ü"]})
    pq.write_table(bare, tmp_path / "bare.parquet")
    collection = load_collection(tmp_path / "bare.parquet")
    assert (collection.ids, collection.captions, first_red(collection)) == (["ü"], [["a", "b"]], [7])

    put_pictures(tmp_path / "paths", ["images/a.png", "b.png"])
    paths = pa.table({"file_name": ["a.png", "b.png", "a.png"], "caption": ["1", "2", "3"]})
    pq.write_table(paths, tmp_path / "paths" / "metadata.parquet")
    collection = load_collection(tmp_path / "paths")
    assert dict(zip(collection.ids, collection.captions, strict=True)) == {"a.png": ["1", "3"], "b.png": ["2"]}


def test_parquet_in_a_folder_named_like_a_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "v[0-9]"
    folder.mkdir()
    embedded([5], text=["a"]).to_parquet(str(folder / "train.parquet"))
    assert first_red(load_collection(folder)) == [5]


def test_parquet_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"No parquet file of .* can be read"):
        load_collection(tmp_path / "x.parquet")
    pq.write_table(pa.table({"image": ["a.png"], "text": ["a"]}), tmp_path / "x.parquet")
    pq.write_table(pa.table({"image": [1], "words": [2]}), tmp_path / "y.parquet")
    with pytest.raises(InputError, match="cannot be read together"):
        load_collection(tmp_path)


def test_a_name_that_is_neither_here_nor_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="'nobody/nothing' is no path here, and no dataset of the hub"):
        load_collection("nobody/nothing")
    with pytest.raises(InputError, match="photos/ does not exist"):
        load_collection("photos/")
    with pytest.raises(InputError, match=r"captions\.csv does not exist"):
        load_collection("captions.csv")


def test_a_dataset_of_the_hub_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str) -> DatasetDict:
        asked.append(name)
        return DatasetDict(train=embedded([1], text=["a"]), dev=embedded([2], text=["b"]))

    monkeypatch.setattr("boresight.data.formats.huggingface.load_dataset", load_dataset)
    collection = load_collection("owner/some.captions")
    assert (asked, collection.name) == (["owner/some.captions"], "owner/some.captions")
    assert collection.splits == ["train", "validation"]
    assert load_collection("plain", format="hub", split="train").texts == ["a"]


def test_pictures_stay_on_disk(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 1_000_000, dtype=np.uint8).tobytes()
    pictures = [bytes([number]) + noise for number in range(40)]
    DatasetDict(train=Dataset.from_dict({"image": pictures, "text": ["a"] * 40})).save_to_disk(str(tmp_path / "d"))
    before = pa.total_allocated_bytes()
    collection = load_collection(tmp_path / "d")
    assert len(collection) == 40
    assert pa.total_allocated_bytes() - before < 5_000_000
    assert {Path(file["filename"]).parent for file in collection.dataset.cache_files} == {tmp_path / "d" / "train"}


def test_class_labels_as_a_split_column() -> None:
    labels = ClassLabel(names=["train", "val"])
    dataset = embedded([1, 2], text=["a", "b"], split=[1, 0]).cast_column("split", labels)
    assert load_collection(dataset).splits == ["validation", "train"]
