"""Queries of a retrieval benchmark worth looking at: the best, the worst, and some at random, with their pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from boresight.data import Collection
from boresight.editing import CaptionEditor, PlainScorer, Scorer
from boresight.embeddings import Embeddings
from boresight.evaluation.examples import first_of_each, pick, places_of, rankings
from boresight.evaluation.retrieval import RetrievalResult
from boresight.reports.page import shelf_of, thumbnails
from boresight.seeds import generator

TOP = 5


def retrieval_examples(
    embeddings: Embeddings,
    pictures: Collection | Callable[[str], Image.Image],
    plain: RetrievalResult,
    edited: RetrievalResult | None = None,
    editor: CaptionEditor | None = None,
    *,
    per_rule: int = 2,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Caption queries with the first images of each ranking, as `BenchmarkRun.examples` keeps them.

    With an editor those whose true image rose most, fell most, and some at random; without one those that rank it
    best, those that rank it worst, and some at random. At most one caption an image.
    """
    if embeddings.captions is None or not len(embeddings.owners):
        return []
    if edited is not None and editor is not None:
        picked = pick(plain, edited, embeddings.owners.numpy(), per_rule, seed)
    else:
        picked = _extremes(plain.t2i_ranks, embeddings.owners.numpy(), per_rule, seed)
    rows = [row for row, _ in picked]
    ways: dict[str, tuple[Scorer, RetrievalResult]] = {"plain": (PlainScorer(), plain)}
    if editor is not None and edited is not None:
        ways["edited"] = editor, edited
    scores = {way: rankings(embeddings, scorer, rows) for way, (scorer, _) in ways.items()}
    thumbnail = thumbnails(pictures)
    found = []
    for number, (row, rule) in enumerate(picked):
        owner = int(embeddings.owners[row])
        ranks = " → ".join(f"{result.t2i_ranks[row]:,.0f}" for _, result in ways.values())
        shelves = [
            {
                "label": way,
                "style": "baseline" if way == "plain" else "ours",
                "pictures": shelf_of(places_of(embeddings, scores[way][:, number], owner, TOP), thumbnail),
            }
            for way in ways
        ]
        title = embeddings.captions[row]
        found.append({"rule": rule, "title": title, "note": f"rank of the true image {ranks}", "shelves": shelves})
    return found


def _extremes(ranks: np.ndarray, owners: np.ndarray, per_rule: int, seed: int) -> list[tuple[int, str]]:
    drawn = torch.randperm(len(ranks), generator=generator(seed, "benchmark examples")).numpy()
    best = drawn[np.argsort(ranks[drawn], kind="stable")]
    orders = {"among the best": best, "among the worst": best[::-1], "drawn at random": drawn}
    return first_of_each(orders, owners, per_rule)
