"""Retrieval in both directions: R@1, R@5, R@10, median rank and mean reciprocal rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from boresight.device import pick_device
from boresight.editing import PlainScorer, Scorer
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation.ranking import count_competitors
from boresight.recall import Counts

DEPTHS = (1, 5, 10)
METRICS = (*(f"R@{k}" for k in DEPTHS), "median_rank", "mrr")
DIRECTIONS = {"t2i": "caption to image (T2I)", "i2t": "image to caption (I2T)"}


@dataclass(frozen=True)
class RetrievalResult:
    """Retrieval over one gallery.

    Attributes:
        t2i: caption queries against all images: 'R@1', 'R@5', 'R@10' in percent, 'median_rank' (from 1) and 'mrr'
            (mean reciprocal rank, 0 to 1).
        i2t: image queries against all captions, likewise; a hit is any own caption among the first k.
        n_images, n_texts: size of the two galleries.
        n_image_queries: images that have a caption; the others stand in the gallery only.
        name: what was measured.
        kinds: the same per kind of caption: T2I with the captions of that kind against all images, I2T with only the
            captions of that kind in the gallery.
        t2i_ranks: (M,) float32, expected rank of each caption's image.
        i2t_ranks: (N,) float32, expected rank of each image's first own caption; NaN where it has none.
    """

    t2i: dict[str, float]
    i2t: dict[str, float]
    n_images: int
    n_texts: int
    n_image_queries: int
    name: str = ""
    kinds: dict[str, RetrievalResult] = field(default_factory=dict)
    t2i_ranks: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32), repr=False, compare=False)
    i2t_ranks: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32), repr=False, compare=False)

    @property
    def recall_sum(self) -> float:
        """Sum of the six recalls, 0 to 600."""
        return sum(values[f"R@{k}"] for values in (self.t2i, self.i2t) for k in DEPTHS)

    def to_dict(self) -> dict[str, Any]:
        """{"t2i": {...}, "i2t": {...}}, and {"kinds": {kind: {"t2i": ..., "i2t": ...}}} when kinds were given."""
        value: dict[str, Any] = {"t2i": dict(self.t2i), "i2t": dict(self.i2t)}
        if self.kinds:
            value["kinds"] = {kind: result.to_dict() for kind, result in self.kinds.items()}
        return value

    def __str__(self) -> str:
        lines = [
            f"{self.name or 'retrieval'}: {self.n_images:,} images, {self.n_texts:,} captions",
            f"{'':<32}{'R@1':>8}{'R@5':>8}{'R@10':>8}{'median rank':>14}{'MRR':>8}",
        ]
        for kind, result in {"": self, **self.kinds}.items():
            for direction, words in DIRECTIONS.items():
                values = getattr(result, direction)
                label = f"{words}{', ' + kind if kind else ''}"
                recalls = "".join(f"{values[f'R@{k}']:>8.2f}" for k in DEPTHS)
                lines.append(f"{label:<32}{recalls}{values['median_rank']:>14.1f}{values['mrr']:>8.3f}")
        return "\n".join(lines)


def evaluate_retrieval(
    embeddings: Embeddings,
    editor: Scorer | None = None,
    *,
    kinds: Sequence[str] | None = None,
    block_images: int = 2048,
    block_texts: int = 1024,
    device: str | torch.device | None = None,
) -> RetrievalResult:
    """Retrieval of images by caption and of captions by image.

    Captions are ragged: an image may have any number of them, and one without captions is a distractor in T2I and no
    query in I2T. I2T counts a hit when any own caption is among the first k, the convention of the field's
    published numbers. Ties: scores within 1e-6 * max(1, |answer's score|) of the answer's are ties, and recall and
    reciprocal rank are expectations over a random order of the tied; the median rank uses the expected rank.

    Args:
        embeddings: N images and M captions.
        editor: a caption editor or anything that scores alike; None for the plain cosine.
        kinds: M strings, e.g. 'short', 'medium' and 'long', for results per kind.
        block_images, block_texts: size of the blocks of scores; they change memory and speed, not the result.
        device: where plain scores are taken; an editor scores in its own place, so move it there instead.

    Memory: O(N (d + k + k^2) + M) and a few blocks; no matrix of N x M or M x n_latents is ever built.

    Raises:
        InputError: no caption, wrong lengths, scores that are not finite.
        ArtefactError: an editor of another width or encoder.
    """
    _check(embeddings, editor, kinds, block_images, block_texts)
    scorer: Scorer = editor if editor is not None else PlainScorer(pick_device(device))
    with torch.inference_mode():
        counts = count_competitors(
            embeddings, scorer, kinds=kinds, block_images=block_images, block_texts=block_texts, device=scorer.device
        )
    parts = {}
    if kinds is not None:
        labels = np.asarray(kinds, dtype=object)
        parts = {
            kind: _result(counts.t2i[labels == kind], of_kind, f"{embeddings.name}, {kind}".lstrip(", "))
            for kind, of_kind in counts.i2t_of_kind.items()
        }
    return _result(counts.t2i, counts.i2t, embeddings.name, parts)


def chance(embeddings: Embeddings, kinds: Sequence[str] | None = None) -> RetrievalResult:
    """What a scorer that knows nothing gets on this gallery, in expectation: every score tied with every other."""
    owners = embeddings.owners.cpu().numpy()
    n = len(embeddings)

    def level(mine: np.ndarray, name: str, parts: dict[str, RetrievalResult] | None = None) -> RetrievalResult:
        m = len(mine)
        own = np.bincount(mine, minlength=n)
        t2i = Counts(np.zeros(m, np.int64), np.full(m, n - 1), np.ones(m, np.int64))
        i2t = Counts(np.zeros(n, np.int64), m - own, own)
        return _result(t2i, i2t, name, parts)

    parts = {}
    if kinds is not None:
        labels = np.asarray(kinds, dtype=object)
        parts = {kind: level(owners[labels == kind], kind) for kind in dict.fromkeys(kinds)}
    return level(owners, embeddings.name, parts)


def _result(t2i: Counts, i2t: Counts, name: str, kinds: dict[str, RetrievalResult] | None = None) -> RetrievalResult:
    return RetrievalResult(
        t2i=_metrics(t2i),
        i2t=_metrics(i2t[i2t.asked]),
        n_images=len(i2t.greater),
        n_texts=len(t2i.greater),
        n_image_queries=int(i2t.asked.sum()),
        name=name,
        kinds=kinds or {},
        t2i_ranks=t2i.rank().astype(np.float32),
        i2t_ranks=i2t.rank().astype(np.float32),
    )


def _metrics(counts: Counts) -> dict[str, float]:
    values = {f"R@{k}": 100 * float(counts.recall(k).mean()) for k in DEPTHS}
    return {
        **values,
        "median_rank": float(np.median(counts.rank())),
        "mrr": float(counts.reciprocal_rank().mean()),
    }


def _check(embeddings: Embeddings, editor: Scorer | None, kinds: Sequence[str] | None, *blocks: int) -> None:
    if len(embeddings) == 0 or len(embeddings.owners) == 0:
        raise InputError(
            f"{embeddings.name or 'This collection'} has {len(embeddings)} images and {len(embeddings.owners)} "
            "captions; retrieval needs at least one of each."
        )
    if kinds is not None and len(kinds) != len(embeddings.owners):
        raise InputError(f"kinds has {len(kinds)} entries and there are {len(embeddings.owners)} captions.")
    if min(blocks) < 1:
        raise InputError("block_images and block_texts must be at least 1.")
    if editor is not None:
        editor.require_same_encoder(embeddings)
