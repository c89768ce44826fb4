"""Files that a pattern means, and files that a name means."""

from __future__ import annotations

from pathlib import Path

from boresight.data.files import expand, finder, key_of
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
