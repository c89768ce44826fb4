"""Files that a pattern means, and files that a name means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from boresight.data import Problem
from boresight.data.files import expand, finder, key_of, walk
from collection_files import put_pictures


def test_braces_expand_as_in_a_shell() -> None:
    assert [str(file) for file in expand("a{9..11}.tar")] == ["a9.tar", "a10.tar", "a11.tar"]
    assert [str(file) for file in expand("{a,b}{00..01}")] == ["a00", "a01", "b00", "b01"]
    assert [str(file) for file in expand("{098..101}")] == ["098", "099", "100", "101"]


def test_a_name_finds_its_file_below_the_first_base_that_has_it(tmp_path: Path) -> None:
    put_pictures(tmp_path, ["a/one.png", "b/one.png", "b/two.png", "val2014/three.png"])
    find = finder([tmp_path / "a", tmp_path / "b", tmp_path / "val2014"])
    assert find("one.png") == str(tmp_path / "a" / "one.png")
    assert find(" two.png ") == str(tmp_path / "b" / "two.png")
    assert find("val2014\\three.png") == str(tmp_path / "val2014" / "three.png")
    assert find("four.png") is find("") is find("one\0.png") is None
    assert [key_of(name) for name in ("./a//b.jpg", "a\\b.jpg", "a/b.jpg")] == ["a/b.jpg"] * 3


def test_linked_folders_are_walked_each_once_and_what_cannot_be_is_named(tmp_path: Path) -> None:
    photos, other = tmp_path / "photos", tmp_path / "other"
    put_pictures(tmp_path, ["photos/here/1.png", "photos/.store/2.png", "other/sub/3.png", "other/4.png"])
    (photos / "phone.heic").write_bytes(b"")
    links = {
        "again": other,  # followed first, by name
        "more": other,
        "part": other / "sub",  # so not met again within "again"
        "twin": photos / "here",  # met by itself
        "stored": photos / ".store",  # hidden, so met by nothing but this link
        "loop": photos,
        "up": tmp_path,
        "lost": tmp_path / "unmounted",
        "lost.png": tmp_path / "gone.png",
    }
    for name, target in links.items():
        (photos / name).symlink_to(target)
    problems: list[Problem] = []
    files = [Path(file).relative_to(photos).as_posix() for file in walk(photos, problems)]
    assert files == ["lost.png", "again/4.png", "here/1.png", "part/3.png", "stored/2.png"]
    assert problems == [
        Problem("link to nowhere", "lost"),
        Problem("picture of a format that is not read", "phone.heic"),
        Problem("link to a folder above", "up"),
    ]


def test_folders_without_the_right_to_list_them_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_pictures(tmp_path, ["a/1.png", "b/2.png"])
    real = os.scandir

    def scandir(folder: str) -> object:
        if folder.endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    problems: list[Problem] = []
    assert [os.path.basename(file) for file in walk(tmp_path, problems)] == ["2.png"]
    assert problems == [Problem("unreadable folder", "a: Permission denied")]
