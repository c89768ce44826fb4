"""Retrieval in both directions: R@1, R@5, R@10, median rank and mean reciprocal rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from boresight.device import pick_device
from boresight.editing import PlainScorer, Scorer
from boresight.embeddings import Embeddings
from boresight.embeddings.embeddings import left_out_words, require_embeddings
from boresight.errors import InputError
from boresight.evaluation.ranking import BLOCK_IMAGES, BLOCK_TEXTS, count_competitors
from boresight.evaluation.results import Scores
from boresight.recall import Counts

DEPTHS = (1, 5, 10)
METRICS = (*(f"R@{k}" for k in DEPTHS), "median rank", "MRR")
DIGITS = {"median rank": 1, "MRR": 3}
DIRECTIONS = {"T2I": "caption to image (T2I)", "I2T": "image to caption (I2T)"}
RECALLS = tuple(f"{direction} R@{k}" for direction in DIRECTIONS for k in DEPTHS)


@dataclass(frozen=True, repr=False)
class RetrievalScores(Scores):
    """Retrieval over one gallery.

    Values, 'T2I ' of caption queries against all images, 'I2T ' of image queries against all captions, where a hit is
    any own caption among the first k: 'T2I R@1', 'T2I R@5', 'T2I R@10' in percent, 'T2I median rank' (from 1) and
    'T2I MRR' (mean reciprocal rank, 0 to 1); so for I2T.

    Attributes:
        counts: 'images' and 'captions', the size of the two galleries.
        kinds: the same per kind of caption: T2I with the captions of that kind against all images, I2T with only the
            captions of that kind in the gallery.
        t2i_ranks: (M,) float32, expected rank of each caption's image.
        i2t_ranks: (N,) float32, expected rank of each image's first own caption; NaN where it has none, and stands in
            the gallery only.
        t2i_hits, i2t_hits: (M,) and (N,) float32, at how many of the depths 1, 5 and 10 each query finds its answer,
            0 to 3; NaN for no query.
        left_out: what the embeddings lack of their source, `Embeddings.left_out`: the figures are without it.
    """

    kinds: Mapping[str, RetrievalScores] = field(default_factory=dict)
    t2i_ranks: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32), repr=False, compare=False)
    i2t_ranks: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32), repr=False, compare=False)
    t2i_hits: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32), repr=False, compare=False)
    i2t_hits: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32), repr=False, compare=False)
    left_out: str = ""

    @property
    def recall_sum(self) -> float:
        """Sum of the six recalls, 0 to 600."""
        return sum(self[name] for name in RECALLS)

    def to_dict(self) -> dict[str, Any]:
        """Values by name, and {"kinds": {kind: values by name}} where kinds were given."""
        kinds = {kind: result.to_dict() for kind, result in self.kinds.items()}
        return {**self.values, **({"kinds": kinds} if kinds else {})}

    @property
    def title(self) -> str:
        """'holiday: 50 images, 170 captions; left out: 6 x unreadable picture'."""
        return f"{super().title}{self.left_out and f'; left out: {self.left_out}'}"

    def _table(self) -> tuple[Sequence[str], Sequence[Sequence[str]], str]:
        rows = [
            [
                f"{words}{kind and ', '}{kind}",
                *(f"{result[f'{direction} {metric}']:.{DIGITS.get(metric, 2)}f}" for metric in METRICS),
            ]
            for kind, result in {"": self, **self.kinds}.items()
            for direction, words in DIRECTIONS.items()
        ]
        return ["", *METRICS], rows, self.title


def evaluate_retrieval(
    embeddings: Embeddings,
    editor: Scorer | None = None,
    *,
    kinds: Sequence[str] | None = None,
    block_images: int = BLOCK_IMAGES,
    block_texts: int = BLOCK_TEXTS,
    device: str | torch.device | None = None,
) -> RetrievalScores:
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

    Example:
        scores = evaluate_retrieval(embeddings.test, editor)
        print(scores["T2I R@1"], scores.recall_sum)

    Relations:
        `compare` runs it over seeds with rivals and controls; `evaluate_attack` puts altered captions or pictures into
        the gallery; `chance` is its floor.

    Raises:
        InputError: no caption, wrong lengths, scores that are not finite.
        ArtefactError: an editor of another width or encoder.
    """
    _check(embeddings, editor, kinds, block_images, block_texts)
    scorer: Scorer = editor if editor is not None else PlainScorer(pick_device(device))
    with torch.inference_mode():
        counts = count_competitors(embeddings, scorer, kinds=kinds, block_images=block_images, block_texts=block_texts)
    parts = {}
    if kinds is not None:
        labels = np.asarray(kinds, dtype=object)
        parts = {
            kind: _result(counts.t2i[labels == kind], of_kind, f"{embeddings.name}, {kind}".lstrip(", "))
            for kind, of_kind in counts.i2t_of_kind.items()
        }
    result = _result(counts.t2i, counts.i2t, embeddings.name, parts)
    return replace(result, left_out=left_out_words(embeddings))


def chance(embeddings: Embeddings, kinds: Sequence[str] | None = None) -> RetrievalScores:
    """What a scorer that knows nothing gets on this gallery, in expectation: every score tied with every other."""
    owners = embeddings.owners.cpu().numpy()
    n = len(embeddings)

    def level(mine: np.ndarray, name: str, parts: dict[str, RetrievalScores] | None = None) -> RetrievalScores:
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


def _result(t2i: Counts, i2t: Counts, name: str, kinds: dict[str, RetrievalScores] | None = None) -> RetrievalScores:
    return RetrievalScores(
        values=_measures("T2I", t2i) | _measures("I2T", i2t[i2t.asked]),
        main="T2I R@1",
        name=name or "retrieval",
        counts={"images": len(i2t.greater), "captions": len(t2i.greater)},
        kinds=kinds or {},
        t2i_ranks=t2i.rank().astype(np.float32),
        i2t_ranks=i2t.rank().astype(np.float32),
        t2i_hits=_hits(t2i),
        i2t_hits=_hits(i2t),
    )


def _hits(counts: Counts) -> np.ndarray:
    return np.sum([counts.recall(k) for k in DEPTHS], axis=0).astype(np.float32)


def _measures(direction: str, counts: Counts) -> dict[str, float]:
    recalls = [100 * float(counts.recall(k).mean()) for k in DEPTHS]
    ranks = float(np.median(counts.rank())), float(counts.reciprocal_rank().mean())
    return {f"{direction} {metric}": value for metric, value in zip(METRICS, (*recalls, *ranks), strict=True)}


def _check(embeddings: Embeddings, editor: Scorer | None, kinds: Sequence[str] | None, *blocks: int) -> None:
    require_embeddings(embeddings=embeddings)
    if editor is not None and not hasattr(editor, "score_prepared"):
        raise InputError(
            f"editor is of type {type(editor).__name__}, which scores nothing; pass a CaptionEditor or None."
        )
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
