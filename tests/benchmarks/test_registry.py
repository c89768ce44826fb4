"""Benchmarks by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from boresight.benchmarks.registry import RETRIEVAL, open_published
from boresight.benchmarks.retrieval import PublishedRetrieval
from boresight.errors import InputError


@pytest.fixture(autouse=True)
def spoken(monkeypatch):
    monkeypatch.delenv("BORESIGHT_QUIET", raising=False)


@pytest.mark.parametrize("published", RETRIEVAL.values(), ids=RETRIEVAL)
def test_every_benchmark_asks_for_its_file(published: PublishedRetrieval, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs .*, which .* lacks; it is published at https://"):
        open_published(published.name, tmp_path)
    with pytest.raises(InputError, match="There is no folder"):
        open_published(published.name, tmp_path / "nowhere")


def test_names_and_titles_are_apart() -> None:
    assert len({published.title for published in RETRIEVAL.values()}) == len(RETRIEVAL) == 18
    assert all(published.name == name for name, published in RETRIEVAL.items())
    with pytest.raises(InputError, match="There is no benchmark 'coco'; choose one of coco-karpathy-5k"):
        open_published("coco", ".")
