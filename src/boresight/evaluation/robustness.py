"""Retrieval where captions with one wrong word (`boresight.evaluation.swaps`) stand among the true ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from boresight.competitors import limits
from boresight.editing import CaptionEditor, PlainScorer, Scorer
from boresight.embeddings import Embeddings
from boresight.embeddings.embeddings import check_rows
from boresight.errors import InputError
from boresight.evaluation.ranks import count_competitors
from boresight.selection import as_tensor


def evaluate_robustness(
    embeddings: Embeddings,
    swapped_texts: Tensor | np.ndarray,
    rows: Tensor | np.ndarray | Sequence[int],
    editor: CaptionEditor | Scorer | None = None,
    *,
    block_images: int = 2048,
    block_texts: int = 1024,
) -> dict[str, float]:
    """Retrieval of captions by image where swapped captions stand among the true ones; all in percent.

    'accuracy': pairs whose image scores the true caption above the swapped one; ties are misses.
    'I2T R@1', 'R@1_plain_gallery': with and without the swapped captions in the gallery; right are the image's own
    true ones, ties as in `evaluate_retrieval`. 'drop_rate': what the first lacks of the second, NaN where that is 0.
    'false_rate': images with captions that score some swapped caption, of any image, no lower than every true one.
    Scores within 1e-6 * max(1, |true caption's score|) are ties.

    Args:
        embeddings: N images, M true captions.
        swapped_texts: (S, d), of the captions at `rows` (S,) after the swap.
        editor: whatever scores; None for the plain cosine.

    Memory: the embeddings once more, O(N + M + S), and a few blocks of scores.

    Raises:
        InputError: no caption, wrong lengths or widths, scores that are not finite, an editor that reads tokens.
        ArtefactError: an editor of another width or encoder.
    """
    texts, originals = _checked(embeddings, swapped_texts, rows, editor, min(block_images, block_texts))
    scorer: Scorer = PlainScorer() if editor is None else editor
    device = torch.device(getattr(editor, "device", "cpu"))
    owners, n, m = embeddings.owners.cpu(), len(embeddings), len(embeddings.owners)
    # The swapped captions belong to one image more, so that they compete for every other and are right for none.
    enlarged = replace(
        embeddings,
        images=torch.cat([embeddings.images.cpu(), embeddings.images[:1].cpu()]),
        texts=torch.cat([embeddings.texts.cpu().float(), texts]),
        owners=torch.cat([owners, torch.full((len(texts),), n)]),
        ids=[*embeddings.ids, "swapped"],
        captions=None,
        splits=[*embeddings.splits, ""],
        token_features=None,
        token_offsets=None,
    )
    kinds, sizes = ["true"] * m + ["swapped"] * len(texts), {"block_images": block_images, "block_texts": block_texts}
    with torch.inference_mode():
        counts = count_competitors(enlarged, scorer, kinds=kinds, device=device, **sizes)
        own, best = torch.empty(m + len(texts)), torch.full((2, n), -torch.inf)
        owner, every = torch.cat([owners, owners[originals]]), torch.arange(len(own))
        blocks = embeddings.images.split(block_images)
        images = [scorer.prepare_images(part.to(device=device, dtype=torch.float32)) for part in blocks]
        for columns in (*every[:m].split(block_texts), *every[m:].split(block_texts)):
            prepared = scorer.prepare_texts(enlarged.texts[columns].to(device))
            for start, part in zip(range(0, n, block_images), images, strict=True):
                scores = scorer.score_prepared(part, prepared).cpu()
                here = (owner[columns] // block_images == start // block_images).nonzero()[:, 0]
                own[columns[here]] = scores[owner[columns[here]] - start, here]
                most = best[int(columns[0] >= m), start : start + len(scores)]
                torch.maximum(most, scores.amax(1), out=most)
    asked = counts.i2t.asked[:n]
    reached, alone = (
        100 * float(part.recall(1)[:n][asked].mean()) for part in (counts.i2t, counts.i2t_of_kind["true"])
    )
    return {
        "accuracy": 100 * float((own[m:] < limits(own[originals])[0]).double().mean()),
        "I2T R@1": reached,
        "false_rate": 100 * float((best[1] >= limits(best[0])[0])[torch.from_numpy(asked)].double().mean()),
        "R@1_plain_gallery": alone,
        "drop_rate": 100 * (alone - reached) / alone if alone else float("nan"),
    }


def _checked(
    embeddings: Embeddings,
    swapped: Tensor | np.ndarray,
    rows: Tensor | np.ndarray | Sequence[int],
    editor: CaptionEditor | Scorer | None,
    block: int,
) -> tuple[Tensor, Tensor]:
    """Swapped captions (S, d) float32 and the rows (S,) int64 of their originals; raises as `evaluate_robustness`."""
    texts, originals = as_tensor(swapped, "swapped_texts").float(), as_tensor(rows, "rows").long()
    m, width = embeddings.texts.shape
    if m == 0:
        raise InputError(
            f"{embeddings.name or 'This collection'} has no captions, so none can be told from a wrong one."
        )
    if len(texts) == 0 or texts.ndim != 2 or texts.shape[1] != width or originals.shape != texts.shape[:1]:
        raise InputError(
            f"swapped_texts has shape {tuple(texts.shape)} and rows {tuple(originals.shape)}; (S, {width}) and (S,) "
            "with S of at least 1 are needed."
        )
    if int(originals.min()) < 0 or int(originals.max()) >= m:
        raise InputError(f"rows go from {int(originals.min())} to {int(originals.max())} and there are {m} captions.")
    if block < 1:
        raise InputError("block_images and block_texts must be at least 1.")
    check_rows(texts, "the swapped captions")
    if isinstance(editor, CaptionEditor):
        editor.require_same_encoder(embeddings)
        if editor.config.has_latents and editor.config.mask == "tokens":
            raise InputError("Swapped captions have no token features; pass an editor whose mask does not read them.")
    return texts, originals
