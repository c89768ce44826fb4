"""The figures of a comparison: means, spreads, gains, table, csv and json."""

from __future__ import annotations

import csv
import json
import statistics
from dataclasses import asdict, replace

import pytest

from boresight.evaluation.comparison_figures import Comparison, HeldOut
from boresight.evaluation.comparison_rows import Row


def result(value):
    metrics = {"R@1": value, "R@5": value + 1, "R@10": value + 2, "median rank": 4.0, "MRR": value / 100}
    return {f"{side} {name}": by * number for side, by in (("T2I", 1), ("I2T", 2)) for name, number in metrics.items()}


@pytest.fixture
def comparison():
    rows = [Row("plain", "baseline", "as it is"), Row("edited", "ours", "masked")]
    runs = {"plain": {"-": result(20.0)}, "edited": {"5": result(24.0), "2": result(21.0), "3": result(22.5)}}
    for runs_of_row in runs.values():
        for found in runs_of_row.values():
            found["kinds"] = {"short": result(1.0), "long": result(2.0)}
    sets = [HeldOut("unseen", 1200, 3600, {"short": 1800, "long": 1800})]
    return Comparison(rows, sets, [5, 2, 3], {"unseen": runs}, {"5": {"l0": 30.0}}, {"Encoder": "tiny"})


def test_mean_and_sample_standard_deviation(comparison):
    spread = comparison.spread("unseen", "edited", "T2I R@1")
    assert spread.mean == pytest.approx(22.5)
    assert spread.deviation == pytest.approx(statistics.stdev([24, 21, 22.5]))
    assert spread.text() == "22.5 ± 1.5"
    plain = comparison.spread("unseen", "plain", "I2T R@5")
    assert (plain.mean, plain.deviation, plain.text()) == (42.0, None, "42.0")
    assert comparison.spread("unseen", "plain", "T2I R@1", "long").mean == 2.0


def test_gain_is_taken_seed_by_seed(comparison):
    gain = comparison.gain("unseen", "edited", "plain", "T2I R@1")
    assert (gain.mean, gain.deviation) == (pytest.approx(2.5), pytest.approx(1.5))
    itself = comparison.gain("unseen", "edited", "edited", "T2I R@1")
    assert (itself.mean, itself.deviation) == (0, 0)


def test_the_table_is_aligned_and_names_direction_and_spread(comparison):
    lines = str(comparison).splitlines()
    assert lines[0] == "unseen: 1,200 images, 3,600 captions; recall in %, mean ± standard deviation over 3 seeds"
    assert "caption to image (T2I)" in lines[1]
    assert "image to caption (I2T)" in lines[1]
    assert lines[2].split() == ["T2I", "R@1", "T2I", "R@5", "T2I", "R@10", "I2T", "R@1", "I2T", "R@5", "I2T", "R@10"]
    values = "edited 22.5 ± 1.5 23.5 ± 1.5 24.5 ± 1.5 45.0 ± 3.0 47.0 ± 3.0 49.0 ± 3.0"
    assert " ".join(lines[4].split()) == values
    assert len({len(line) for line in lines[2:]}) == 1
    assert comparison.table("unseen", "long").startswith("unseen, long captions: 1,200 images, 1,800 captions")


def test_the_table_of_one_seed_keeps_its_headings_apart(comparison):
    single = replace(
        comparison,
        seeds=comparison.seeds[:1],
        figures={
            test: {row: dict(list(runs.items())[:1]) for row, runs in rows.items()}
            for test, rows in comparison.figures.items()
        },
    )
    assert "T2I R@1  T2I R@5" in str(single)


def test_csv_holds_every_figure(comparison, tmp_path):
    comparison.save_csv(tmp_path / "deep" / "figures.csv")
    with open(tmp_path / "deep" / "figures.csv", newline="", encoding="utf-8") as handle:
        lines = list(csv.DictReader(handle))
    assert len(lines) == 4 * 3 * 2 * 5
    found = {tuple(line.values())[:-1]: float(line["value"]) for line in lines}
    assert found["unseen", "edited", "2", "all", "I2T R@10"] == 46
    assert found["unseen", "plain", "-", "long", "T2I MRR"] == 0.02


def test_json_keeps_everything_in_order(comparison, tmp_path):
    comparison.save_json(tmp_path / "figures.json")
    kept = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert kept == json.loads(json.dumps(asdict(comparison)))
    assert list(kept["tests"][0]["kinds"]) == ["short", "long"]
    assert list(kept["figures"]["unseen"]["edited"]) == ["5", "2", "3"]
