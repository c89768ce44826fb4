"""Records of runs, and the table of published figures."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark_run import RUN
from boresight.benchmarks.record import BenchmarkRun, published_figures
from boresight.errors import ArtefactError
from boresight.evaluation.verdict import Verdict


def test_a_run_is_kept(tmp_path: Path) -> None:
    RUN.save(tmp_path / "run")
    assert BenchmarkRun.load(tmp_path / "run") == BenchmarkRun.load(tmp_path / "run" / "benchmark.json")
    kept = BenchmarkRun.load(tmp_path / "run")
    assert kept.scores == RUN.scores
    assert list(kept.scores["plain"]) == ["T2I R@1", "false rate", "odd", "told"]
    told = str(kept)
    assert "COCO, Karpathy test 5k, my <clip>, edited by mine" in told
    assert re.search(r"T2I R@1\s+31.25\s+33.50", told)
    assert "The edit" not in told
    said = Verdict("hurts", "plain, NNN", 50.0, 60.0, -10.0, -12.0, -8.0, "The edit hurts.", ("Few.",), {"bank": "9"})
    judged = replace(RUN, verdict=said)
    judged.save(tmp_path / "judged")
    assert BenchmarkRun.load(tmp_path / "judged").verdict == said
    assert str(judged).endswith("\n\nThe edit hurts.\nWarning: Few.\nbank: 9")
    changes = (
        {"verdict": {"word": "hurts"}},
        {"verdict": {"warnings": []}},
        {"scores": {"edited": {"a": 1.0}}},
        {"scores": {"plain": {"a": "12"}}},
        {"facts": []},
        {"examples": [{}]},
    )
    content = json.loads((tmp_path / "run" / "benchmark.json").read_text())
    misshapen = [json.dumps({**content, **change}) for change in changes]
    for text in (
        "{}",
        "[1]",
        '{"benchmark": 1',
        json.dumps({**content, "scores": {"plain": {"a": "b"}}}),
        *misshapen,
    ):
        (tmp_path / "torn.json").write_text(text)
        with pytest.raises(ArtefactError, match=r"torn.json holds no run"):
            BenchmarkRun.load(tmp_path / "torn.json")
    del content["format"]
    (tmp_path / "old.json").write_text(json.dumps(content))
    with pytest.raises(ArtefactError, match=r"a run of format 1 and this version reads format 2; delete .*old.json"):
        BenchmarkRun.load(tmp_path / "old.json")
    with pytest.raises(ArtefactError, match="boresight evaluate --out"):
        BenchmarkRun.load(tmp_path / "nowhere")


def test_published_figures_are_shares_with_a_source() -> None:
    rows = published_figures()
    assert len({(row.benchmark, row.model, row.measure, row.source) for row in rows}) == len(rows) > 150
    assert all(0 <= row.value <= 100 and row.source and row.model for row in rows)
    value = {(row.benchmark, row.model, row.measure): row.value for row in rows}
    assert value["coco-karpathy-5k", "ViT-B/32 openai", "I2T R@1"] == 50.1
    assert value["flickr30k-1k", "ViT-L/14 openai", "T2I R@1"] == 65.0
    assert value["winoground", "ViT-B/32 openai", "group"] == 8.0


def test_a_comparison_has_its_page_already(tmp_path: Path) -> None:
    (tmp_path / "comparison.html").write_text("")
    with pytest.raises(ArtefactError, match=r"holds a comparison, and its page is there already: .*comparison\.html"):
        BenchmarkRun.load(tmp_path)
