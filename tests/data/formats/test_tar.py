"""WebDataset shards."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from boresight.data import Problem, load_collection
from boresight.data.formats.tar import AMBIGUOUS, DAMAGE, FURTHER, members, open_stream, picture_in
from boresight.errors import InputError
from collection_files import picture, write_tar


def sample(key: str, caption: str = "text", number: int = 0) -> dict[str, bytes]:
    return {f"{key}.png": picture((number, 0, 0)), f"{key}.txt": caption.encode()}


def test_shards_of_a_folder_with_texts_and_json(tmp_path: Path) -> None:
    first = {
        "000.jpg": picture((255, 255, 255), "JPEG"),
        "000.txt": "\ufeffone, two\r\n\r\n drei ß \n".encode(),
        "000.json": json.dumps({"caption": "doubled", "url": "http://x", "key": "000"}).encode(),
        "sub/ünï.webp": picture((255, 255, 255), "WEBP"),
        "sub/ünï.json": json.dumps({"captions": ["a", " b "], "split": "dev"}).encode(),
        "sub/ünï.txt": b"not this",
        "001.png": picture(),
        "001.json": b'{"caption": "only json"}',
        "001.cls": b"3",
    }
    write_tar(tmp_path / "train" / "00000.tar", first)
    write_tar(tmp_path / "train" / "00001.tar", sample("000", "same key", 9))
    (tmp_path / "train" / "00000_stats.json").write_text('{"count": 3}')
    (tmp_path / "train" / "00000.parquet").write_bytes(b"an index beside the shard")
    collection = load_collection(tmp_path)
    assert collection.ids == [
        "train/00000/000",
        "train/00000/sub/ünï",
        "train/00000/001",
        "train/00001/000",
    ]
    assert collection.captions == [["one, two", "drei ß"], ["a", "b"], ["only json"], ["same key"]]
    assert collection.splits == ["train", "validation", "train", "train"]
    assert collection.dataset["url"][:] == ["http://x", None, None, None]
    assert not collection.problems
    cell = collection.dataset[3]["image"]
    assert cell["bytes"] is None
    assert cell["path"] == str(tmp_path / "train" / "00001.tar")
    assert [collection.image(row).getpixel((0, 0))[0] for row in range(4)] == [255, 255, 10, 9]


def test_one_shard_a_glob_and_braces(tmp_path: Path) -> None:
    for number in range(12):
        write_tar(tmp_path / f"s-{number:02d}.tar", sample("k", f"of {number}"))
    assert load_collection(tmp_path / "s-03.tar").texts == ["of 3"]
    assert len(load_collection(f"{tmp_path}/s-*.tar")) == 12
    assert load_collection(f"{tmp_path}/s-{{08..11}}.tar").texts == ["of 8", "of 9", "of 10", "of 11"]
    assert load_collection(f"{tmp_path}/s-{{05,01}}.tar").ids == ["s-05/k", "s-01/k"]
    gap = load_collection(f"{tmp_path}/s-{{11..12}}.tar")
    assert (gap.texts, list(gap.problems)) == (["of 11"], [Problem("missing shard", "s-12.tar")])
    with pytest.raises(InputError, match="No file matches"):
        load_collection(f"{tmp_path}/t-*.tar")


def test_named_columns_pick_members_and_keys(tmp_path: Path) -> None:
    info = {"caption": "c", "long": ["l1", "l2"], "uid": 42, "part": "valid"}
    members = {
        "a.mask.png": picture((1, 0, 0)),
        "a.photo.png": picture((2, 0, 0)),
        "a.json": json.dumps(info).encode(),
        "a.alt.txt": b"from a file",
    }
    write_tar(tmp_path / "x.tar", members)
    collection = load_collection(
        tmp_path / "x.tar",
        image_column="photo.png",
        caption_columns=["alt.txt", "long"],
        id_column="uid",
        split_column="part",
    )
    assert collection.ids == ["42"]
    assert collection.captions == [["from a file", "l1", "l2"]]
    assert collection.splits == ["validation"]
    assert collection.image(0).getpixel((0, 0))[0] == 2
    with pytest.raises(InputError, match=r"x has no column 'prt'; it has 'alt\.txt', 'caption', 'json', 'long'"):
        load_collection(tmp_path / "x.tar", split_column="prt")


def test_incomplete_and_repeated_samples_are_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        members = [
            ("ok.png", picture()),
            ("ok.txt", b"fine"),
            ("bare.png", picture()),
            ("text.txt", b"no picture"),
            ("ok.txt", b"again"),
            ("json.png", picture()),
            ("json.json", b"{broken"),
            ("blank.png", picture()),
            ("blank.txt", b"\n \n"),
            ("number.cls", b"1"),
        ]
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    collection = load_collection(tmp_path / "x.tar")
    assert collection.captions == [["fine"]]
    assert [(problem.what, problem.where.split(":")[0]) for problem in collection.problems] == [
        ("duplicate member", "ok.txt in x.tar"),
        ("image without captions", f"{tmp_path}/x.tar, bare in x.tar"),
        ("caption for an unknown image", "text in x.tar has no picture"),
        ("malformed row", "json in x.tar"),
        ("empty caption", "blank in x.tar"),
        ("malformed row", "number in x.tar has no picture"),
    ]


def test_a_truncated_shard_keeps_what_is_whole_wherever_it_is_cut(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    members = {name: data for key in names for name, data in sample(key, f"of {key}").items()}
    write_tar(tmp_path / "whole.tar", members)
    data = (tmp_path / "whole.tar").read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as tar:
        ends = {member.name: member.offset_data + member.size for member in tar}
        headers_end = tar.offset
    for cut in [*range(1, headers_end, 100), *ends.values(), headers_end]:
        (tmp_path / "cut.tar").write_bytes(data[:cut])
        whole = [f"cut/{key}" for key in names if ends[f"{key}.txt"] <= cut]
        if not whole:
            with pytest.raises(InputError, match=r"1 truncated shard \(cut\.tar: "):
                load_collection(tmp_path / "cut.tar")
            continue
        collection = load_collection(tmp_path / "cut.tar")
        assert collection.ids == whole
        assert [problem.what for problem in collection.problems] == ["truncated shard"]
        assert all(collection.image(row).size == (4, 3) for row in range(len(collection)))
        if ends["a.txt"] < cut < ends["b.png"] and cut > ends["a.txt"] + 1024:
            assert collection.problems[0].where == "cut.tar: b.png is cut off"


def test_a_damaged_header_in_the_middle_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {**sample("a"), **sample("b"), **sample("c")})
    with tarfile.open(tmp_path / "x.tar") as tar:
        place = tar.getmember("b.png").offset
    data = bytearray((tmp_path / "x.tar").read_bytes())
    data[place : place + 200] = b"x" * 200
    (tmp_path / "x.tar").write_bytes(data)
    collection = load_collection(tmp_path / "x.tar")
    assert collection.ids == ["x/a"]
    assert list(collection.problems) == [Problem("truncated shard", "x.tar: it is cut off or damaged after a.txt")]
    with pytest.raises(InputError, match=r"1 truncated shard \(x\.tar: .*\); mend them, or pass on_error='skip'"):
        load_collection(tmp_path / "x.tar", on_error="refuse")


def test_compressed_and_foreign_shards_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.txt"))
    with pytest.raises(InputError, match=r"x\.tar is compressed, .*; unpack it to a plain tar"):
        load_collection(tmp_path / "x.tar")
    (tmp_path / "y.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(InputError, match=r"Nothing of y can be used: 1 row: 1 truncated shard"):
        load_collection(tmp_path / "y.tar")
    (tmp_path / "z.tar").write_bytes(b"")
    with pytest.raises(InputError, match=r"1 truncated shard \(z\.tar: after the beginning: empty file\)"):
        load_collection(tmp_path / "z.tar")


def test_pictures_in_shards_are_checked(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {**sample("a"), "b.jpg": b"no picture", "b.txt": b"text"})
    assert len(load_collection(tmp_path / "x.tar")) == 2
    collection = load_collection(tmp_path / "x.tar", check_images=True)
    assert (collection.ids, list(collection.problems)) == (["x/a"], [Problem("corrupt image", "x/b")])


def test_a_stream_never_ends_in_silence_where_it_is_damaged(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {**sample("a"), **sample("b")})
    whole = (tmp_path / "x.tar").read_bytes()
    with tarfile.open(tmp_path / "x.tar") as tar:
        starts = [member.offset for member in tar]
    expected = [(0, "a", "png"), (0, "a", "txt"), (1, "b", "png"), (1, "b", "txt")]
    assert [one[:3] for one in members(open_stream(io.BytesIO(whole), "x.tar"))] == expected
    for count in (1, 2, 3):
        cut, torn = whole[: starts[count]], bytearray(whole)
        torn[starts[count] : starts[count] + 200] = b"x" * 200
        for damaged in (cut, bytes(torn)):
            stream = members(open_stream(io.BytesIO(damaged), "x.tar"))
            assert [next(stream)[:3] for _ in range(count)] == expected[:count]
            with pytest.raises(DAMAGE):
                next(stream)
    with pytest.raises(InputError, match=r"The shard x\.tar is no tar file \(.*\); restore it, then resume"):
        open_stream(io.BytesIO(b"no tar at all" * 100), "x.tar")


def test_the_picture_of_a_sample_has_the_plainest_suffix() -> None:
    seen, others = picture_in(["seg.png", "txt", "jpg", "png"], "a", "x.tar")
    assert (seen, others) == ("jpg", [Problem(FURTHER, "a.png in x.tar"), Problem(FURTHER, "a.seg.png in x.tar")])
    assert picture_in(["photo.png", "txt"], "a") == ("photo.png", [])
    assert picture_in(["v2.png", "v3.png"], "a") == (None, [Problem(AMBIGUOUS, "a.{v2.png,v3.png}")])
    assert picture_in(["json", "txt"], "a") == (None, [])


DOTTED = {
    "cat.png": picture((0, 0, 0)), "cat.txt": b"a cat", "cat.1.png": picture((1, 0, 0)), "cat.1.txt": b"another cat",
    "dog.txt": b"a dog", "dog.v2.png": picture((2, 0, 0)), "dog.v3.png": picture((3, 0, 0)), "dog.v3.txt": b"a third",
}  # fmt: skip


def test_further_pictures_under_a_name_are_counted_and_the_dot_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(tmp_path / "x.tar", DOTTED)
    collection = load_collection(tmp_path / "x.tar")
    assert (collection.captions, collection.image(0).getpixel((0, 0))[0]) == ([["a cat"]], 0)
    further, ambiguous = Problem(FURTHER, "cat.1.png in x.tar"), Problem(AMBIGUOUS, "dog.{v2.png,v3.png} in x.tar")
    assert list(collection.problems) == [further, ambiguous]
    said = capsys.readouterr().err
    assert "1 further picture of a sample (its name ends at the first dot) (cat.1.png in x.tar)" in said
    named = load_collection(tmp_path / "x.tar", image_column="v3.png", caption_columns="v3.txt")
    assert (named.captions, named.image(0).getpixel((0, 0))[0]) == ([["a third"]], 3)

    trip = {name: data for i in range(4) for name, data in sample(f"trip.2021.{i}").items()}
    write_tar(tmp_path / "trip.tar", trip)
    with pytest.raises(InputError, match=r"1 sample with several pictures \(its name ends at the first dot\) \(trip\."):
        load_collection(tmp_path / "trip.tar")


def test_members_that_lie_apart_are_joined(tmp_path: Path) -> None:
    names = [f"{key}.{suffix}" for suffix in ("png", "txt") for key in ("a", "b", "c")]
    members = {name: data for key in "abc" for name, data in sample(key, f"of {key}").items()}
    write_tar(tmp_path / "x.tar", {name: members[name] for name in names})
    assert load_collection(tmp_path / "x.tar", on_error="refuse").texts == ["of a", "of b", "of c"]
