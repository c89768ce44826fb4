"""Retrieval where altered captions or pictures stand among the true ones, after RoCOCO (arXiv 2304.10727).

Of text attacks (`boresight.evaluation.word_swaps`) the queries are images, of picture attacks
(`boresight.evaluation.image_mixes`) they are captions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from boresight.editing import PlainScorer, Scorer
from boresight.embeddings import Embeddings
from boresight.embeddings.embeddings import check_rows
from boresight.errors import InputError
from boresight.evaluation.ranking import count_competitors
from boresight.evaluation.results import Scores
from boresight.evaluation.retrieval import DEPTHS
from boresight.indexing import as_tensor
from boresight.recall import Counts, limits


def evaluate_robustness(
    embeddings: Embeddings,
    swapped_texts: Tensor | np.ndarray,
    rows: Tensor | np.ndarray | Sequence[int],
    editor: Scorer | None = None,
    *,
    block_images: int = 2048,
    block_texts: int = 1024,
) -> Scores:
    """Retrieval of captions by image where swapped captions stand among the true ones; all in percent.

    'accuracy': pairs whose image scores the true caption above the swapped one; ties are misses.
    'I2T R@1', 'I2T R@5', 'I2T R@10': right are the image's own true captions, ties as in `evaluate_retrieval`.
    'R@1, plain gallery': R@1 without the swapped captions. 'drop rate': what R@1 lacks of it, NaN where that is 0.
    'false rate': images with captions that score some swapped caption, of any image, no lower than every true one.
    Scores within 1e-6 * max(1, |true caption's score|) are ties.

    Args:
        embeddings: N images, M true captions.
        swapped_texts: (S, d), of the captions at `rows` (S,) after the swap; rounded as the true ones are stored, so
            that a caption which the swap left as it was is a tie.
        editor: whatever scores; None for the plain cosine.

    Memory: the embeddings once more, O(N + M + S), and a few blocks of scores.

    Raises:
        InputError: no caption, wrong lengths or widths, scores that are not finite.
        ArtefactError: an editor of another width or encoder.
    """
    _check(embeddings, editor, min(block_images, block_texts))
    m, n = len(embeddings.owners), len(embeddings)
    texts, originals = _added(swapped_texts, rows, embeddings.texts, ("swapped_texts", "captions"))
    scorer: Scorer = PlainScorer() if editor is None else editor
    device = scorer.device
    owners = embeddings.owners.cpu()
    # The swapped captions belong to one image more, so that they compete for every other and are right for none.
    enlarged = replace(
        embeddings,
        images=torch.cat([embeddings.images.cpu(), embeddings.images[:1].cpu()]),
        texts=torch.cat([embeddings.texts.cpu().float(), texts]),
        owners=torch.cat([owners, torch.full((len(texts),), n)]),
        ids=[*embeddings.ids, "swapped"],
        captions=None,
        splits=[*embeddings.splits, ""],
    )
    kinds, sizes = ["true"] * m + ["swapped"] * len(texts), {"block_images": block_images, "block_texts": block_texts}
    with torch.inference_mode():
        counts = count_competitors(enlarged, scorer, kinds=kinds, device=device, **sizes)
        own, best = torch.empty(m + len(texts)), torch.full((2, n), -torch.inf)
        owner, every = torch.cat([owners, owners[originals]]), torch.arange(len(own))
        blocks = (*every[:m].split(block_texts), *every[m:].split(block_texts))
        whole = replace(enlarged, images=embeddings.images)
        for start, columns, scores in _score_blocks(whole, scorer, blocks, device, block_images):
            here = ((owner[columns] >= start) & (owner[columns] < start + len(scores))).nonzero()[:, 0]
            own[columns[here]] = scores[owner[columns[here]] - start, here]
            most = best[int(columns[0] >= m), start : start + len(scores)]
            torch.maximum(most, scores.amax(1), out=most)
    asked = np.flatnonzero(counts.i2t.asked[:n])
    return _scores(
        embeddings,
        own[m:] < limits(own[originals])[0],
        "I2T",
        counts.i2t[asked],
        counts.i2t_of_kind["true"][asked],
        (best[1] >= limits(best[0])[0])[torch.from_numpy(asked)],
    )


def evaluate_image_attack(
    embeddings: Embeddings,
    altered_images: Tensor | np.ndarray,
    rows: Tensor | np.ndarray | Sequence[int],
    editor: Scorer | None = None,
    *,
    block_images: int = 2048,
    block_texts: int = 1024,
) -> Scores:
    """Retrieval of images by caption where altered pictures stand among the true ones; all in percent.

    'accuracy': captions that score their image above every altered picture made of it; ties are misses, NaN where no
    picture is of an image with a caption. 'T2I R@1', 'T2I R@5', 'T2I R@10': right is the image the caption was
    written for, ties as in `evaluate_retrieval`. 'R@1, plain gallery' and 'drop rate' as in `evaluate_robustness`.
    'false rate': captions that score some altered picture, of any image, no lower than every true one.

    Args:
        embeddings: N images, M captions.
        altered_images: (S, d), of pictures made of the images at `rows` (S,); rounded as the true ones are stored.
        editor: whatever scores; None for the plain cosine.

    Memory: the embeddings once more, O(N + M + S), and a few blocks of scores.

    Raises:
        InputError: no caption, wrong lengths or widths, scores that are not finite.
        ArtefactError: an editor of another width or encoder.
    """
    _check(embeddings, editor, min(block_images, block_texts))
    n, m = len(embeddings), len(embeddings.owners)
    altered, originals = _added(altered_images, rows, embeddings.images, ("altered_images", "images"))
    scorer: Scorer = PlainScorer() if editor is None else editor
    device = scorer.device
    enlarged = replace(
        embeddings,
        images=torch.cat([embeddings.images.cpu().float(), altered]),
        ids=[*embeddings.ids, *(f"{embeddings.ids[row]}, altered" for row in originals.tolist())],
        splits=[*embeddings.splits, *[""] * len(altered)],
    )
    owners, shows = embeddings.owners.cpu(), torch.cat([torch.arange(n), originals])
    with torch.inference_mode():
        plain, counts = (
            count_competitors(gallery, scorer, block_images=block_images, block_texts=block_texts, device=device).t2i
            for gallery in (embeddings, enlarged)
        )
        # Of the true and of the altered pictures: the best score of each caption, and the best for its own image.
        best, own = torch.full((2, m), -torch.inf), torch.full((2, m), -torch.inf)
        blocks = torch.arange(m).split(block_texts)
        for start, columns, scores in _score_blocks(enlarged, scorer, blocks, device, block_images):
            gallery = torch.arange(start, start + len(scores))
            for kind, rest in ((0, gallery >= n), (1, gallery < n)):
                of_kind = scores.masked_fill(rest[:, None], -torch.inf)
                best[kind, columns] = torch.maximum(best[kind, columns], of_kind.amax(0))
                of_kind = of_kind.masked_fill(shows[gallery][:, None] != owners[columns], -torch.inf)
                own[kind, columns] = torch.maximum(own[kind, columns], of_kind.amax(0))
    attacked = own[1].isfinite()
    below = (own[1] < limits(own[0])[0])[attacked]
    return _scores(embeddings, below, "T2I", counts, plain, best[1] >= limits(best[0])[0])


def _scores(
    embeddings: Embeddings, below: Tensor, direction: str, counts: Counts, plain: Counts, false: Tensor
) -> Scores:
    """below: (pairs,), whether the altered one scores below the true one; false: (queries,), whether one leads."""
    reached, alone = ({k: 100 * float(part.recall(k).mean()) for k in DEPTHS} for part in (counts, plain))
    return Scores(
        values={
            "accuracy": 100 * float(below.double().mean()),
            **{f"{direction} R@{k}": reached[k] for k in DEPTHS},
            "false rate": 100 * float(false.double().mean()),
            "R@1, plain gallery": alone[1],
            "drop rate": 100 * (alone[1] - reached[1]) / alone[1] if alone[1] else float("nan"),
        },
        main="false rate",
        name=embeddings.name or "altered ones in the gallery",
        counts={"images": len(embeddings), "captions": len(embeddings.owners)},
    )


def _score_blocks(
    embeddings: Embeddings, scorer: Scorer, blocks: Iterable[Tensor], device: torch.device, size: int
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """First image, captions and their scores on the CPU, for `size` images at a time against each block of captions."""
    images = [
        scorer.prepare_images(part.to(device=device, dtype=torch.float32)) for part in embeddings.images.split(size)
    ]
    for columns in blocks:
        rows = embeddings.texts[columns].to(device=device, dtype=torch.float32)
        texts = scorer.prepare_texts(rows)
        for number, part in enumerate(images):
            yield number * size, columns, scorer.score_prepared(part, texts).cpu()


def _check(embeddings: Embeddings, editor: Scorer | None, block: int) -> None:
    if len(embeddings.owners) == 0:
        raise InputError(
            f"{embeddings.name or 'This collection'} has no captions, so none can be told from a wrong one."
        )
    if block < 1:
        raise InputError("block_images and block_texts must be at least 1.")
    if editor is not None:
        editor.require_same_encoder(embeddings)


def _added(
    values: Tensor | np.ndarray,
    rows: Tensor | np.ndarray | Sequence[int],
    like: Tensor,
    labels: tuple[str, str],
) -> tuple[Tensor, Tensor]:
    """Vectors (S, d) float32, rounded as `like` (M, d), and the rows (S,) int64 of `like` that they were made of."""
    added, originals = as_tensor(values, labels[0]).to(like.dtype).float(), as_tensor(rows, "rows").long()
    m, width = like.shape
    if len(added) == 0 or added.ndim != 2 or added.shape[1] != width or originals.shape != added.shape[:1]:
        raise InputError(
            f"{labels[0]} has shape {tuple(added.shape)} and rows {tuple(originals.shape)}; (S, {width}) and (S,) "
            "with S of at least 1 are needed."
        )
    if int(originals.min()) < 0 or int(originals.max()) >= m:
        raise InputError(
            f"rows go from {int(originals.min())} to {int(originals.max())} and there are {m} {labels[1]}."
        )
    check_rows(added, labels[0])
    return added, originals
