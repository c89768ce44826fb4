"""The page of one search: its answers in the edited order, with the plain one beside it, and why."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from boresight.reports.page import Thumbnail, page_from, picture_of
from boresight.reports.reasons import LISTED, latent_bars, memory_lists, score_table
from boresight.search import Reasons, Result, Results, SearchIndex
from boresight.search.query import PreparedQuery
from boresight.storage import replace_text

EXPLAINED = 3


def write_search_page(path: str | Path, results: Results, index: SearchIndex, *, explained: int = EXPLAINED) -> None:
    """Write the answers to one query as one HTML file, with the small pictures inside; it needs no script.

    Args:
        path: the HTML file; replaced whole or not at all.
        results: of `index`.
        explained: of how many answers, from the first on, the reasons are shown.

    Raises ArtefactError where the file cannot be written.

    Example:
        write_search_page("dogs.html", index.search("a dog leaping over a hurdle"), index)
    """
    query, words = results.prepared.query, _asked(results.prepared)
    orders = [_order("Edited order", "Marked is how far each moved against the plain cosine.", results, index)]
    if not results.edited:
        orders = [_order("Plain order", "By the plain cosine: this search is without an edit.", results, index)]
    elif len(results):
        plain = index.search_batch([replace(query, plain=True, latents={})], ranks=False)[0]
        ranks = {one.id: one.rank for one in results}
        where = [replace(one, plain_rank=ranks.get(one.id)) for one in plain]
        orders.append(
            _order("Plain order", "By the plain cosine; marked is where the edit puts each.", where, index, "edited")
        )
    facts = {
        "Index": str(index.snapshot().manifest.get("name") or index.folder.name),
        "Images": f"{len(index):,}",
        **({"Filter": f"{query.where}"} if query.where is not None else {}),
        "Encoder": index.made_by.get("encoder", "unknown"),
    }
    many = f"The {len(results):,} best of {results.matches:,} images"
    page = page_from(
        "search_page.html",
        title=words,
        lead=f"{many}." if len(results) else f"No image was found; the filter lets {results.matches:,} through.",
        facts=list(facts.items()),
        orders=orders if len(results) else [],
        reasons=[_why(results[at], results.reasons(at), index) for at in range(min(explained, len(results)))],
        version=version("boresight"),
    )
    replace_text(Path(path), page)


def _asked(prepared: PreparedQuery) -> str:
    """The query in words."""
    wanted = [_said(part.label, part.kind) for part in prepared.parts if part.weight >= 0]
    unwanted = [_said(part.label, part.kind) for part in prepared.parts if part.weight < 0]
    return " and ".join(wanted) + (f" without {' and '.join(unwanted)}" if unwanted else "")


def _said(label: str, kind: str) -> str:
    return f"“{label}”" if kind == "text" else f"like {label}"


def _order(title: str, note: str, answers: Any, index: SearchIndex, other: str = "was") -> dict[str, Any]:
    """One order, each answer with its rank in the other; of the plain order none where that is not among those."""
    cards = []
    for one in answers:
        moved = 0 if one.plain_rank is None else one.moved
        mark = f"{moved:+,}, {other} {one.plain_rank:,}".replace("-", "−") if moved and other == "was" else ""
        if other != "was" and one.plain_rank is not None:
            mark = f"{other} {one.plain_rank:,}"
        sign = "even" if other != "was" else "gain" if moved > 0 else "loss"
        cards.append({**_card(one, index), "score": f"{one.score:.3f}", "moved": mark, "sign": sign})
    return {"title": title, "note": note, "answers": cards}


def _card(one: Result, index: SearchIndex) -> dict[str, Any]:
    return {
        "rank": f"{one.rank:,}",
        "words": one.captions[0] if one.captions else one.id,
        "picture": picture_of(one.id, index.thumbnail(one.id)),
    }


def _why(one: Result, reasons: Reasons, index: SearchIndex) -> dict[str, Any]:
    thumbnail = _remembered(index)
    terms = []
    for term in reasons.terms:
        explanation = None if term.explanation is None else replace(term.explanation, top=LISTED).rounded()
        terms.append(
            {
                "title": f"{_figure(term.weight, 2)} × {_figure(term.score)}, {_said(term.label, term.kind)}",
                "score": None if explanation is None else score_table(explanation),
                "latents": [] if explanation is None else latent_bars(explanation),
                "memories": [] if explanation is None else memory_lists(explanation, thumbnail),
            }
        )
    switched = [f"latent {latent} switched: {_figure(effect)}" for latent, effect in reasons.switched.items()]
    return {**_card(one, index), "score": f"{reasons.score:.4f}", "terms": terms, "switched": switched}


def _figure(value: float, digits: int = 4) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _remembered(index: SearchIndex) -> Thumbnail:
    return lambda image: picture_of(image, index.thumbnail(image))
