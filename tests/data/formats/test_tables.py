"""Folders with captions in json lines, csv, tsv or a text file for each picture."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from datasets import Dataset

from boresight.data import Collection, Problem, load_collection
from boresight.errors import InputError
from collection_files import put_pictures, write_tar


def by_id(collection: Collection) -> dict[str, list[str]]:
    return dict(zip(collection.ids, collection.captions, strict=True))


def lines(*rows: object) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def whats(collection: Collection) -> list[str]:
    return [problem.what for problem in collection.problems]


def test_json_lines_with_ragged_captions_and_further_columns(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png", "ß/ü.png", "b.png"])
    (tmp_path / "captions.jsonl").write_text(
        lines(
            {"file_name": "b.png", "captions": [" a “dog”, \n running ", "two"], "licence": "CC0", "n": 1},
            {"file_name": "ß/ü.png", "caption": "один 🐶", "n": 2.5},
            {"file_name": "./a.png", "text": "alone"},
        ),
        encoding="utf-8",
    )
    collection = load_collection(tmp_path)
    assert collection.ids == ["b.png", "ß/ü.png", "a.png"]
    assert collection.captions == [["a “dog”, \n running", "two"], ["один 🐶"], ["alone"]]
    assert collection.owners.tolist() == [0, 0, 1, 2]
    assert collection.texts == ["a “dog”, \n running", "two", "один 🐶", "alone"]
    assert set(collection.splits) == {"all"}
    assert collection.dataset["licence"][:] == ["CC0", None, None]
    assert collection.dataset["n"][:] == [1.0, 2.5, None]
    assert [collection.image(row).getpixel((0, 0))[0] for row in range(3)] == [2, 1, 0]
    assert not collection.problems


def test_columns_of_mixed_kinds_become_json_text(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png", "b.png", "c.png"])
    rows = [
        {"file_name": "a.png", "text": "a", "mixed": 1, "boxes": {"x": [1]}, "tags": ["u", "v"], "big": 2**80},
        {"file_name": "b.png", "text": "b", "mixed": "one", "boxes": {"y": 2}, "tags": [], "big": 1},
        {"file_name": "c.png", "text": "c", "mixed": "\ud800", "split": "dev"},
    ]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = load_collection(tmp_path).dataset
    assert dataset["mixed"][:] == ["1", "one", "?"]
    assert dataset["boxes"][:] == ['{"x": [1]}', '{"y": 2}', None]
    assert dataset["tags"][:] == [["u", "v"], [], None]
    assert dataset["big"][:] == [str(2**80), "1", None]
    assert dataset["split"][:] == ["all", "all", "validation"]


def test_rows_of_an_image_are_joined_and_a_list_counts_once(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png", "b.png"])
    (tmp_path / "captions.jsonl").write_text(
        lines(
            {"file_name": "a.png", "caption": "one"},
            {"file_name": "b.png", "captions": ["first"]},
            {"file_name": "a.png", "caption": "two"},
            {"file_name": "b.png", "captions": ["second", "third"]},
            {"file_name": "a.png", "caption": "two"},
            {"file_name": "b.png", "captions": ["first"]},
        )
    )
    collection = load_collection(tmp_path)
    assert by_id(collection) == {"a.png": ["one", "two", "two"], "b.png": ["first", "second", "third"]}
    assert list(collection.problems) == [Problem("duplicate row", "b.png, line 6 of captions.jsonl")]


def test_every_kind_of_trouble_is_named_and_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_pictures(tmp_path, ["a.png", "b.png", "c.png", "d.png", "lonely.png"])
    rows = [
        json.dumps({"file_name": "a.png", "captions": ["fine", "  ", None, 7, "\ud83d"]}),
        json.dumps({"file_name": "gone.png", "captions": ["no file"]}),
        json.dumps({"file_name": "b.png", "captions": []}),
        json.dumps({"file_name": "c.png", "caption": ""}),
        json.dumps({"caption": "of nothing"}),
        "{broken",
        "[1, 2]",
        "",
        json.dumps({"file_name": "d.png", "caption": "same", "id": "a.png"}),
    ]
    (tmp_path / "captions.jsonl").write_text("\r\n".join(rows))
    collection = load_collection(tmp_path)
    assert by_id(collection) == {"a.png": ["fine"]}
    at = "of captions.jsonl"
    assert [(problem.what, problem.where.split(":")[0]) for problem in collection.problems] == [
        ("empty caption", f"line 1 {at}"),
        ("empty caption", f"line 1 {at}"),
        ("malformed caption", f"line 1 {at}"),
        ("malformed caption", f"line 1 {at}"),
        ("missing file", "gone.png"),
        ("image without captions", f"b.png, line 3 {at}"),
        ("empty caption", f"line 4 {at}"),
        ("malformed row", f"line 5 {at} names no picture"),
        ("malformed row", f"line 6 {at}"),
        ("malformed row", f"line 7 {at}"),
        ("duplicate id", f"a.png, line 9 {at}"),
        ("image without captions", "lonely.png"),
    ]
    shown = capsys.readouterr().err
    assert "skipped 12 rows: 3 empty captions (line 1 of captions.jsonl" in shown
    assert "2 images without captions (b.png, line 3 of captions.jsonl, lonely.png)" in shown
    assert "1 missing file (gone.png)" in shown
    with pytest.raises(InputError, match=r"has 12 rows: .* or pass on_error='skip'"):
        load_collection(tmp_path, on_error="refuse")


def test_one_bad_file_is_reported_once_however_many_captions_it_has(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png"])
    rows = [{"image": "a.png", "caption": "a"}, *({"image": "no.png", "caption": str(i)} for i in range(5))]
    (tmp_path / "captions.jsonl").write_text(lines(*rows))
    assert list(load_collection(tmp_path).problems) == [Problem("missing file", "no.png")]


def test_names_that_are_not_unicode_are_named_in_print(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png", "b.png"])
    rows = [{"image": "a.png", "text": "a"}, {"image": "\udce9.png", "text": "b"}, {"image": "b.png", "id": "\udce9"}]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    problems = load_collection(tmp_path).problems
    assert [problem.what for problem in problems] == ["missing file", "malformed row"]
    assert problems[0].where == "\\udce9.png"


def test_folders_named_as_splits_are_splits(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["train/a.png", "val/a.png", "test/a.png"])
    for split in ("train", "val", "test"):
        (tmp_path / split / "metadata.jsonl").write_text(lines({"file_name": "a.png", "text": f"in {split}"}))
    collection = load_collection(tmp_path)
    assert by_id(collection) == {"train/a.png": ["in train"], "val/a.png": ["in val"], "test/a.png": ["in test"]}
    assert dict(zip(collection.ids, collection.splits, strict=True))["val/a.png"] == "validation"
    assert len({collection.image(row).getpixel((0, 0)) for row in range(3)}) == 3
    assert load_collection(tmp_path, split="dev").ids == ["val/a.png"]
    with pytest.raises(InputError, match=r"split 'holdout' of .* is empty; present: test, train, validation"):
        load_collection(tmp_path, split="holdout")


def test_files_named_as_splits_are_read_together(tmp_path: Path) -> None:
    put_pictures(tmp_path / "images", ["a.png", "b.png"])
    (tmp_path / "train.jsonl").write_text(lines({"file_name": "a.png", "captions": ["a"]}))
    (tmp_path / "dev.jsonl").write_text(lines({"file_name": "b.png", "captions": ["b"]}))
    collection = load_collection(tmp_path)
    assert dict(zip(collection.ids, collection.splits, strict=True)) == {"a.png": "train", "b.png": "validation"}


def test_pictures_may_lie_elsewhere(tmp_path: Path) -> None:
    put_pictures(tmp_path / "pool", ["a.png", "sub/a.png", "unused.png"])
    (tmp_path / "mine.jsonl").write_text(lines({"image": "a.png", "text": "1"}, {"image": "sub\\a.png", "text": "2"}))
    with pytest.raises(InputError, match=r"Nothing of mine can be used: 2 rows: 2 missing files \(a.png, sub"):
        load_collection(tmp_path / "mine.jsonl")
    collection = load_collection(tmp_path / "mine.jsonl", images=tmp_path / "pool")
    assert by_id(collection) == {"a.png": ["1"], "sub/a.png": ["2"]}
    assert collection.image(0).getpixel((0, 0)) != collection.image(1).getpixel((0, 0))
    with pytest.raises(InputError, match=r"image folder .*nowhere does not exist"):
        load_collection(tmp_path / "mine.jsonl", images=tmp_path / "nowhere")


def test_composed_and_decomposed_accents_mean_the_same_file(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["cafe\u0301.png"])
    (tmp_path / "captions.jsonl").write_text(lines({"file_name": "caf\u00e9.png", "text": "coffee"}))
    assert load_collection(tmp_path).captions == [["coffee"]]


def test_csv_with_mark_windows_newlines_commas_and_quotes(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png", "b, c.png"])
    text = (
        'file_name,caption\r\na.png,"A dog, a cat, and ""friends"""\r\na.png, "spaced, out" \r\n'.replace(
            '" \r\n', '"\r\n'
        )
        + "\r\n"
        '"b, c.png","two\nlines"\r\n'
        'a.png,5" nail\r\n'
    )
    (tmp_path / "captions.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    collection = load_collection(tmp_path)
    assert by_id(collection) == {
        "a.png": ['A dog, a cat, and "friends"', "spaced, out", '5" nail'],
        "b, c.png": ["two\nlines"],
    }
    assert not collection.problems


def test_csv_with_lists_and_with_numbered_columns(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png", "b.png", "c.png"])
    (tmp_path / "metadata.csv").write_text(
        'image,captions,split\na.png,"[""one, 1"", ""two""]",dev\nb.png,"[\'it\'\'s\', ""b""]",test\n'.replace(
            "''", "\\'"
        )
        + "c.png,[not a list],\n"
    )
    collection = load_collection(tmp_path)
    assert by_id(collection) == {"a.png": ["one, 1", "two"], "b.png": ["it's", "b"], "c.png": ["[not a list]"]}
    assert collection.splits == ["validation", "test", "all"]

    (tmp_path / "metadata.csv").write_text(
        "image,caption_10,caption_2,id\na.png,ten,two,x\nb.png,,only,y\nc.png,z,z,z\n"
    )
    assert by_id(load_collection(tmp_path)) == {"x": ["two", "ten"], "y": ["only"], "z": ["z", "z"]}


LANGUAGES = {"en": "a dog", "de": "ein Hund"}


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "text-files", "webdataset", "parquet"])
def test_captions_by_language_are_chosen_by_their_key_or_refused_by_name(kind: str, tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png", "b.png"])
    rows = [{"image": "a.png", "caption": LANGUAGES}, {"image": "b.png", "caption": {"en": "a cat"}}]
    if kind == "jsonl":
        (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "json":
        (tmp_path / "captions.json").write_text(json.dumps(rows))
    elif kind == "csv":
        with open(tmp_path / "captions.csv", "w", newline="") as handle:
            named = [("image", "caption"), *((row["image"], json.dumps(row["caption"])) for row in rows)]
            csv.writer(handle).writerows(named)
    elif kind == "text-files":
        for row in rows:
            (tmp_path / row["image"]).with_suffix(".json").write_text(json.dumps({"caption": row["caption"]}))
    elif kind == "webdataset":
        samples = {row["image"]: (tmp_path / row["image"]).read_bytes() for row in rows}
        samples |= {row["image"].replace("png", "json"): json.dumps(row).encode() for row in rows}
        write_tar(tmp_path / "0.tar", dict(sorted(samples.items())))
    else:
        Dataset.from_list(rows).to_parquet(tmp_path / "0.parquet")
    collection = load_collection(tmp_path, caption_columns="caption.en")
    assert collection.captions == [["a dog"], ["a cat"]]
    both = load_collection(tmp_path, caption_columns=["caption.de", "caption.en"])
    assert both.captions == [["ein Hund", "a dog"], ["a cat"]]
    with pytest.raises(InputError, match=r"keys '(en', 'de|de', 'en)', .* caption_columns='caption\.(en|de)' \("):
        load_collection(tmp_path)
    with pytest.raises(InputError, match=r"no column 'label\.en'"):
        load_collection(tmp_path, caption_columns="label.en")


def test_lists_of_captions_by_language_and_a_column_with_a_dot(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    put_pictures(tmp_path, ["a.png", "b.png"])
    rows = [
        {"image": "a.png", "captions": [LANGUAGES, {"en": "two"}]},
        {"image": "b.png", "captions": {"en": ["x", "y"]}},
    ]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load_collection(tmp_path, caption_columns="captions.en").captions == [["a dog", "two"], ["x", "y"]]
    assert "from the column 'captions.en'." in capsys.readouterr().err
    (tmp_path / "captions.jsonl").write_text('{"image": "a.png", "text.en": "a", "text": {"en": "b"}}\n')
    assert load_collection(tmp_path, caption_columns="text.en").captions == [["a"]]


def test_a_quote_that_is_not_closed_is_refused_where_it_opens(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png", "b.png", "c.png"])
    file = tmp_path / "captions.csv"
    file.write_text('image,caption\na.png,good\nb.png,"never closed\nc.png,swallowed\n')
    with pytest.raises(InputError, match=r"line 3 of captions\.csv is not closed .* line 4, its end; close it"):
        load_collection(tmp_path)
    file.write_text('image,caption\na.png,"Big dog\nb.png,a cat\nc.png,a screen of 27"\n')
    with pytest.raises(InputError, match=r"line 2 of captions\.csv swallows the rows from 'b\.png' on; close it"):
        load_collection(tmp_path)
    file.write_text('image,caption\na.png,"two lines\nand a comma, b.png"\nb.png,"cut')
    collection = load_collection(tmp_path)
    assert by_id(collection) == {"a.png": ["two lines\nand a comma, b.png"]}
    assert collection.problems[0] == Problem(
        "malformed row", "line 4 of captions.csv: unexpected end of data, up to line 4"
    )


def test_malformed_csv_rows_are_named(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png", "b.png"])
    (tmp_path / "captions.csv").write_bytes(
        b'image,caption\na.png,good\nb.png,a dog, a cat\nb.png\nb.png,caf\xe9\nb.png,"never" closed\nb.png,"cut'
    )
    collection = load_collection(tmp_path)
    assert by_id(collection) == {"a.png": ["good"]}
    assert [problem.where for problem in collection.problems] == [
        "line 3 of captions.csv: 3 cells for 2 columns, starting 'b.png'",
        "line 4 of captions.csv: 1 cells for 2 columns, starting 'b.png'",
        "line 5 of captions.csv: caf\\udce9",
        "line 6 of captions.csv: ',' expected after '\"', up to line 6",
        "line 7 of captions.csv: unexpected end of data, up to line 7",
    ]


def test_tsv_takes_quotes_as_they_stand(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png", "b.png"])
    rows = 'image\tcaption\na.png\t"Hi", he said\na.png\t"quoted ""well"""\nb.png\ta "b" c\nb.png\tone\ttwo\n'
    (tmp_path / "captions.tsv").write_text(rows)
    collection = load_collection(tmp_path)
    assert by_id(collection) == {"a.png": ['"Hi", he said', 'quoted "well"'], "b.png": ['a "b" c']}
    assert whats(collection) == ["malformed row"]


def test_tables_in_utf16_are_read(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["é.png"])
    (tmp_path / "captions.tsv").write_bytes("image\tcaption\r\né.png\tçà et là\r\n".encode("utf-16"))
    assert by_id(load_collection(tmp_path)) == {"é.png": ["çà et là"]}


def test_a_table_in_utf16_that_was_cut_keeps_its_whole_rows(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png", "b.png"])
    (tmp_path / "captions.csv").write_bytes("image,caption\na.png,one\nb.png,ça".encode("utf-16")[:-1])
    assert by_id(load_collection(tmp_path))["a.png"] == ["one"]


def test_a_number_too_long_to_read_loses_its_row_alone(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png"])
    (tmp_path / "captions.jsonl").write_text('{"image": "a.png", "text": "a"}\n{"n": ' + "1" * 5000 + "}\n")
    collection = load_collection(tmp_path)
    assert collection.texts == ["a"]
    assert whats(collection) == ["malformed row"]


def test_very_long_captions_survive(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png"])
    long = " ".join(f"wörd{number}" for number in range(30_000))
    (tmp_path / "captions.csv").write_text(f"image,caption\na.png,{long}\n", encoding="utf-8")
    assert load_collection(tmp_path).captions == [[long]]


def test_columns_can_be_named_and_missing_ones_are_refused(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png", "b.png"])
    (tmp_path / "table.csv").write_text("pic,long,short,key,part\na.png,A long one,A,7,valid\nb.png,B,,8,extra\n")
    collection = load_collection(
        tmp_path / "table.csv",
        image_column="pic",
        caption_columns=["short", "long"],
        id_column="key",
        split_column="part",
    )
    assert by_id(collection) == {"7": ["A", "A long one"], "8": ["B"]}
    assert collection.splits == ["validation", "extra"]
    with pytest.raises(InputError, match=r"table.csv has no known image column; .*'pic', 'long'"):
        load_collection(tmp_path / "table.csv")
    with pytest.raises(InputError, match=r"table.csv has no known caption column"):
        load_collection(tmp_path / "table.csv", image_column="pic")
    with pytest.raises(InputError, match=r"table.csv has no column 'shirt'; it has 'pic'"):
        load_collection(tmp_path / "table.csv", image_column="pic", caption_columns="shirt")
    (tmp_path / "rows.jsonl").write_text(lines({"image": "a.png", "text": "a", "part": "val"}, {"image": "b.png"}))
    assert load_collection(tmp_path / "rows.jsonl", split_column="part").splits == ["validation"]
    for options in ({"split_column": "prt"}, {"id_column": "prt"}, {"caption_columns": ["text", "prt"]}):
        with pytest.raises(InputError, match=r"rows has no column 'prt'; it has 'image', 'part', 'text'\."):
            load_collection(tmp_path / "rows.jsonl", **options)


@pytest.mark.parametrize(("suffix", "comma"), [("csv", ","), ("tsv", "\t")])
def test_columns_of_one_name_are_refused(suffix: str, comma: str, tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png"])
    table = tmp_path / f"captions.{suffix}"
    table.write_text("image,caption,caption,,\na.png,one,two,,\n".replace(",", comma))
    with pytest.raises(InputError, match=rf"captions\.{suffix} has 2 columns called 'caption'; rename all but one\."):
        load_collection(tmp_path)
    table.write_text("image,caption,,\na.png,one,,\n".replace(",", comma))
    assert load_collection(tmp_path).texts == ["one"]


def test_a_text_file_for_each_picture(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["train/a.png", "val/a.png", "train/b.png", "train/c.png"])
    (tmp_path / "train/a.txt").write_bytes(b"\xef\xbb\xbf one, two \r\n\r\nthree\r\n")
    (tmp_path / "val/a.txt").write_text("другое")
    (tmp_path / "train/b.txt").write_text(" \n")
    (tmp_path / "train/stray.txt").write_text("of nothing")
    collection = load_collection(tmp_path)
    assert by_id(collection) == {"train/a.png": ["one, two", "three"], "val/a.png": ["другое"]}
    assert collection.splits == ["train", "validation"]
    assert list(collection.problems) == [
        Problem("empty caption", "train/b.txt"),
        Problem("image without captions", "train/c.png"),
        Problem("caption for an unknown image", "train/stray.txt"),
    ]


def test_links_to_nowhere_and_unreadable_texts_are_named(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.png", "b.png"])
    for name in ("a", "gone"):
        (tmp_path / f"{name}.txt").write_text(name)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "b.txt").symlink_to(tmp_path / "nowhere.txt")
    collection = load_collection(tmp_path)
    assert by_id(collection) == {"a.png": ["a"]}
    assert list(collection.problems) == [
        Problem("unreadable file", "b.txt: No such file or directory"),
        Problem("missing file", "gone.png"),
    ]
    with pytest.raises(
        InputError, match=r"\(a text file for each picture\) has no columns to choose from; leave out id"
    ):
        load_collection(tmp_path, id_column="x")


def test_text_files_by_their_other_names_and_encodings(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a.tga", "b.JFIF", "c.png", "d.png", "e.png", "f.png"])
    (tmp_path / "a.caption").write_text("one")
    (tmp_path / "b.JFIF.txt").write_text("two")
    (tmp_path / "c.TXT").write_bytes("drei\r\nfünf".encode("utf-16"))
    (tmp_path / "d.txt").write_bytes("café".encode("cp1252"))
    (tmp_path / "e.txt").write_bytes("no mark".encode("utf-16-le"))
    (tmp_path / "f.txt").write_text("six")
    (tmp_path / "f.captions").write_text("another six")
    collection = load_collection(tmp_path)
    assert by_id(collection) == {"a.tga": ["one"], "b.JFIF": ["two"], "c.png": ["drei", "fünf"], "f.png": ["six"]}
    assert [(problem.what, problem.where.split(":")[0]) for problem in collection.problems] == [
        ("malformed caption", "d.txt"),
        ("malformed caption", "e.txt"),
        ("second caption file", "f.captions"),
    ]


def test_pictures_behind_linked_folders_are_read_and_links_to_nowhere_named(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["photos/a.png", "elsewhere/b.png"])
    for text in ("photos/a.txt", "elsewhere/b.txt"):
        (tmp_path / text).write_text("x")
    (tmp_path / "photos/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos/lost").symlink_to(tmp_path / "unmounted")
    collection = load_collection(tmp_path / "photos")
    assert collection.ids == ["a.png", "more/b.png"]
    assert list(collection.problems) == [Problem("link to nowhere", "lost")]
