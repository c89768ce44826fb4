"""The page of runs on benchmarks: every figure beside those that were published, with pictures."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from boresight.benchmarks.record import EDITED, PLAIN, BenchmarkRun, PublishedFigure, published_figures
from boresight.data.images import embedded
from boresight.errors import InputError
from boresight.evaluation.comparison_rows import PLAIN_NNN, PLAIN_SINKHORN
from boresight.reports.charts import dot_figure
from boresight.reports.page import page_from, picture_of, shelf_of
from boresight.storage import replace_text
from boresight.tables import Spread

PUBLISHED = "published"
RIVALS = (PLAIN_NNN.name, PLAIN_SINKHORN.name)
ROLES = {PLAIN: "baseline", EDITED: "ours", **dict.fromkeys(RIVALS, "opponent")}


def write_benchmark_report(
    path: str | Path, runs: Sequence[BenchmarkRun], title: str = "Benchmarks of the field"
) -> None:
    """Write one HTML file: for each benchmark its runs, plain and edited, beside published figures with their source.

    Runs on different data stand in tables of their own, and a run that is given twice counts once.

    Raises InputError without a run, and ArtefactError when the file cannot be written.
    """
    if not runs:
        raise InputError("There is no run to report; pass the folders that 'boresight evaluate --out' wrote.")
    together: dict[tuple[str, str, str], list[BenchmarkRun]] = {}
    for number, run in enumerate(runs):
        if run not in runs[:number]:
            together.setdefault((run.benchmark, run.subject, run.data), []).append(run)
    headings = Counter(each[0].heading for each in together.values())
    sections = [
        _section(f"{each[0].heading} (data {each[0].data})" if headings[each[0].heading] > 1 else each[0].heading, each)
        for each in together.values()
    ]
    page = page_from("benchmark_page.html", title=title, version=version("boresight"), sections=sections)
    replace_text(Path(path), page)


def _section(heading: str, runs: Sequence[BenchmarkRun]) -> dict[str, Any]:
    labels = _labels(runs)
    named = list(zip(runs, labels, _differences(runs, labels), strict=True))
    measures = list(dict.fromkeys(name for run in runs for values in run.scores.values() for name in values))
    others = [each for each in published_figures() if each.benchmark == runs[0].benchmark and each.measure in measures]
    sources = list(dict.fromkeys(each.source for each in others))
    rows = [
        {
            "name": label if way == PLAIN else f"{label}, {way}",
            "note": ", ".join(filter(None, (_whose(run, way), differs))),
            "role": ROLES.get(way, "control"),
            "cells": [_cell(run, way, name) for name in measures],
        }
        for run, label, differs in named
        for way in run.scores
    ]
    rows = [row for number, row in enumerate(rows) if row not in rows[:number]]  # plain, of each editor's run
    whose = [
        (", ".join(filter(None, (label, f"edited by {run.editor}" if run.editor else "", differs))), run)
        for run, label, differs in named
    ]
    drawn = dict.fromkeys(name for run in runs for name in run.charts)
    return {
        "title": heading,
        "measures": [f"{name} ↓" if any(name in run.lower for run in runs) else name for name in measures],
        "rows": rows + _published_rows(others, sources, measures),
        "sources": list(enumerate(sources, 1)),
        "charts": [_chart(name, whose, others) for name in drawn if any(_dots(run, name) for run in runs)],
        "figures": [_alignment(name, run) for name, run in whose if run.pairs],
        "verdicts": [(f"{name}: " if len(runs) > 1 else "", run.verdict) for name, run in whose if run.verdict],
        "facts": [(name, list(run.facts.items())) for name, run in whose],
        "examples": [
            _example(run, example, f"{name}: " if len(runs) > 1 else "")
            for name, run in whose
            for example in run.examples
        ],
    }


def _whose(run: BenchmarkRun, way: str) -> str:
    """Which editor edited, or remembered what a rival's hubness was measured with."""
    return f"by {run.editor}" if way == EDITED else f"beside {run.editor}" if way in RIVALS else ""


def _published_rows(
    figures: Sequence[PublishedFigure], sources: Sequence[str], measures: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for each model and source, which goes by its number."""
    by_model: dict[tuple[str, int], dict[str, float]] = {}
    for each in figures:
        by_model.setdefault((each.model, 1 + sources.index(each.source)), {})[each.measure] = each.value
    return [
        {
            "name": model,
            "note": f"published [{source}]",
            "role": PUBLISHED,
            "cells": [{"text": f"{values[name]:.1f}" if name in values else "", "sign": ""} for name in measures],
        }
        for (model, source), values in by_model.items()
    ]


def _labels(runs: Sequence[BenchmarkRun]) -> list[str]:
    """The model's name for each run, with the beginning of its fingerprint where several models go by the name."""
    fingerprints: dict[str, set[str]] = {}
    for run in runs:
        fingerprints.setdefault(run.model, set()).add(run.encoder_fingerprint)
    return [
        f"{run.model} ({run.encoder_fingerprint[:6]})" if len(fingerprints[run.model]) > 1 else run.model
        for run in runs
    ]


def _differences(runs: Sequence[BenchmarkRun], labels: Sequence[str]) -> list[str]:
    """For each run the facts in which it differs from others of the same model."""
    alike = [[other for other, its in zip(runs, labels, strict=True) if its == label] for label in labels]
    return [
        ", ".join(
            f"{name} {run.facts.get(name, 'none')}"
            for name in dict.fromkeys(name for other in others for name in other.facts)
            if any(other.facts.get(name) != run.facts.get(name) for other in others)
        )
        for run, others in zip(runs, alike, strict=True)
    ]


def _cell(run: BenchmarkRun, way: str, name: str) -> dict[str, str]:
    """Coloured where it differs from plain by more than a page shows: half of the last digit."""
    value = run.scores[way].get(name, math.nan)
    if not math.isfinite(value):
        return {"text": "", "sign": ""}
    digits = 1 if abs(value) >= 10 else 2
    gain = value - run.scores[PLAIN].get(name, value)
    better = gain < 0 if name in run.lower else gain > 0
    level = name in run.neutral or not abs(gain) > 0.5 * 10**-digits
    return {"text": f"{value:.{digits}f}", "sign": "" if level else "gain" if better else "loss"}


def _example(run: BenchmarkRun, example: Mapping[str, Any], whose: str) -> dict[str, Any]:
    """An example as the template shows it; `whose` says of which run it is."""

    def picture(image: Mapping[str, Any]) -> dict[str, Any]:
        file = None if run.folder is None else run.folder / image["picture"]
        return picture_of(image["id"], file.read_bytes() if file is not None and file.is_file() else None)

    return {
        "rule": example["rule"],
        "title": example["caption"],
        "note": f"{whose}rank of the true image {' → '.join(f'{rank:,.0f}' for rank in example['ranks'].values())}",
        "shelves": [
            {
                "label": way,
                "style": ROLES.get(way, "control"),
                "pictures": shelf_of((image["rank"], image["right"], picture(image)) for image in ranking),
            }
            for way, ranking in example["rankings"].items()
        ],
    }


def _alignment(name: str, run: BenchmarkRun) -> tuple[str, str]:
    """What the figure of the pairs shows, and its address."""
    from boresight.reports.alignment_chart import alignment_figure

    drawn = io.BytesIO()
    alignment_figure(run.scores, run.pairs).savefig(drawn, format="png", dpi=110)
    words = "Pairs of pictures and captions along their two main directions, and the measures above as bars"
    return f"{name}: {words}", embedded(drawn.getvalue(), "png")


def _chart(name: str, whose: Sequence[tuple[str, BenchmarkRun]], others: Sequence[PublishedFigure]) -> dict[str, Any]:
    """The figure, and what its colours mean."""
    tracks = [(label, dots) for label, run in whose if (dots := _dots(run, name))]
    largest = max(abs(value.mean) for _, dots in tracks for *_, value in dots)
    tracks += [
        (each.model, [(PUBLISHED, PUBLISHED, Spread.of([each.value]))]) for each in others if each.measure == name
    ]
    legend = dict.fromkeys((way, style) for _, dots in tracks for way, style, _ in dots)
    return {"drawn": dot_figure(name, tracks, digits=1 if largest >= 10 else 2), "legend": list(legend)}


def _dots(run: BenchmarkRun, name: str) -> list[tuple[str, str, Spread]]:
    """Of several rivals the best alone."""
    left_out = {way for way in RIVALS if run.verdict is None or run.verdict.rival != way}
    values = {way: of_way.get(name, math.nan) for way, of_way in run.scores.items() if way not in left_out}
    return [
        (way, ROLES.get(way, "control"), Spread.of([value])) for way, value in values.items() if math.isfinite(value)
    ]
