"""The report: one HTML file with everything in it, readable offline, without scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from boresight.data import Collection
from boresight.errors import InputError
from boresight.evaluation.comparison_figures import ALL_KINDS, Comparison, HeldOut
from boresight.evaluation.comparison_rows import Row
from boresight.evaluation.examples import EXAMPLE_RULE, GALLERY_RULE, Example, LatentCard
from boresight.evaluation.retrieval import DEPTHS, DIRECTIONS, RECALLS
from boresight.reports.charts import DotFigure, dot_figure
from boresight.reports.page import Thumbnail, page_from, shelf_of, thumbnails
from boresight.reports.reasons import LISTED, latent_bars, memory_lists, score_table
from boresight.storage import replace_text
from boresight.tables import Spread, signed

COLUMNS = (*(f"R@{k}" for k in DEPTHS), "MRR")
MEASURES = {
    "explained_variance": "explained variance",
    "l0": "active latents an image",
    "dead_share": "share of latents active in no image",
    "cosine": "cosine with the reconstruction",
    "retrieval_kept_r1": "T2I R@1 with reconstructions, over plain",
    "retrieval_kept_r10": "T2I R@10 with reconstructions, over plain",
}
COMPARED = ("baseline", "opponent", "ours")
_R1 = {f"{words}, R@1": (f"{direction} R@1",) for direction, words in DIRECTIONS.items()}


def write_report(
    path: str | Path,
    comparison: Comparison,
    examples: Sequence[Example] = (),
    gallery: Sequence[LatentCard] = (),
    *,
    pictures: Collection | Callable[[str], Image.Image] | None = None,
    title: str = "Plain and edited retrieval, side by side",
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write the page of a comparison.

    Args:
        path: the HTML file; replaced whole or not at all.
        examples, gallery: from `pick_examples` and `pick_latents`.
        pictures: where to find the picture of an image id; ids are shown where there is none.
        facts: what was run, shown before the comparison's own facts.

    Raises:
        InputError: a comparison without 'edited', or a picture that cannot be read, named.
        ArtefactError: the file cannot be written.
    """
    if not comparison.verdicts:
        raise InputError("The page sets 'edited' against the alternatives; compare with the row EDITED among `rows`.")
    thumbnail = thumbnails(pictures)
    page = page_from(
        "comparison_page.html",
        title=title,
        seeds=len(comparison.seeds),
        version=version("boresight"),
        headlines=[_headline(comparison, test) for test in comparison.tests],
        facts=list({**(facts or {}), **_facts(comparison)}.items()),
        directions=list(DIRECTIONS.values()),
        metrics=COLUMNS,
        sections=[_section(comparison, test) for test in comparison.tests],
        measures=_measures(comparison),
        measured_on=comparison.tests[0].name,
        examples=[_example(example, thumbnail) for example in examples],
        example_rule=EXAMPLE_RULE,
        gallery=[_card(card, thumbnail) for card in gallery],
        gallery_rule=GALLERY_RULE,
    )
    replace_text(Path(path), page)


def _rows(comparison: Comparison, *roles: str) -> list[Row]:
    return [row for row in comparison.rows if row.role in roles]


def _contrast(comparison: Comparison, test: HeldOut) -> list[Row]:
    """Plain, the best alternative (which plain may be) and ours: what headline and richness figures compare."""
    rival = comparison.verdicts[test.name].rival
    plain, ours = _rows(comparison, "baseline")[:1], _rows(comparison, "ours")[:1]
    return plain + [row for row in comparison.rows if row.name == rival and row not in plain] + ours


def _headline(comparison: Comparison, test: HeldOut) -> dict[str, Any]:
    """The difference to the best alternative; in colour where nothing warns of it."""
    said, rows = comparison.verdicts[test.name], _contrast(comparison, test)
    lines = []
    for words, measures in {"Sum of six recalls": RECALLS, **_R1}.items():
        means = [sum(comparison.spread(test.name, row.name, each).mean for each in measures) for row in rows]
        lines.append({"words": words, "values": [f"{mean:.1f}" for mean in means]})
    return {
        "test": test.name,
        "difference": signed(said.difference).replace("-", "−"),
        "interval": f"{signed(said.low)} to {signed(said.high)}".replace("-", "−"),
        "sign": "even" if said.warnings else {"helps": "gain", "level": "even", "hurts": "loss"}[said.word],
        "rival": said.rival,
        "sentence": said.sentence,
        "warnings": said.warnings,
        "rows": rows,
        "lines": lines,
    }


def _facts(comparison: Comparison) -> dict[str, str]:
    sizes = {f"Test: {test.name}": _size(test) for test in comparison.tests}
    seeds = {"Seeds": ", ".join(str(seed) for seed in comparison.seeds)}
    return {**sizes, **seeds, **{name: str(value) for name, value in comparison.facts.items()}}


def _size(test: HeldOut) -> str:
    missing = f"; left out: {test.left_out}" if test.left_out else ""
    return f"{test.n_images:,} images, {test.n_texts:,} captions{missing}"


def _section(comparison: Comparison, test: HeldOut) -> dict[str, Any]:
    columns = [(f"{direction} {metric}", _digits(metric)) for direction in DIRECTIONS for metric in COLUMNS]
    spreads = {
        row.name: [comparison.spread(test.name, row.name, measure) for measure, _ in columns] for row in comparison.rows
    }
    compared = {row.name for row in _rows(comparison, *COMPARED)}
    best = [
        max(round(spreads[name][column].mean, digits) for name in compared)
        for column, (_, digits) in enumerate(columns)
    ]

    def cell(name: str, column: int) -> dict[str, Any]:
        value, digits = spreads[name][column], columns[column][1]
        return {
            "mean": f"{value.mean:.{digits}f}",
            "deviation": None if value.deviation is None else f"{value.deviation:.{digits}f}",
            "best": name in compared and round(value.mean, digits) == best[column],
            "start": column % len(COLUMNS) == 0,
        }

    return {
        "title": test.name,
        "caption": f"{_size(test)}. Recall in percent; MRR from 0 to 1.",
        "rows": [
            {**asdict(row), "cells": [cell(row.name, column) for column in range(len(columns))]}
            for row in comparison.rows
        ],
        "charts": [_chart(comparison, test, direction) for direction in DIRECTIONS],
        "richness": [_richness(comparison, test, direction) for direction in DIRECTIONS] if test.kinds else [],
        "legend": [(row.name, row.role) for row in _contrast(comparison, test)],
    }


def _digits(metric: str) -> int:
    return 3 if metric == "MRR" else 1


def _chart(comparison: Comparison, test: HeldOut, direction: str) -> DotFigure:
    plain, measure = _rows(comparison, "baseline")[0], f"{direction} R@1"
    spreads = {row: comparison.spread(test.name, row.name, measure) for row in _rows(comparison, *COMPARED)}
    tracks = [(row.name, [(row.name, row.role, value)]) for row, value in spreads.items()]
    return dot_figure(
        f"{_sentence(DIRECTIONS[direction])}, R@1 in %; dashed: {plain.name}", tracks, spreads[plain].mean
    )


def _richness(comparison: Comparison, test: HeldOut, direction: str) -> DotFigure:
    def dots(kind: str) -> list[tuple[str, str, Spread]]:
        rows = _contrast(comparison, test)
        return [(row.name, row.role, comparison.spread(test.name, row.name, f"{direction} R@1", kind)) for row in rows]

    tracks = [(f"{kind} ({count:,})", dots(kind)) for kind, count in test.kinds.items() if kind != ALL_KINDS]
    return dot_figure(f"{_sentence(DIRECTIONS[direction])}, R@1 in %, by kind of caption", tracks)


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:]


def _measures(comparison: Comparison) -> list[tuple[str, str]]:
    runs = list(comparison.measures.values())
    if not runs:
        return []
    means = {name: sum(run[name] for run in runs) / len(runs) for name in runs[0]}
    return [(MEASURES.get(name, name.replace("_", " ")), f"{value:.3g}") for name, value in means.items()]


def _example(example: Example, thumbnail: Thumbnail) -> dict[str, Any]:
    before, after = (example.ranks[way] for way in ("plain", "edited"))
    shelves = {
        way: shelf_of((one.rank, one.right, thumbnail(one.id)) for one in example.rankings[way])
        for way in ("plain", "edited")
    }
    explained, shown = (
        None if each is None else replace(each, top=LISTED).rounded() for each in (example.explanation, example.shown)
    )
    return {
        "caption": example.caption,
        "kind": example.kind,
        "rule": example.rule,
        "before": f"{before:,.0f}",
        "after": f"{after:,.0f}",
        "sign": "gain" if after < before else "loss" if after > before else "even",
        **shelves,
        "score": None if explained is None else score_table(explained),
        "latents": [] if explained is None else latent_bars(explained),
        "memories": [] if explained is None else memory_lists(explained, thumbnail),
        "shown": None if shown is None else {"score": score_table(shown), "latents": latent_bars(shown)},
    }


def _card(card: LatentCard, thumbnail: Thumbnail) -> dict[str, Any]:
    sure = None if card.certainty is None else f"{card.certainty:.2f}"
    how = f"name sure to {sure}" if card.source != "vocabulary" else f"name of cosine {sure}, which nothing checked"
    return {
        "number": card.latent,
        "name": card.name,
        "share": f"{card.share:.1%}",
        "certainty": "" if sure is None else how,
        "pictures": [thumbnail(image_id) for image_id in card.image_ids],
    }
