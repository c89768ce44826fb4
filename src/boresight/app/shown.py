"""Answers, reasons and verdicts as the JSON that `schemas` describes."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

from boresight.editing import Explanation
from boresight.editing.explanation import LatentEffect, RememberedPair
from boresight.evaluation.comparison_figures import Comparison
from boresight.evaluation.retrieval import RECALLS
from boresight.search import Reasons, Results


def address_of(image: str, what: str) -> str:
    """Of an image's 'thumbnail' or 'original'. Ids may hold slashes and dots, so they stand in the query."""
    return f"/api/images/{what}?id={quote(image, safe='')}"


def columns_of(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of an image as JSON can hold them: no NaN, dates as text."""
    return {name: _plain(value) for name, value in columns.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def answer_of(results: Results, pictures: bool) -> dict[str, Any]:
    """The answers to a query; pictures: whether the index has thumbnails."""
    return {
        "matches": results.matches,
        "edited": results.edited,
        "exact": results.exact,
        "results": [
            {
                "id": one.id,
                "score": one.score,
                "plain_score": one.plain_score,
                "rank": one.rank,
                "plain_rank": one.plain_rank,
                "moved": one.moved,
                "captions": list(one.captions),
                "split": one.split,
                "columns": columns_of(one.columns),
                "thumbnail": address_of(one.id, "thumbnail") if pictures else None,
            }
            for one in results
        ],
    }


def reasons_of(reasons: Reasons, label: Callable[[int], str]) -> dict[str, Any]:
    """Why an image has its score; label: of a latent."""
    return {
        "id": reasons.id,
        "score": reasons.score,
        "terms": [
            {
                "label": term.label,
                "kind": term.kind,
                "weight": term.weight,
                "score": term.score,
                "plain_score": term.score if term.explanation is None else term.explanation.plain_score,
                "explanation": None if term.explanation is None else _explanation(term.explanation),
            }
            for term in reasons.terms
        ],
        "switched": [
            {"latent": latent, "label": label(latent), "effect": effect} for latent, effect in reasons.switched.items()
        ],
    }


def _explanation(said: Explanation) -> dict[str, Any]:
    return {
        "grid": {name: dict(row) for name, row in said.grid.items()},
        "hubness": dict(said.hubness),
        "parts": said.parts,
        "caption_parts": said.caption_parts,
        "unlisted": said.unlisted,
        "latents_kept": _latents(said.kept),
        "latents_dropped": _latents(said.dropped),
        "image_memory": _pairs(said.image_memory[: said.top]),
        "text_memory": _pairs(said.text_memory[: said.top]),
    }


def _latents(latents: Iterable[LatentEffect]) -> list[dict[str, Any]]:
    names = ("index", "label", "certainty", "activation", "mask", "kept", "dropped")
    return [{name: getattr(one, name) for name in names} for one in latents]


def _pairs(pairs: Iterable[RememberedPair]) -> list[dict[str, Any]]:
    names = ("row", "image_id", "weight", "effect")
    return [{**{name: getattr(one, name) for name in names}, "captions": list(one.captions)} for one in pairs]


def verdict_of(comparison: Comparison) -> dict[str, Any]:
    """The tables of a comparison and what it says of the editor."""
    tests = []
    for held in comparison.tests:
        verdict = comparison.verdicts.get(held.name)
        rows = [
            {
                "name": row.name,
                "role": row.role,
                "meaning": row.meaning,
                "values": [comparison.spread(held.name, row.name, measure).mean for measure in RECALLS],
            }
            for row in comparison.rows
        ]
        tests.append(
            {
                "name": held.name,
                "images": held.n_images,
                "captions": held.n_texts,
                "measures": list(RECALLS),
                "rows": rows,
                "word": "" if verdict is None else verdict.word,
                "sentence": "" if verdict is None else verdict.sentence,
                "warnings": [] if verdict is None else list(verdict.warnings),
            }
        )
    return {"seeds": list(comparison.seeds), "tests": tests}
