"""Retrieval where a query has many right answers: recall, R-Precision and mAP@R, from (query, answer) pairs.

A block of scores is made, compared with the score of every right answer of its queries, and dropped. What is then known
of each right answer, how many score above it and how many tie with it, says all three measures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from boresight.device import pick_device
from boresight.editing import PlainScorer, Scorer
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation.ranking import BLOCK_IMAGES, BLOCK_TEXTS, ScoreBlocks
from boresight.evaluation.results import Scores
from boresight.recall import Counts, limits

DEPTHS = (1, 5, 10)
Answers = Mapping[int, Sequence[int]]
"""Row of a query -> rows of its right answers; -1 is one outside the gallery, which counts in R and is never found."""


def evaluate_answers(
    embeddings: Embeddings,
    t2i: Answers,
    i2t: Answers,
    scorer: Scorer | None = None,
    *,
    device: str | torch.device | None = None,
    block_images: int = BLOCK_IMAGES,
    block_texts: int = BLOCK_TEXTS,
) -> Scores:
    """Retrieval by a list of right answers, whoever a caption belongs to.

    Values in percent, means over the queries, of T2I and I2T: 'T2I R@1', 'T2I R@5' and 'T2I R@10', whether any right
    answer is among the first k; 'T2I R-Precision', of R right answers how many are among the first R; 'T2I mAP@R', over
    the first R places the mean of the precision up to a place that holds a right answer, and of 0 for another place
    (arXiv 2003.08505). Scores within 1e-6 * max(1, |right answer's score|) are ties, in a random order: the values are
    expectations over it.

    Args:
        embeddings: N images and M captions; all of them are the galleries.
        t2i: captions to images, the queries alone that are to be asked.
        i2t: images to captions.
        scorer: a caption editor or anything that scores alike; None for the plain cosine.
        device: where plain scores are taken.
        block_images, block_texts: size of the blocks of scores; they change memory and speed, not the result.

    Relations: `evaluate_retrieval` is for the usual case, where a caption's own image is the one right answer.

    Raises:
        InputError: no query in a direction, a query without answers or with one twice, a row that is not there, scores
            that are not finite.
        ArtefactError: a scorer of another width or encoder.
    """
    n, m = len(embeddings), len(embeddings.owners)
    pairs = {"T2I": _pairs(t2i, m, n, "t2i"), "I2T": _pairs(i2t, n, m, "i2t")}
    if scorer is None:
        scorer = PlainScorer(pick_device(device))
    scorer.require_same_encoder(embeddings)
    values: dict[str, float] = {}
    for direction, (queries, answers, sizes) in pairs.items():
        dim = 0 if direction == "T2I" else 1
        images, captions = (answers, queries) if dim == 0 else (queries, answers)
        with torch.inference_mode():
            met = _competitors(embeddings, scorer, images, captions, dim, block_images, block_texts)
        values |= {f"{direction} {name}": value for name, value in _measures(queries, sizes, *met).items()}
    counts = {"captions asked": len(t2i), "images asked": len(i2t)}
    return Scores(values, "T2I mAP@R", embeddings.name or "retrieval", counts)


def _pairs(answers: Answers, queries: int, gallery: int, name: str) -> tuple[Tensor, Tensor, dict[int, int]]:
    """(P,) rows of queries and (P,) of their answers, those in the gallery; query -> how many right answers it has."""
    if not answers:
        raise InputError(f"{name} names no query; pass the right answers of at least one.")
    for query, rows in answers.items():
        there = [row for row in rows if row != -1]
        if not 0 <= query < queries or not all(0 <= row < gallery for row in there):
            raise InputError(
                f"{name} says that {list(rows)[:5]} answer {query}; there are {queries} queries and {gallery} answers."
            )
        if not len(rows) or len(set(there)) < len(there):
            raise InputError(f"{name} gives query {query} no answer, or one twice; name each of its answers once.")
    flat = [(query, row) for query, rows in answers.items() for row in rows if row != -1]
    left, right = torch.tensor(flat, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return left, right, {query: len(rows) for query, rows in answers.items()}


def _competitors(
    embeddings: Embeddings,
    scorer: Scorer,
    images: Tensor,
    captions: Tensor,
    dim: int,
    block_images: int,
    block_texts: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Of P pairs their score, and how many answers that are not right for the query score above it or tie with it.

    images, captions: (P,) rows of the pairs. dim: along which answers stand in (images, captions), 0 for captions that
    ask. Only rows and columns of queries are scored.
    """
    asking = images.unique() if dim == 1 else torch.arange(len(embeddings))
    row_of = torch.full((len(embeddings),), -1).index_put_((asking,), torch.arange(len(asking)))
    ids = [embeddings.ids[row] for row in asking.tolist()]
    blocks = ScoreBlocks(embeddings.images[asking], scorer, block_images, ids)
    images, column_of = row_of[images], torch.full((len(embeddings.owners),), -1)

    def scored(columns: Tensor) -> Iterator[tuple[slice, Tensor, Tensor, tuple[Tensor, Tensor]]]:
        """Blocks of scores with the captions at `columns`: rows, scores, the pairs in the block, and their cells."""
        column_of.fill_(-1).index_put_((columns,), torch.arange(len(columns)))
        for rows, scores in blocks.of(embeddings.texts, columns):
            here = ((column_of[captions] >= 0) & _within(images, rows)).nonzero()[:, 0]
            yield rows, scores, here, (images[here] - rows.start, column_of[captions[here]])

    own = torch.empty(len(images))
    for columns in captions.unique().split(block_texts):
        for _, scores, here, cells in scored(columns):
            own[here] = scores[cells].cpu()
    low, high = limits(own)
    above, at_least = torch.zeros(2, len(images), dtype=torch.int64)
    gallery = captions.unique() if dim == 0 else torch.arange(len(embeddings.owners))
    for columns in gallery.split(block_texts):
        for rows, scores, _, cells in scored(columns):
            scores[cells] = -torch.inf  # right answers do not compete with each other
            asked = column_of[captions] >= 0 if dim == 0 else _within(images, rows)
            for part in asked.nonzero()[:, 0].split(block_texts):
                theirs = scores[:, column_of[captions[part]]].t() if dim == 0 else scores[images[part] - rows.start]
                above[part] += (theirs > high[part, None].to(theirs.device)).sum(1).cpu()
                at_least[part] += (theirs >= low[part, None].to(theirs.device)).sum(1).cpu()
    return own, above, at_least - above


def _within(values: Tensor, rows: slice) -> Tensor:
    return (values >= rows.start) & (values < rows.stop)


def _measures(queries: Tensor, sizes: Mapping[int, int], own: Tensor, above: Tensor, tied: Tensor) -> dict[str, float]:
    """The measures of one direction, from its P pairs; sizes: query -> R."""
    order = torch.argsort(queries, stable=True)
    asked, lengths = queries[order].unique_consecutive(return_counts=True)
    first: list[tuple[int, int, int]] = []
    precision = mean_precision = 0.0
    for query, rows in zip(asked.tolist(), order.split(lengths.tolist()), strict=True):
        scores, size = own[rows], sizes[query]
        low, high = (edge[:, None] for edge in limits(scores))
        right_above = (scores > high).sum(1).numpy()
        right_tied = ((scores >= low) & (scores <= high)).sum(1).numpy()  # itself among them
        before, group = above[rows].numpy() + right_above, tied[rows].numpy() + right_tied
        best = int(scores.argmax())
        first.append((int(above[rows[best]]), int(tied[rows[best]]), int(right_tied[best])))
        precision += float((np.clip(size - before, 0, group) / group).sum()) / size
        mean_precision += _average_precision(before, group, right_above, right_tied, size)
    met = Counts(*np.array(first, np.int64).reshape(-1, 3).T)
    totals = {f"R@{k}": float(met.recall(k).sum()) for k in DEPTHS}
    totals |= {"R-Precision": precision, "mAP@R": mean_precision}
    return {name: 100 * total / len(sizes) for name, total in totals.items()}


def _average_precision(
    before: np.ndarray, group: np.ndarray, right_before: np.ndarray, right_in_group: np.ndarray, size: int
) -> float:
    """Expected average precision of one query over the first `size` places.

    Each of its answers stands at any place of its group of tied ones alike, and of the other right ones of the group a
    fair share stands before it.
    """
    place = np.arange(1, size + 1)  # within the group
    share = (place - 1) * ((right_in_group - 1) / np.maximum(group - 1, 1))[:, None]
    precision = (right_before[:, None] + 1 + share) / (before[:, None] + place)
    counted = (place <= group[:, None]) & (before[:, None] + place <= size)
    return float((precision * counted / group[:, None]).sum()) / size
