"""Images and their captions in two dimensions, to be drawn."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings
from boresight.evaluation.alignment import matched_pairs


def pairs_in_plane(
    embeddings: Embeddings, editor: CaptionEditor | None = None, *, at_most: int = 500, seed: int = 0
) -> dict[str, dict[str, Tensor]]:
    """`matched_pairs` along the two first principal components of all points, so that all ways have the same axes.

    Returns 'plain' and, with an editor, 'edited' -> 'images' and 'texts' -> (P, 2) float64; row i of both is a pair.
    Raises as `matched_pairs` does.

    Relations:
        `boresight.reports.alignment_figure` draws it; `alignment_report` measures the pairs in all their dimensions.
    """
    scorers: dict[str, CaptionEditor | None] = {"plain": None, **({} if editor is None else {"edited": editor})}
    pairs = {way: matched_pairs(embeddings, one, at_most=at_most, seed=seed) for way, one in scorers.items()}
    rows = torch.cat([F.normalize(side, dim=1) for of in pairs.values() for side in (of.images, of.texts)])
    points = principal_plane(rows).chunk(len(pairs))
    return {way: dict(zip(("images", "texts"), block.chunk(2), strict=True)) for way, block in zip(pairs, points)}


def principal_plane(rows: Tensor) -> Tensor:
    """(N, 2) float64, rows (N, d) along their two first principal components, each pointing where it is longest."""
    centred = rows.double() - rows.double().mean(0)
    directions = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -2:].flip(1)
    longest = directions.abs().argmax(0)
    return centred @ (directions * directions[longest, torch.arange(directions.shape[1])].sign())
