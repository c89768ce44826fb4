"""What the report shows beside its figures: queries whose answer moved, and latents with their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from boresight.editing import CaptionEditor, PlainScorer, Scorer
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation.retrieval import RetrievalResult, evaluate_retrieval
from boresight.sae import SparseAutoencoder
from boresight.seeds import generator

EXAMPLE_RULE = (
    "Captions for which one over the rank of the true image rose most, captions for which it fell most, and captions "
    "drawn at random; at most one caption an image."
)
GALLERY_RULE = (
    "Latents drawn at random among those active in enough images, named from a vocabulary or from captions; each with "
    "the images in which it is strongest."
)


@dataclass(frozen=True)
class Place:
    """One image in a ranking: `rank` from 1."""

    image_id: str
    rank: int
    right: bool


@dataclass(frozen=True)
class Share:
    """A latent active in the true image: its activation, and the share in [0, 1] of it that the caption keeps."""

    latent: int
    name: str
    activation: float
    kept: float


@dataclass(frozen=True)
class Example:
    """One caption query, plain and edited: the first images of each ranking, the true image always among them."""

    caption: str
    kind: str
    rule: str
    image_id: str
    rank_before: float
    rank_after: float
    plain: Sequence[Place]
    edited: Sequence[Place]
    latents: Sequence[Share]


@dataclass(frozen=True)
class LatentCard:
    """A latent, the share of images in which it is active, and the images in which it is strongest."""

    latent: int
    name: str
    share: float
    image_ids: Sequence[str]


def pick_examples(
    embeddings: Embeddings,
    editor: CaptionEditor,
    names: Mapping[int, str] | Sequence[str] = (),
    *,
    kinds: Sequence[str] | None = None,
    per_rule: int = 2,
    top: int = 5,
    seed: int = 0,
) -> list[Example]:
    """Caption queries for the report, by `EXAMPLE_RULE`: `per_rule` of each, fewer where there are no more.

    Args:
        names: of the latents; those without one go by their number.
        kinds: M strings shown beside the captions.
        top: images shown of each ranking.

    Raises:
        InputError: the embeddings carry no captions.
    """
    if embeddings.captions is None:
        raise InputError("These embeddings carry no captions to show; make them with captions=.")
    before, after = evaluate_retrieval(embeddings), evaluate_retrieval(embeddings, editor)
    picked = _pick(before, after, embeddings.owners.numpy(), per_rule, seed)
    rows = [row for row, _ in picked]
    if not rows:
        return []
    rankings = [_rankings(embeddings, scorer, rows) for scorer in (PlainScorer(), editor)]
    examples = []
    for number, (row, rule) in enumerate(picked):
        owner = int(embeddings.owners[row])
        plain, edited = (_places(embeddings, ranking[:, number], owner, top) for ranking in rankings)
        examples.append(
            Example(
                caption=embeddings.captions[row],
                kind=kinds[row] if kinds is not None else "",
                rule=rule,
                image_id=embeddings.ids[owner],
                rank_before=float(before.t2i_ranks[row]),
                rank_after=float(after.t2i_ranks[row]),
                plain=plain,
                edited=edited,
                latents=_shares(embeddings, editor, names, row),
            )
        )
    return examples


def _pick(
    before: RetrievalResult, after: RetrievalResult, owners: np.ndarray, per_rule: int, seed: int
) -> list[tuple[int, str]]:
    change = 1 / after.t2i_ranks - 1 / before.t2i_ranks
    drawn = torch.randperm(len(change), generator=generator(seed, "report examples")).numpy()
    rising = drawn[np.argsort(-change[drawn], kind="stable")]  # ties in random order
    orders = {
        "largest gain": [row for row in rising if change[row] > 0],
        "largest loss": [row for row in rising[::-1] if change[row] < 0],
        "drawn at random": list(drawn),
    }
    seen: set[int] = set()
    picked = []
    for rule, order in orders.items():
        wanted = per_rule
        for row in order:
            if wanted and int(owners[row]) not in seen:
                seen.add(int(owners[row]))
                picked.append((int(row), rule))
                wanted -= 1
    return picked


def _rankings(embeddings: Embeddings, scorer: Scorer, rows: Sequence[int], block: int = 4096) -> Tensor:
    """(N, len(rows)) scores of all images against a few captions."""
    with torch.inference_mode():
        texts = scorer.prepare_texts(embeddings.texts[list(rows)].float())
        parts = [
            scorer.score_prepared(scorer.prepare_images(images.float()), texts).cpu()
            for images in embeddings.images.split(block)
        ]
    return torch.cat(parts)


def _places(embeddings: Embeddings, scores: Tensor, owner: int, top: int) -> list[Place]:
    order = scores.argsort(descending=True, stable=True).tolist()
    shown = list(enumerate(order[:top], start=1))
    if owner not in order[:top]:
        shown.append((order.index(owner) + 1, owner))
    return [Place(embeddings.ids[image], rank, image == owner) for rank, image in shown]


def _shares(
    embeddings: Embeddings, editor: CaptionEditor, names: Mapping[int, str] | Sequence[str], row: int
) -> list[Share]:
    """The active latents of the caption's image, strongest first."""
    raise NotImplementedError


def pick_latents(
    embeddings: Embeddings,
    sae: SparseAutoencoder,
    names: Mapping[int, str] | Sequence[str],
    *,
    count: int = 12,
    top: int = 8,
    seed: int = 0,
) -> list[LatentCard]:
    """Latents for the report, by `GALLERY_RULE`, each with its `top` images; only latents active in `top` images."""
    raise NotImplementedError
