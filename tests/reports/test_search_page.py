"""The page of one search: both orders with their marks, reasons that add up, pictures inside, and what is missing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from boresight.data import make_scenes
from boresight.editing import CaptionEditor
from boresight.embeddings import embed
from boresight.encoders import load_encoder
from boresight.models import default_editor_path, default_model_path
from boresight.reports import write_search_page
from boresight.search import SearchIndex

TEXT = "a red circle <left>"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> SearchIndex:
    encoder = load_encoder(default_model_path(), dtype="float32")
    drawn = make_scenes(12, split="test", seed=3)
    editor = CaptionEditor.load(default_editor_path(), "cpu")
    embeddings = embed(encoder, drawn, workers=0, dtype="float32")
    folder = tmp_path_factory.mktemp("page") / "index"
    return SearchIndex.create(folder, embeddings, editor=editor, collection=drawn, encoder=encoder)


def cards(page: str, title: str) -> list[tuple[str, str]]:
    """(rank, mark) of each answer under a heading."""
    section = page.split(f"<h2>{title}</h2>")[1].split("</ol>")[0]
    return re.findall(r"<b>(\d+)</b>(?: <span class=\"\w+\">([^<]*)</span>)?", section)


def test_both_orders_and_reasons_that_add_up(index: SearchIndex, tmp_path: Path) -> None:
    results = index.search(TEXT, without="a blue star", k=5)
    write_search_page(tmp_path / "page.html", results, index, explained=1)
    page = (tmp_path / "page.html").read_text()
    assert "<h1>“a red circle &lt;left&gt;” without “a blue star”</h1>" in page
    assert "The 5 best of 12 images." in page
    assert "<script" not in page
    assert not re.search(r"(src|href)=[\"']https?:", page)
    marks = [f"{one.moved:+}, was {one.plain_rank}".replace("-", "−") if one.moved else "" for one in results]
    assert cards(page, "Edited order") == [(str(one.rank), mark) for one, mark in zip(results, marks, strict=True)]
    edited = {one.id: one.rank for one in results}
    plain = index.search(TEXT, without="a blue star", k=5, plain=True)
    said = [f"edited {edited[one.id]}" if one.id in edited else "" for one in plain]
    assert cards(page, "Plain order") == [(str(one.rank), mark) for one, mark in zip(plain, said, strict=True)]
    assert page.count("data:image/webp;base64,") >= 11
    terms = re.findall(r"<h3>([+−][\d.]+) × ([+−][\d.]+), ", page)
    total = sum(float(weight.replace("−", "-")) * float(score.replace("−", "-")) for weight, score in terms)
    assert len(terms) == 2
    assert total == pytest.approx(results[0].score, abs=2e-4)


def test_without_an_edit_and_without_answers(index: SearchIndex, tmp_path: Path) -> None:
    results = index.search(TEXT, plain=True, k=3)
    write_search_page(tmp_path / "plain.html", results, index)
    page = (tmp_path / "plain.html").read_text()
    assert [rank for rank, _ in cards(page, "Plain order")] == ["1", "2", "3"]
    assert "Edited order" not in page
    write_search_page(tmp_path / "none.html", replace(results, items=(), matches=0), index)
    assert "No image was found; the filter lets 0 through." in (tmp_path / "none.html").read_text()
