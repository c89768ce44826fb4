"""Captions and ids survive every format; what cannot be used is named; pictures are checked as deeply as asked."""

from __future__ import annotations

import csv
import json
import tempfile
import unicodedata
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from boresight.data import Collection, Problem, load_collection
from boresight.errors import InputError
from collection_files import picture, put_pictures, write_tar


def lines(*rows: object) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def whats(collection: Collection) -> list[str]:
    return [problem.what for problem in collection.problems]


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


def test_pictures_are_checked_when_asked(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png"])
    whole = picture(format="BMP")
    (tmp_path / "cut.bmp").write_bytes(whole[:-20])
    (tmp_path / "text.jpg").write_text("no picture")
    rows = [{"image": name, "text": name} for name in ("cut.bmp", "a.png", "text.jpg")]
    (tmp_path / "captions.jsonl").write_text(lines(*rows))
    assert load_collection(tmp_path).ids == ["cut.bmp", "a.png", "text.jpg"]
    decoded = load_collection(tmp_path, check_images=True)
    assert decoded.ids == ["a.png"]
    assert list(decoded.problems) == [Problem("corrupt image", "cut.bmp"), Problem("corrupt image", "text.jpg")]
    assert decoded.image(0).size == (4, 3)
    opened = load_collection(tmp_path, check_images="open")
    assert (opened.ids, list(opened.problems)) == (["cut.bmp", "a.png"], [Problem("corrupt image", "text.jpg")])
    with pytest.raises(InputError, match="check_images='decode' is unknown"):
        load_collection(tmp_path, check_images="decode")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"has 2 rows: 2 corrupt images \(cut.bmp, text.jpg\); mend them"):
        load_collection(tmp_path, check_images=True, on_error="refuse")


def test_a_clean_source_passes_the_strictest_reading(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_pictures(tmp_path, ["a.png"])
    (tmp_path / "captions.jsonl").write_text(lines({"file_name": "a.png", "text": "a"}))
    collection = load_collection(tmp_path, on_error="refuse", check_images=True, name="mine")
    assert (len(collection), collection.name, collection.problems) == (1, "mine", ())
    assert capsys.readouterr().err == "mine: 1 image, 1 caption, from the column 'text'.\n"


def test_unusable_sources_are_refused_with_the_way_out(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["only/a.png", "two/a.png"])
    (tmp_path / "only" / "notes.txt").write_text("of none")
    with pytest.raises(
        InputError,
        match=r"only holds no captions: neither captions\.jsonl.*; format='pictures' embeds its 1 picture without",
    ):
        load_collection(tmp_path / "only")
    with pytest.raises(InputError, match="holds no captions as parquet"):
        load_collection(tmp_path / "only", format="parquet")
    with pytest.raises(InputError, match="gone does not exist; check the path"):
        load_collection(tmp_path / "gone")
    with pytest.raises(InputError, match=r"a\.png is one picture; pass its folder, or a list of pictures' files"):
        load_collection(tmp_path / "only/a.png")
    (tmp_path / "captions").write_text("a.png: a")
    with pytest.raises(InputError, match=r"captions has no suffix that says what it is; pass format, one of jsonl"):
        load_collection(tmp_path / "captions")
    with pytest.raises(InputError, match="format='excel' is unknown; choose one of jsonl"):
        load_collection(tmp_path / "only", format="excel")
    with pytest.raises(InputError, match="on_error='ignore' is unknown"):
        load_collection(tmp_path / "only", on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot be read from list"):
        load_collection([1, 2])  # type: ignore[arg-type]

    for name in ("captions.jsonl", "captions.csv"):
        (tmp_path / "two" / name).write_text(lines({"file_name": "a.png", "text": "a"}))
    with pytest.raises(
        InputError, match=r"in several ways: captions\.csv \(csv\), captions\.jsonl \(jsonl\); pass one"
    ):
        load_collection(tmp_path / "two")
    assert len(load_collection(tmp_path / "two", format="jsonl")) == 1

    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(InputError, match="Nothing of empty can be used: it holds no rows"):
        load_collection(tmp_path / "empty.jsonl")
