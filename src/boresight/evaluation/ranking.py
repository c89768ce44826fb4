"""Where the right answer stands: competitors counted block by block, and what that says of recall.

The score matrix of N images and M captions never exists: a block of it is scored, compared with the thresholds of
its rows and columns, and dropped. Counting twice (above, above or tied) takes two comparisons and two matrix-vector
products per direction, little beside the scores themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boresight.editing.scorer import Scorer
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.progress import progress
from boresight.recall import Counts, limits

LONG_WORK = 2e8


@dataclass(frozen=True)
class RetrievalCounts:
    """Counts of both directions: `t2i` over M captions, `i2t` over N images, and I2T within each kind of caption."""

    t2i: Counts
    i2t: Counts
    i2t_of_kind: dict[str, Counts]


def count_competitors(
    embeddings: Embeddings,
    scorer: Scorer,
    *,
    kinds: Sequence[str] | None = None,
    block_images: int = 2048,
    block_texts: int = 1024,
    device: torch.device | None = None,
) -> RetrievalCounts:
    """Counts, for each caption and each image, of the competitors that score above or tie with the right answer.

    T2I: the answer of caption j is image owners[j]; its competitors are all other images, captioned or not.
    I2T: the answers of image i are its own captions and the best of them counts; its competitors are the captions of
    other images. Within a kind only captions of that kind are in the gallery.
    Scores within 1e-6 * max(1, |answer|) of the answer's are ties.

    Captions are prepared twice, once for the answers' own scores and once for the counting; no more than one block of
    prepared captions is alive at a time. Memory: the prepared images, O(N + M), and a few blocks.

    Raises:
        InputError: a score that is not finite, naming caption and image.
    """
    owners = embeddings.owners.cpu()
    labels = np.zeros(len(owners), np.int64)
    names: list[str] = []
    if kinds is not None:
        names, labels = _labels(kinds)
    order = torch.from_numpy(np.lexsort((owners.numpy(), labels)))
    blocks = _text_blocks(order, torch.from_numpy(labels)[order], block_texts)
    work = _Work(embeddings, scorer, block_images, device or torch.device("cpu"))

    m, n = len(owners), len(embeddings)
    own = torch.empty(m)
    for columns, _ in work.watched(blocks, "own scores"):
        texts, owner = work.texts(columns), owners[columns]
        for start, scores in work.scores(texts, columns, int(owner.min()), int(owner.max()) + 1):
            here = ((owner >= start) & (owner < start + len(scores))).nonzero()[:, 0].to(scores.device)
            own[columns[here.cpu()]] = scores[owner.to(scores.device)[here] - start, here].cpu()

    tally = _TextTally(own)
    overall = _ImageTally(own, owners, n)
    per_kind = [_ImageTally(own, owners, n, torch.from_numpy(labels) == label) for label in range(len(names))]
    for columns, label in work.watched(blocks, "ranks"):
        texts, owner = work.texts(columns), owners[columns]
        for start, scores in work.scores(texts, columns, 0, n):
            here = ((owner >= start) & (owner < start + len(scores))).nonzero()[:, 0].to(scores.device)
            scores[owner.to(scores.device)[here] - start, here] = -torch.inf  # the answer does not compete with itself
            tally.add(scores, columns)
            overall.add(scores, start)
            if names:
                per_kind[label].add(scores, start)
    return RetrievalCounts(
        tally.counts(), overall.counts(), {name: part.counts() for name, part in zip(names, per_kind, strict=True)}
    )


def _labels(kinds: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The distinct kinds in order of first appearance, and the number of each caption's kind."""
    names = list(dict.fromkeys(kinds))
    number = {name: i for i, name in enumerate(names)}
    return names, np.array([number[kind] for kind in kinds], np.int64)


def _text_blocks(order: Tensor, labels: Tensor, size: int) -> list[tuple[Tensor, int]]:
    """Blocks of at most `size` captions of one kind each, in `order`: their rows and the number of their kind."""
    return [
        (part, label) for label in labels.unique().tolist() for part in order[labels == label].split(size) if len(part)
    ]


class _Work:
    """Prepares and scores blocks."""

    def __init__(self, embeddings: Embeddings, scorer: Scorer, block_images: int, device: torch.device) -> None:
        self.embeddings, self.scorer, self.size, self.device = embeddings, scorer, block_images, device
        self.images = [
            scorer.prepare_images(rows.to(device=device, dtype=torch.float32))
            for rows in embeddings.images.split(block_images)
        ]

    def watched(self, blocks: list[tuple[Tensor, int]], what: str) -> Iterator[tuple[Tensor, int]]:
        if len(self.embeddings) * len(self.embeddings.owners) < LONG_WORK:
            return iter(blocks)
        return iter(progress(blocks, what=what, unit="block"))

    def texts(self, columns: Tensor) -> Any:
        rows = self.embeddings.texts[columns].to(device=self.device, dtype=torch.float32)
        return self.scorer.prepare_texts(rows)

    def scores(self, texts: Any, columns: Tensor, first: int, last: int) -> Iterator[tuple[int, Tensor]]:
        """(row of the first image, scores) for the blocks that cover images first to last - 1."""
        for number in range(first // self.size, (last - 1) // self.size + 1):
            start = number * self.size
            low, high = max(first - start, 0), min(last - start, len(self.images[number]))
            scores = self.scorer.score_prepared(self.images[number][low:high], texts)
            if not bool(torch.isfinite(scores.sum())):
                self._refuse(scores, columns, start + low)
            yield start + low, scores

    def _refuse(self, scores: Tensor, columns: Tensor, start: int) -> None:
        bad = (~torch.isfinite(scores)).nonzero()
        if len(bad):
            image, text = int(bad[0, 0]) + start, int(columns[int(bad[0, 1])])
            raise InputError(
                f"The score of caption {text} and image {image} ('{self.embeddings.ids[image]}') is not a finite "
                "number; look at these two embeddings and at the editor's training."
            )


class _TextTally:
    """Competitors of each caption's image."""

    def __init__(self, own: Tensor) -> None:
        self.low, self.high = limits(own)
        self.above = torch.zeros(len(own), dtype=torch.int64)
        self.at_least = torch.zeros(len(own), dtype=torch.int64)

    def add(self, scores: Tensor, columns: Tensor) -> None:
        self.above[columns] += _count(scores, self.high[columns].to(scores.device), torch.gt, 0)
        self.at_least[columns] += _count(scores, self.low[columns].to(scores.device), torch.ge, 0)

    def counts(self) -> Counts:
        return Counts(self.above.numpy(), (self.at_least - self.above).numpy(), np.ones(len(self.above), np.int64))


class _ImageTally:
    """Competitors of each image's best caption among the captions where `member` is true."""

    def __init__(self, own: Tensor, owners: Tensor, n: int, member: Tensor | None = None) -> None:
        if member is not None:
            own, owners = own[member], owners[member]
        best = torch.full((n,), -torch.inf).scatter_reduce_(0, owners, own, "amax")
        self.low, self.high = limits(torch.where(best.isinf(), torch.inf, best))
        self.low[best.isinf()] = self.high[best.isinf()] = torch.inf
        self.answers = torch.zeros(n, dtype=torch.int64).index_add_(0, owners, (own >= self.low[owners]).long())
        self.above = torch.zeros(n, dtype=torch.int64)
        self.at_least = torch.zeros(n, dtype=torch.int64)

    def add(self, scores: Tensor, start: int) -> None:
        rows = slice(start, start + len(scores))
        self.above[rows] += _count(scores, self.high[rows].to(scores.device)[:, None], torch.gt, 1)
        self.at_least[rows] += _count(scores, self.low[rows].to(scores.device)[:, None], torch.ge, 1)

    def counts(self) -> Counts:
        return Counts(self.above.numpy(), (self.at_least - self.above).numpy(), self.answers.numpy())


def _count(scores: Tensor, threshold: Tensor, compare: Any, dim: int) -> Tensor:
    """How often `compare` holds along `dim`: int64, exact for blocks up to 2^24 long.

    A comparison written as floats and summed by a matrix-vector product is several times faster than summing bools.
    """
    marks = compare(scores, threshold, out=torch.empty_like(scores))
    ones = marks.new_ones(scores.shape[dim])
    return (ones @ marks if dim == 0 else marks @ ones).long().cpu()
