"""The page of runs on benchmarks: every figure beside those that were published, with pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from boresight.errors import InputError
from boresight.evaluation.benchmark_run import EDITED, BenchmarkRun, Published, published
from boresight.evaluation.figures import DotFigure, dot_figure
from boresight.evaluation.pages import page_from
from boresight.evaluation.results import Spread, replace_text

ROLES = {"plain": "baseline", EDITED: "ours"}


def write_benchmark_report(
    path: str | Path, runs: Sequence[BenchmarkRun], title: str = "Benchmarks of the field"
) -> None:
    """Write one HTML file: for each benchmark its runs, plain and edited, beside published figures with their source.

    Raises InputError without a run, and ArtefactError when the file cannot be written.
    """
    if not runs:
        raise InputError("There is no run to report; pass the folders that 'boresight evaluate --out' wrote.")
    together: dict[tuple[str, str], list[BenchmarkRun]] = {}
    for run in runs:
        together.setdefault((run.benchmark, run.subject), []).append(run)
    sections = [_section(each) for each in together.values()]
    page = page_from("benchmark_page.html", title=title, version=version("boresight"), sections=sections)
    replace_text(Path(path), page)


def _section(runs: Sequence[BenchmarkRun]) -> dict[str, Any]:
    measures = list(dict.fromkeys(name for run in runs for values in run.scores.values() for name in values))
    others = [each for each in published() if each.benchmark == runs[0].benchmark and each.measure in measures]
    sources = list(dict.fromkeys(each.source for each in others))
    by_model: dict[tuple[str, int], dict[str, float]] = {}
    for each in others:
        by_model.setdefault((each.model, 1 + sources.index(each.source)), {})[each.measure] = each.value
    rows = [
        {
            "name": run.model if way == "plain" else f"{run.model}, {way}",
            "note": f"by {run.editor}" if way == EDITED else "",
            "role": ROLES.get(way, "control"),
            "cells": [_cell(run, way, name) for name in measures],
        }
        for run in runs
        for way in run.scores
    ]
    rows = [row for place, row in enumerate(rows) if row not in rows[:place]]  # plain, of each editor's run
    rows += [
        {
            "name": model,
            "note": f"published [{source}]",
            "role": "control",
            "cells": [{"text": f"{values[name]:.1f}" if name in values else "", "sign": ""} for name in measures],
        }
        for (model, source), values in by_model.items()
    ]
    drawn = dict.fromkeys(name for run in runs for name in run.charts)
    return {
        "title": runs[0].heading,
        "measures": [f"{name} ↓" if any(name in run.lower for run in runs) else name for name in measures],
        "rows": rows,
        "sources": list(enumerate(sources, 1)),
        "charts": [_chart(name, runs, others) for name in drawn if any(_dots(run, name) for run in runs)],
        "figures": [(f"{run.model}: {told}", address) for run in runs for told, address in run.figures],
        "facts": [(run.model, list(run.facts.items())) for run in runs],
        "examples": [example for run in runs for example in run.examples],
    }


def _cell(run: BenchmarkRun, way: str, name: str) -> dict[str, str]:
    """Coloured where it differs from plain by more than a page shows: half of the last digit."""
    value = run.scores[way].get(name, math.nan)
    if not math.isfinite(value):
        return {"text": "", "sign": ""}
    digits = 1 if abs(value) >= 10 else 2
    gain = value - run.scores["plain"].get(name, value)
    better = gain < 0 if name in run.lower else gain > 0
    level = name in run.neutral or not abs(gain) > 0.5 * 10**-digits
    return {"text": f"{value:.{digits}f}", "sign": "" if level else "gain" if better else "loss"}


def _chart(name: str, runs: Sequence[BenchmarkRun], others: Sequence[Published]) -> DotFigure:
    tracks = [(run.model, dots) for run in runs if (dots := _dots(run, name))]
    largest = max(abs(value.mean) for _, dots in tracks for *_, value in dots)
    tracks += [
        (each.model, [("published", "control", Spread.of([each.value]))]) for each in others if each.measure == name
    ]
    return dot_figure(f"{name}; grey: published", tracks, digits=1 if largest >= 10 else 2)


def _dots(run: BenchmarkRun, name: str) -> list[tuple[str, str, Spread]]:
    found = {way: values[name] for way, values in run.scores.items() if name in values}
    return [
        (way, ROLES.get(way, "control"), Spread.of([value])) for way, value in found.items() if math.isfinite(value)
    ]
