"""The page of runs on benchmarks: figures, published ones, pictures, and what is kept apart."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from benchmark_run import RUN
from boresight.benchmarks.record import BenchmarkRun
from boresight.data.images import thumbnail
from boresight.errors import InputError
from boresight.evaluation.verdict import Verdict
from boresight.reports.benchmark_page import write_benchmark_report


def cells(page: str) -> dict[str, list[tuple[str, str]]]:
    """Row's name -> (class, text) of each cell, read back from the page."""
    rows = {}
    for row in re.findall(r"<tr class=\"\w+\"><th scope=\"row\">(.*?)</tr>", page, re.DOTALL):
        name = re.match(r"[^<]*", row)[0]
        rows[name] = re.findall(r"<td><b(?: class=\"(\w+)\")?>([^<]*)</b></td>", row)
    return rows


def test_the_page(tmp_path: Path) -> None:
    other = replace(RUN, model="other", editor="", scores={"plain": {"T2I R@1": 12.0}}, facts={})
    third = replace(RUN, benchmark="mine", title="My own", model="third", scores={"plain": {"T2I R@1": 50.0}})
    write_benchmark_report(tmp_path / "page.html", [RUN, other, third])
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert not re.search(r"(src|href)=[\"']https?:", page)
    assert page.count("<h2>") == 2
    rows = cells(page)
    assert rows["my &lt;clip&gt;"] == [("", "31.2"), ("", "20.0"), ("", "1.00"), ("", "60.0")]
    assert rows["my &lt;clip&gt;, edited"] == [("gain", "33.5"), ("loss", "25.0"), ("", "1.00"), ("", "50.0")]
    assert rows["other"] == [("", "12.0"), ("", ""), ("", ""), ("", "")]
    assert rows["ViT-B/32 openai"] == [("", "30.4"), ("", ""), ("", ""), ("", "")]
    assert "false rate ↓" in page
    assert page.count("[1] open_clip docs/openclip_retrieval_results.csv") == 1
    assert "ViT-B/32 openai: published 30.4" in page  # the figure in words
    small = replace(RUN, benchmark="mine", scores={"plain": {"RMG": 0.25}, "edited": {"RMG": 0.22}}, charts=("RMG",))
    write_benchmark_report(tmp_path / "small.html", [replace(small, lower=("RMG",))])
    page = (tmp_path / "small.html").read_text()
    assert cells(page)["my &lt;clip&gt;, edited"] == [("gain", "0.22")]
    assert "plain 0.25, edited 0.22" in page
    with pytest.raises(InputError, match="no run to report"):
        write_benchmark_report(tmp_path / "none.html", [])


def test_the_page_keeps_apart_what_differs(tmp_path: Path) -> None:
    def page_of(*runs: BenchmarkRun) -> str:
        write_benchmark_report(tmp_path / "page.html", runs)
        return (tmp_path / "page.html").read_text()

    example = {"rule": "drawn at random", "caption": "a dog", "ranks": {"plain": 3.0}, "rankings": {}}
    mine = replace(RUN, benchmark="retrieval", title="Retrieval", subject="captions, test", data="aaaa", editor="")
    mine = replace(mine, model="model", scores={"plain": {"T2I R@1": 10.0}}, examples=[example])
    assert page_of(mine) == page_of(mine, replace(mine))  # the same run, given twice
    page = page_of(mine, replace(mine, data="bbbb"))
    assert re.findall(r"<h2>(.*?)</h2>", page) == [
        f"Retrieval: captions, test (data {data})" for data in ("aaaa", "bbbb")
    ]
    page = page_of(mine, replace(mine, encoder_fingerprint="11", scores={"plain": {"T2I R@1": 20.0}}))
    assert page.count("<h2>") == 1
    assert cells(page) == {"model (00)": [("", "10.0")], "model (11)": [("", "20.0")]}
    assert "model (00): plain 10.0" in page or "model (00): 10.0" in page  # the figure in words
    assert "model (11): rank of the true image 3" in page  # an example says whose it is
    page = page_of(mine, replace(mine, facts={"images": "5,000", "seed": "1"}))
    assert "<small>seed 1</small>" in page
    assert "<small>seed none</small>" in page


def test_only_what_was_published_looks_so(tmp_path: Path) -> None:
    scores = {way: {"T2I R@1": value} for way, value in (("plain", 30.0), ("edited", 32.0), ("shuffled images", 31.0))}
    write_benchmark_report(tmp_path / "page.html", [replace(RUN, scores=scores)])
    page = (tmp_path / "page.html").read_text()
    roles = dict(re.findall(r"<tr class=\"(\w+)\"><th scope=\"row\">([^<]*)", page))
    assert "published" in roles
    assert '<tr class="control"><th scope="row">my &lt;clip&gt;, shuffled images' in page
    legend = re.search(r"<p class=\"legend\">(.*?)</p>", page)[1]
    assert re.findall(r"</i>([^<]*)</span>", legend) == ["plain", "edited", "shuffled images", "published"]
    write_benchmark_report(tmp_path / "page.html", [replace(RUN, scores=scores, benchmark="alignment")])
    assert 'class="published"' not in (tmp_path / "page.html").read_text()


def test_what_could_be_done_instead_stands_beside_the_edit_with_the_verdict(tmp_path: Path) -> None:
    scores = {way: {"T2I R@1": value} for way, value in (("plain", 30.0), ("plain, NNN", 33.0), ("edited", 32.0))}
    said = Verdict(
        "hurts", "plain, NNN", 32.0, 33.0, -1.0, -1.5, -0.5, "The edit hurts <here>.", ("Few.",), {"bank": "9"}
    )
    scores["plain, Sinkhorn"] = {"T2I R@1": 31.0}
    run = replace(RUN, scores=scores, verdict=said)
    write_benchmark_report(tmp_path / "page.html", [run, replace(run, editor="other", verdict=None)])
    page = (tmp_path / "page.html").read_text()
    assert page.count('<tr class="opponent"><th scope="row">my &lt;clip&gt;, plain, NNN<small>beside mine') == 1
    assert "<small>beside other</small>" in page
    assert "<b>my &lt;clip&gt;, edited by mine: The edit hurts &lt;here&gt;.</b>" in page
    assert page.count("The edit hurts") == 1
    assert '<p class="small warning">Few.</p>' in page
    assert "bank: 9." in page
    legend = re.search(r"<p class=\"legend\">(.*?)</p>", page)[1]  # of the rivals the best
    assert re.findall(r"</i>([^<]*)</span>", legend) == ["plain", "plain, NNN", "edited", "published"]


def test_the_page_shows_kept_pictures_and_ids_of_others(tmp_path: Path) -> None:
    (tmp_path / "run" / "pictures").mkdir(parents=True)
    (tmp_path / "run" / "pictures" / "a.webp").write_bytes(thumbnail(Image.new("RGB", (400, 200))))
    images = [
        {"id": "a", "rank": 1, "right": False, "picture": "pictures/a.webp"},
        {"id": "b <c>", "rank": 7, "right": True, "picture": "pictures/b.webp"},
    ]
    example = {"rule": "drawn at random", "caption": "a dog", "ranks": {"plain": 7.0, "edited": 2.0}}
    replace(RUN, examples=[{**example, "rankings": {"plain": images}}]).save(tmp_path / "run")
    write_benchmark_report(tmp_path / "page.html", [BenchmarkRun.load(tmp_path / "run")])
    page = (tmp_path / "page.html").read_text()
    assert "rank of the true image 7 → 2" in page
    assert re.search(r'<li class="">\s*<img src="data:image/webp;base64,[^"]*" [^>]*width="160" height="80">', page)
    assert re.search(r'<li class="right apart">\s*<span class="missing">b &lt;c&gt;</span>', page)
    (tmp_path / "run" / "pictures" / "a.webp").write_bytes(b"torn")
    with pytest.raises(InputError, match="The picture of 'a' is corrupt"):
        write_benchmark_report(tmp_path / "page.html", [BenchmarkRun.load(tmp_path / "run")])


def test_pairs_are_drawn_when_the_page_is_made(tmp_path: Path) -> None:
    points = {"images": [[0.0, 1.0], [1.0, 0.5]], "texts": [[0.1, 0.9], [0.8, 0.4]]}
    replace(RUN, pairs={"plain": points}).save(tmp_path / "run")
    assert "base64" not in (tmp_path / "run" / "benchmark.json").read_text()
    write_benchmark_report(tmp_path / "page.html", [BenchmarkRun.load(tmp_path / "run")])
    page = (tmp_path / "page.html").read_text()
    assert page.count('src="data:image/png;base64,') == 1
    assert "Pairs of pictures and captions along their two main directions" in page
