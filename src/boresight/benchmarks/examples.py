"""Queries of a retrieval benchmark worth looking at: the best, the worst, and some at random, with their pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from boresight.benchmarks.record import PICTURES
from boresight.data import Collection
from boresight.data.images import thumbnail
from boresight.editing import CaptionEditor, PlainScorer, Scorer
from boresight.embeddings import Embeddings
from boresight.evaluation.examples import RankedImage, first_images, first_of_each, pick, rankings
from boresight.evaluation.retrieval import RetrievalScores
from boresight.seeds import generator
from boresight.storage import replace_file

TOP = 5


def retrieval_examples(
    embeddings: Embeddings,
    collection: Collection,
    folder: Path,
    plain: RetrievalScores,
    edited: RetrievalScores | None = None,
    editor: CaptionEditor | None = None,
    *,
    per_rule: int = 2,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Caption queries with the first images of each ranking, as `BenchmarkRun.examples` keeps them.

    With an editor those whose true image rose most, fell most, and some at random; without one those that rank it
    best, those that rank it worst, and some at random. At most one caption an image.

    Args:
        collection: has the pictures of `embeddings`.
        folder: of the run; gets `pictures/`, the images shown, made small.

    Raises InputError for a picture that cannot be read, and ArtefactError for a folder that cannot be written.
    """
    if embeddings.captions is None or not len(embeddings.owners):
        return []
    if edited is not None and editor is not None:
        picked = pick(plain, edited, embeddings.owners.numpy(), per_rule, seed)
    else:
        picked = _extremes(plain.t2i_ranks, embeddings.owners.numpy(), per_rule, seed)
    rows = [row for row, _ in picked]
    ways: dict[str, tuple[Scorer, RetrievalScores]] = {"plain": (PlainScorer(), plain)}
    if editor is not None and edited is not None:
        ways["edited"] = editor, edited
    scores = {way: rankings(embeddings, scorer, rows) for way, (scorer, _) in ways.items()}
    write = _picture_writer(collection, folder)
    examples = []
    for number, (row, rule) in enumerate(picked):
        owner = int(embeddings.owners[row])
        shown = {way: first_images(embeddings, of_way[:, number], owner, TOP) for way, of_way in scores.items()}
        examples.append(
            {
                "rule": rule,
                "caption": embeddings.captions[row],
                "ranks": {way: float(result.t2i_ranks[row]) for way, (_, result) in ways.items()},
                "rankings": {way: [_kept(one, write) for one in images] for way, images in shown.items()},
            }
        )
    return examples


def _extremes(ranks: np.ndarray, owners: np.ndarray, per_rule: int, seed: int) -> list[tuple[int, str]]:
    drawn = torch.randperm(len(ranks), generator=generator(seed, "benchmark examples")).numpy()
    best = drawn[np.argsort(ranks[drawn], kind="stable")]
    orders: dict[str, Sequence[int] | np.ndarray] = {
        "among the best": best,
        "among the worst": best[::-1],
        "drawn at random": drawn,
    }
    return first_of_each(orders, owners, per_rule)


def _kept(ranked: RankedImage, write: Callable[[str], str]) -> dict[str, Any]:
    return {"id": ranked.image_id, "rank": ranked.rank, "right": ranked.right, "picture": write(ranked.image_id)}


def _picture_writer(collection: Collection, folder: Path) -> Callable[[str], str]:
    """A function that writes the small picture of an image, and gives its file below `folder`."""
    row_of = {identity: row for row, identity in enumerate(collection.ids)}
    written: dict[str, str] = {}

    def write(identity: str) -> str:
        if identity not in written:
            written[identity] = f"{PICTURES}/{hashlib.sha256(identity.encode()).hexdigest()[:16]}.webp"
            replace_file(folder / written[identity], thumbnail(collection.image(row_of[identity])))
        return written[identity]

    return write
