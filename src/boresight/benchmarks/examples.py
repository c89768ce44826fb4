"""Queries of a retrieval benchmark worth looking at: the best, the worst, and some at random, with their pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from boresight.benchmarks.record import EDITED, PICTURES, PLAIN
from boresight.data import Collection
from boresight.data.images import thumbnail
from boresight.editing import Scorer
from boresight.embeddings import Embeddings
from boresight.evaluation.examples import first_images, first_of_each, pick, rankings
from boresight.evaluation.retrieval import RetrievalScores
from boresight.seeds import generator
from boresight.storage import replace_file

TOP = 5


def retrieval_examples(
    embeddings: Embeddings,
    collection: Collection,
    folder: Path,
    results: Mapping[str, RetrievalScores],
    scorers: Mapping[str, Scorer],
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
        results, scorers: 'plain' and, where there is an editor, 'edited' -> its retrieval on `embeddings`, and itself.

    Raises InputError for a picture that cannot be read, and ArtefactError for a folder that cannot be written.
    """
    if embeddings.captions is None or not len(embeddings.owners):
        return []
    owners = embeddings.owners.numpy()
    if EDITED in results:
        picked = pick(results[PLAIN], results[EDITED], owners, per_rule, seed)
    else:
        picked = _extremes(results[PLAIN].t2i_ranks, owners, per_rule, seed)
    scores = {way: rankings(embeddings, scorers[way], [row for row, _ in picked]) for way in results}
    write = _picture_writer(collection, folder)

    def ranking(way: str, number: int, owner: int) -> list[dict[str, Any]]:
        images = first_images(embeddings, scores[way][:, number], owner, TOP)
        return [
            {"id": one.image_id, "rank": one.rank, "right": one.right, "picture": write(one.image_id)} for one in images
        ]

    return [
        {
            "rule": rule,
            "caption": embeddings.captions[row],
            "ranks": {way: float(result.t2i_ranks[row]) for way, result in results.items()},
            "rankings": {way: ranking(way, number, int(owners[row])) for way in results},
        }
        for number, (row, rule) in enumerate(picked)
    ]


def _extremes(ranks: np.ndarray, owners: np.ndarray, per_rule: int, seed: int) -> list[tuple[int, str]]:
    drawn = torch.randperm(len(ranks), generator=generator(seed, "benchmark examples")).numpy()
    best = drawn[np.argsort(ranks[drawn], kind="stable")]
    orders: dict[str, Sequence[int] | np.ndarray] = {
        "among the best": best,
        "among the worst": best[::-1],
        "drawn at random": drawn,
    }
    return first_of_each(orders, owners, per_rule)


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
