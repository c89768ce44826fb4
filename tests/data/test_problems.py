"""What was wrong with a source, in one sentence."""

from __future__ import annotations

from boresight.data.problems import Problem, is_unicode, printable, summary


def test_a_summary_counts_each_kind_and_names_three_of_it() -> None:
    missing = [Problem("missing file", f"{name}.jpg") for name in "abcd"]
    assert summary([]) == ""
    assert summary(missing[:1]) == "1 row: 1 missing file (a.jpg)"
    assert summary(
        [*missing, Problem("image without captions", "e.jpg"), Problem("image without captions", "f.jpg")]
    ) == ("6 rows: 4 missing files (a.jpg, b.jpg, c.jpg, ...), 2 images without captions (e.jpg, f.jpg)")
    links = [Problem("link to nowhere", "a"), Problem("link to nowhere", "b")]
    assert summary(links) == "2 rows: 2 links to nowhere (a, b)"


def test_lone_surrogates_are_told_and_spelt_out() -> None:
    assert is_unicode("ß 写")
    assert not is_unicode("a\udcff")
    assert not is_unicode("a\0")
    assert printable("a\udcff") == "a\\udcff"
