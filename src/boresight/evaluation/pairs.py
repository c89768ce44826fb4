"""Images with one caption each, drawn by chance, as they are and edited: what is measured, and what is drawn."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings
from boresight.embeddings.embeddings import check_rows
from boresight.errors import InputError, require_at_least
from boresight.seeds import generator


def matched_pairs(
    embeddings: Embeddings,
    editor: CaptionEditor | None = None,
    *,
    at_most: int = 5000,
    seed: int = 0,
    shuffled: bool = False,
) -> Embeddings:
    """P images with captions, each with one of its captions, drawn by chance; so every image counts once.

    With an editor an image is edited by that caption, and the text is the vector u that the editor compares it with.
    With `shuffled` each pair has the image of the next pair instead, edited by the caption of this one: what the
    caption writes into any image. The draw depends on the seed alone, so plain and edited pairs are the same ones.

    Raises InputError for no caption or an editor that lacks token features, ArtefactError for another encoder.
    """
    rows, captions = draw_pairs(embeddings, at_most, seed)
    if shuffled and len(rows) < 2:
        raise InputError("There is a single image with captions, so none to exchange it with; pass more.")
    shown = rows.roll(-1) if shuffled else rows
    images, texts = embeddings.images[shown].float(), embeddings.texts[captions].float()
    if editor is not None:
        editor.require_same_encoder(embeddings)
        images, texts = editor.edit(images, texts).cpu(), editor.text(texts).cpu()
    return Embeddings.from_arrays(
        images,
        texts,
        torch.arange(len(rows)),
        ids=[embeddings.ids[row] for row in shown.tolist()],
        captions=None if embeddings.captions is None else [embeddings.captions[row] for row in captions.tolist()],
        name=embeddings.name,
    )


def pairs_in_plane(
    embeddings: Embeddings, editor: CaptionEditor | None = None, *, at_most: int = 500, seed: int = 0
) -> dict[str, dict[str, Tensor]]:
    """`matched_pairs` along the two first principal components of all points, so that all ways have the same axes.

    Returns 'plain' and, with an editor, 'edited' -> 'images' and 'texts' -> (P, 2) float64; row i of both is a pair.
    Raises as `matched_pairs` does.

    Relations:
        `boresight.reports.alignment_figure` draws it; `alignment_report` measures the pairs in all their dimensions.
    """
    pairs = {way: matched_pairs(embeddings, one, at_most=at_most, seed=seed) for way, one in plain_and(editor).items()}
    rows = torch.cat([F.normalize(side, dim=1) for of in pairs.values() for side in (of.images, of.texts)])
    points = principal_plane(rows).chunk(len(pairs))
    return {
        way: dict(zip(("images", "texts"), block.chunk(2), strict=True))
        for way, block in zip(pairs, points, strict=True)
    }


def principal_plane(rows: Tensor) -> Tensor:
    """(N, 2) float64, rows (N, d) along their two first principal components, each pointing where it is longest."""
    centred = rows.double() - rows.double().mean(0)
    directions = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -2:].flip(1)
    longest = directions.abs().argmax(0)
    return centred @ (directions * directions[longest, torch.arange(directions.shape[1])].sign())


def plain_and(editor: CaptionEditor | None) -> dict[str, CaptionEditor | None]:
    """What to edit by, by the name of the way: 'plain' and, with an editor, 'edited'."""
    return {"plain": None, **({} if editor is None else {"edited": editor})}


def draw_pairs(embeddings: Embeddings, at_most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of images with captions (P,), ascending, and a caption of each (P,). InputError where there is none."""
    require_captions(embeddings)
    require_at_least("at_most", at_most, 2)
    owners = embeddings.owners.cpu()
    order = torch.randperm(len(owners), generator=generator(seed, "captions drawn"))
    first = torch.full((len(embeddings),), len(owners))
    first.scatter_reduce_(0, owners[order], torch.arange(len(owners)), "amin")
    rows = (first < len(owners)).nonzero()[:, 0]
    if len(rows) > at_most:
        rows = rows[torch.randperm(len(rows), generator=generator(seed, "rows sampled"))[:at_most].sort().values]
    return rows, order[first[rows]]


def normalised(rows: Tensor, label: str) -> Tensor:
    """float64 rows of unit length. Raises InputError naming a row that is zero or not finite."""
    check_rows(rows, label)
    return F.normalize(rows.double(), dim=1)


def require_captions(embeddings: Embeddings) -> None:
    """Raises InputError for embeddings without captions."""
    if len(embeddings.owners) == 0:
        raise InputError(f"{embeddings.name or 'This collection'} has no captions, so there are no pairs to measure.")
