"""Where the right answer stands: competitors counted block by block, and what that says of recall.

The score matrix of N images and M captions never exists: a block of it is scored, compared with the thresholds of
its rows and columns, and dropped. Counting twice (above, above or tied) takes two comparisons and two matrix-vector
products per direction, little beside the scores themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from boresight.brief import Brief
from boresight.editing.scorer import Scorer
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.progress import progress
from boresight.recall import Counts, limits

BLOCK_IMAGES, BLOCK_TEXTS = 2048, 1024  # of one block of scores
LONG_WORK = 2e8


@dataclass(frozen=True, repr=False)
class RetrievalCounts(Brief):
    """Counts of both directions: `t2i` over M captions, `i2t` over N images, and I2T within each kind of caption.

    own: (M,) float32, the score of each caption with its image.
    """

    t2i: Counts
    i2t: Counts
    i2t_of_kind: dict[str, Counts]
    own: Tensor


def count_competitors(
    embeddings: Embeddings,
    scorer: Scorer,
    *,
    kinds: Sequence[str] | None = None,
    block_images: int = BLOCK_IMAGES,
    block_texts: int = BLOCK_TEXTS,
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
    owners, m, n = embeddings.owners.cpu(), len(embeddings.owners), len(embeddings)
    names = [] if kinds is None else list(dict.fromkeys(kinds))
    number = {name: i for i, name in enumerate(names)}
    labels = torch.zeros(m, dtype=torch.int64) if kinds is None else torch.tensor([number[kind] for kind in kinds])
    order = torch.from_numpy(np.lexsort((owners.numpy(), labels.numpy())))
    blocks = [part for label in labels.unique() for part in order[labels[order] == label].split(block_texts)]
    scored = ScoreBlocks(embeddings.images, scorer, block_images, embeddings.ids)

    own = torch.empty(m)
    for columns in _watched(blocks, n * m, "own scores"):
        owner = owners[columns]
        for rows, scores in scored.of(embeddings.texts, columns, int(owner.min()), int(owner.max()) + 1):
            image, here = _own_cells(owner, rows)
            own[columns[here]] = scores[image, here].cpu()

    t2i = Tally(own, torch.ones(m, dtype=torch.int64))
    i2t = _image_tally(own, owners, n)
    of_kind = [_image_tally(own[labels == label], owners[labels == label], n) for label in range(len(names))]
    for columns in _watched(blocks, n * m, "ranks"):
        for rows, scores in scored.of(embeddings.texts, columns):
            scores[_own_cells(owners[columns], rows)] = -torch.inf  # the answer does not compete with itself
            t2i.add(scores, columns, 0)
            i2t.add(scores, rows, 1)
            if names:
                of_kind[int(labels[columns[0]])].add(scores, rows, 1)
    return RetrievalCounts(
        t2i.counts(), i2t.counts(), {name: tally.counts() for name, tally in zip(names, of_kind, strict=True)}, own
    )


class ScoreBlocks:
    """Scores of N images against captions, a block at a time. Images (N, d) are prepared once and kept."""

    def __init__(self, images: Tensor, scorer: Scorer, size: int, ids: Sequence[object]) -> None:
        self.scorer, self.size, self.ids = scorer, size, ids
        self.images = [scorer.prepare_images(self._moved(rows)) for rows in images.split(size)]

    def of(
        self, texts: Tensor, columns: Tensor, first: int = 0, last: int | None = None
    ) -> Iterator[tuple[slice, Tensor]]:
        """Rows of images and their scores, on the scorer's device, with the captions at `columns` of texts (M, d).

        Only the blocks that cover images first to last - 1. Raises InputError for a score that is not finite.
        """
        prepared = self.scorer.prepare_texts(self._moved(texts[columns]))
        last = len(self.ids) if last is None else last
        for number in range(first // self.size, (last - 1) // self.size + 1):
            start = number * self.size
            low, high = max(first - start, 0), min(last - start, len(self.images[number]))
            scores = self.scorer.score_prepared(self.images[number][low:high], prepared)
            if not bool(torch.isfinite(scores.sum())):
                self._refuse(scores, columns, start + low)
            yield slice(start + low, start + high), scores

    def _moved(self, rows: Tensor) -> Tensor:
        return rows.to(device=self.scorer.device, dtype=torch.float32)

    def _refuse(self, scores: Tensor, columns: Tensor, start: int) -> None:
        bad = (~torch.isfinite(scores)).nonzero()
        if len(bad):
            image, text = int(bad[0, 0]) + start, int(columns[int(bad[0, 1])])
            raise InputError(
                f"The score of caption {text} and image {image} ('{self.ids[image]}') is not a finite "
                "number; look at these two embeddings and at the editor's training."
            )


class Tally:
    """Competitors of the best right answer of each of Q queries.

    best: (Q,) float32, its score, -inf where there is none; answers: (Q,) int64, how many tie with it, itself included.
    """

    def __init__(self, best: Tensor, answers: Tensor) -> None:
        self.low, self.high = limits(torch.where(best.isinf(), torch.inf, best))
        self.low[best.isinf()] = self.high[best.isinf()] = torch.inf
        self.answers = answers
        self.above, self.at_least = torch.zeros(2, len(best), dtype=torch.int64)

    def add(self, scores: Tensor, queries: Tensor | slice, dim: int) -> None:
        """Scores of competitors; dim: along which they stand, the queries along the other."""
        for tally, threshold, compare in ((self.above, self.high, torch.gt), (self.at_least, self.low, torch.ge)):
            limit = threshold[queries].to(scores.device)
            tally[queries] += _count(scores, limit if dim == 0 else limit[:, None], compare, dim)

    def counts(self) -> Counts:
        """Of all that was added."""
        return Counts(self.above.numpy(), (self.at_least - self.above).numpy(), self.answers.numpy())


def _image_tally(own: Tensor, owners: Tensor, n: int) -> Tally:
    """Of N images whose captions have the scores own (M,)."""
    best = torch.full((n,), -torch.inf).scatter_reduce_(0, owners, own, "amax")
    answers = torch.zeros(n, dtype=torch.int64).index_add_(0, owners, (own >= limits(best)[0][owners]).long())
    return Tally(best, answers)


def _own_cells(owner: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """Row and column in a block of the scores of captions with their image, as far as these are in it."""
    here = ((owner >= rows.start) & (owner < rows.stop)).nonzero()[:, 0]
    return owner[here] - rows.start, here


def _watched(blocks: Sequence[Tensor], scores: int, what: str) -> Iterable[Tensor]:
    return blocks if scores < LONG_WORK else progress(blocks, what=what, unit="block")


def _count(scores: Tensor, threshold: Tensor, compare: Callable[..., Tensor], dim: int) -> Tensor:
    """How often `compare` holds along `dim`: int64, exact for blocks up to 2^24 long.

    A comparison written as floats and summed by a matrix-vector product is several times faster than summing bools.
    """
    marks = compare(scores, threshold, out=torch.empty_like(scores))
    ones = marks.new_ones(scores.shape[dim])
    return (ones @ marks if dim == 0 else marks @ ones).long().cpu()
