"""Queries of a retrieval benchmark worth looking at: the best, the worst, and some at random, with their pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boresight.benchmarks.record import PICTURES
from boresight.data import Collection
from boresight.data.images import thumbnail
from boresight.editing import Scorer
from boresight.embeddings import Embeddings
from boresight.evaluation.examples import ranked_queries
from boresight.evaluation.retrieval import RetrievalScores
from boresight.storage import replace_file


def retrieval_examples(
    embeddings: Embeddings,
    collection: Collection,
    folder: Path,
    results: Mapping[str, RetrievalScores],
    scorers: Mapping[str, Scorer],
    *,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Caption queries with the first images of each ranking, as `BenchmarkRun.examples` keeps them: `ranked_queries`.

    Args:
        collection: has the pictures of `embeddings`.
        folder: of the run; gets `pictures/`, the images shown, made small.
        results, scorers: 'plain' and, where there is an editor, 'edited' -> its retrieval on `embeddings`, and itself.

    Raises InputError for a picture that cannot be read, and ArtefactError for a folder that cannot be written.
    """
    if embeddings.captions is None:
        return []
    row_of = {identity: row for row, identity in enumerate(collection.ids)}
    written: dict[str, str] = {}

    def write(identity: str) -> str:
        """The file of an image made small, below `folder`."""
        if identity not in written:
            written[identity] = f"{PICTURES}/{hashlib.sha256(identity.encode()).hexdigest()[:16]}.webp"
            replace_file(folder / written[identity], thumbnail(collection.image(row_of[identity])))
        return written[identity]

    return [
        {
            "rule": query.rule,
            "caption": query.caption,
            "ranks": query.ranks,
            "rankings": {
                way: [{**vars(one), "picture": write(one.id)} for one in images]
                for way, images in query.rankings.items()
            },
        }
        for query in ranked_queries(embeddings, results, scorers, seed=seed)
    ]
