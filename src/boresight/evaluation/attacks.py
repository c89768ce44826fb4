"""Retrieval where altered captions or pictures stand among the true ones, after RoCOCO (arXiv 2304.10727).

Of altered captions (`boresight.evaluation.word_swaps`) the queries are images, of altered pictures
(`boresight.evaluation.image_mixes`) they are captions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from boresight.editing import PlainScorer, Scorer
from boresight.embeddings import Embeddings
from boresight.embeddings.embeddings import check_rows
from boresight.errors import InputError
from boresight.evaluation.ranking import BLOCK_IMAGES, BLOCK_TEXTS, ScoreBlocks, Tally, count_competitors
from boresight.evaluation.results import Scores, percent
from boresight.evaluation.retrieval import DEPTHS
from boresight.indexing import as_tensor
from boresight.recall import Counts, limits

Side = Literal["texts", "images"]
Array = Tensor | np.ndarray


def evaluate_attack(
    embeddings: Embeddings,
    altered: Array,
    rows: Array | Sequence[int],
    editor: Scorer | None = None,
    *,
    side: Side,
) -> Scores:
    """Retrieval where altered captions, or altered pictures, stand in the gallery among the true ones; in percent.

    - 'I2T R@1', 'R@5', 'R@10' of captions, 'T2I ...' of pictures: right are the true ones, ties as in
      `evaluate_retrieval`. 'R@1, plain gallery': without the altered ones. 'drop rate': what R@1 lacks of it, NaN
      where that is 0.
    - 'false rate': queries that score some altered one, made of whatever, no lower than every true one.
    - 'accuracy': of captions the pairs whose image scores the true one above the altered one; of pictures the captions
      that score their image above every picture made of it, NaN where no picture is of an image with a caption. Ties
      are misses.

    Scores within 1e-6 * max(1, |true one's score|) are ties. Images without captions are no queries.

    Args:
        embeddings: N images, M captions.
        altered: (S, d), of the captions, or of the images, at `rows` (S,) after the change; rounded as the true ones
            are stored, so that what the change left as it was is a tie.
        editor: whatever scores; None for the plain cosine.
        side: which were altered, 'texts' or 'images'.

    Memory: the prepared images, O(N + M + S), and a few blocks of scores.

    Raises:
        InputError: no caption, wrong lengths or widths, scores that are not finite.
        ArtefactError: an editor of another width or encoder.

    Example:
        swapped = swap_words(test.captions, "danger", owners=test.owners)
        texts = encoder.embed_texts([swapped.captions[row] for row in swapped.rows])
        print(evaluate_attack(test, texts, swapped.rows, editor, side="texts"))
    """
    if side not in get_args(Side):
        raise InputError(f"There is no side '{side}'; choose from {', '.join(get_args(Side))}.")
    if len(embeddings.owners) == 0:
        raise InputError(
            f"{embeddings.name or 'This collection'} has no captions, so none can be told from a wrong one."
        )
    if editor is not None:
        editor.require_same_encoder(embeddings)
    scorer: Scorer = PlainScorer() if editor is None else editor
    of_texts, owners, n = side == "texts", embeddings.owners.cpu(), len(embeddings)
    altered, originals = _added(altered, rows, embeddings, side)
    with torch.inference_mode():
        counts = count_competitors(embeddings, scorer)
        plain, own = counts.i2t if of_texts else counts.t2i, counts.own
        true = ScoreBlocks(embeddings.images, scorer, BLOCK_IMAGES, embeddings.ids)
        if of_texts:
            false, texts = true, altered
        else:
            ids = [f"{embeddings.ids[row]}, altered" for row in originals.tolist()]
            false, texts = ScoreBlocks(altered, scorer, BLOCK_IMAGES, ids), embeddings.texts
        best = torch.full((2, len(plain.greater)), -torch.inf)  # of true and of altered ones, by query
        for images, columns, scores in _blocks(true, embeddings.texts):
            query = images if of_texts else columns
            best[0, query] = best[0, query].maximum(scores.amax(int(of_texts)))
        # Whose picture stands in a row, and whose caption in a column, of the scores of altered ones.
        row_image, column_image = (torch.arange(n), owners[originals]) if of_texts else (originals, owners)
        like = own[originals] if of_texts else own
        pairs = torch.full((len(column_image),), -torch.inf)
        answer = torch.full((n,), -torch.inf).scatter_reduce_(0, owners, own, "amax") if of_texts else own
        tally = Tally(answer, torch.from_numpy(plain.answers))
        for images, columns, scores in _blocks(false, texts):
            query = images if of_texts else columns
            best[1, query] = best[1, query].maximum(scores.amax(int(of_texts)))
            tally.add(scores, query, int(of_texts))
            others = row_image[images, None] != column_image[columns]
            pairs[columns] = pairs[columns].maximum(scores.masked_fill(others, -torch.inf).amax(0))
    more = tally.counts()
    attacked = Counts(plain.greater + more.greater, plain.tied + more.tied, plain.answers)
    misled = (best[1] >= limits(best[0])[0])[torch.from_numpy(plain.asked)]
    recalls, alone = (
        {k: 100 * float(part[plain.asked].recall(k).mean()) for k in DEPTHS} for part in (attacked, plain)
    )
    return Scores(
        {
            "accuracy": percent((pairs < limits(like)[0])[pairs.isfinite()]),
            **{f"{'I2T' if of_texts else 'T2I'} R@{k}": recall for k, recall in recalls.items()},
            "false rate": percent(misled),
            "R@1, plain gallery": alone[1],
            "drop rate": 100 * (alone[1] - recalls[1]) / alone[1] if alone[1] else float("nan"),
        },
        main="false rate",
        name=embeddings.name or "attack",
        counts={"images": n, "captions": len(owners), f"altered {side}": len(originals)},
    )


def _blocks(images: ScoreBlocks, texts: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows of images, columns of texts and their scores on the CPU."""
    for columns in torch.arange(len(texts)).split(BLOCK_TEXTS):
        for rows, scores in images.of(texts, columns):
            yield rows, columns, scores.cpu()


def _added(altered: Array, rows: Array | Sequence[int], embeddings: Embeddings, side: Side) -> tuple[Tensor, Tensor]:
    """Vectors (S, d) float32, rounded as the true ones are, and the rows (S,) int64 of these that they were made of."""
    like, what = (embeddings.texts, "captions") if side == "texts" else (embeddings.images, "images")
    added, originals = as_tensor(altered, "altered").to(like.dtype).float(), as_tensor(rows, "rows").long()
    m, width = like.shape
    if len(added) == 0 or added.ndim != 2 or added.shape[1] != width or originals.shape != added.shape[:1]:
        raise InputError(
            f"altered has shape {tuple(added.shape)} and rows {tuple(originals.shape)}; (S, {width}) and (S,) "
            "with S of at least 1 are needed."
        )
    if int(originals.min()) < 0 or int(originals.max()) >= m:
        raise InputError(f"rows go from {int(originals.min())} to {int(originals.max())} and there are {m} {what}.")
    check_rows(added, "altered")
    return added, originals
