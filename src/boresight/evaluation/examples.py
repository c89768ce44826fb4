"""What the report shows beside its figures: queries whose answer moved, and latents with their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from boresight.editing import CaptionEditor, Scorer
from boresight.editing.explanation import Explanation
from boresight.editing.scorer import ways
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation.ranking import ScoreBlocks
from boresight.evaluation.retrieval import RetrievalScores, evaluate_retrieval
from boresight.sae import SparseAutoencoder
from boresight.sae.names import strongest_images
from boresight.sae.rows import as_rows
from boresight.seeds import generator

Names = Mapping[int, str] | Sequence[str]

EXAMPLE_RULE = (
    "Captions for which one over the rank of the true image rose most, captions for which it fell most, and captions "
    "drawn at random; at most one caption an image."
)
GALLERY_RULE = (
    "Latents drawn at random among those active in enough images, named from a vocabulary or from captions; each with "
    "the images in which it is strongest."
)


@dataclass(frozen=True)
class RankedImage:
    """One image in a ranking: `rank` from 1."""

    image_id: str
    rank: int
    right: bool


@dataclass(frozen=True)
class Example:
    """One caption query, plain and edited: the first images of each ranking, the true image always among them."""

    caption: str
    kind: str
    rule: str
    image_id: str
    rank_before: float
    rank_after: float
    plain: Sequence[RankedImage]
    edited: Sequence[RankedImage]
    explanation: Explanation


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
    names: Names = (),
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
    picked = pick(before, after, embeddings.owners.numpy(), per_rule, seed)
    rows = [row for row, _ in picked]
    if not rows:
        return []
    scores = [rankings(embeddings, scorer, rows) for scorer in ways(editor).values()]
    labels = [_name(names, latent, "") for latent in range(editor.sae.n_latents)]
    examples = []
    for number, (row, rule) in enumerate(picked):
        owner = int(embeddings.owners[row])
        plain, edited = (first_images(embeddings, ranking[:, number], owner, top) for ranking in scores)
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
                explanation=_explained(embeddings, editor, labels, row),
            )
        )
    return examples


def pick(
    before: RetrievalScores, after: RetrievalScores, owners: np.ndarray, per_rule: int, seed: int
) -> list[tuple[int, str]]:
    """Rows of captions with the rule that picked each, by `EXAMPLE_RULE`."""
    change = 1 / after.t2i_ranks - 1 / before.t2i_ranks
    drawn = torch.randperm(len(change), generator=generator(seed, "report examples")).numpy()
    rising = drawn[np.argsort(-change[drawn], kind="stable")]  # ties in random order
    orders = {
        "largest gain": [row for row in rising if change[row] > 0],
        "largest loss": [row for row in rising[::-1] if change[row] < 0],
        "drawn at random": list(drawn),
    }
    return first_of_each(orders, owners, per_rule)


def first_of_each(
    orders: Mapping[str, Sequence[int] | np.ndarray], owners: np.ndarray, per_rule: int
) -> list[tuple[int, str]]:
    """Of each rule's rows in their order the first `per_rule`, at most one caption an image over all rules."""
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


def rankings(embeddings: Embeddings, scorer: Scorer, rows: Sequence[int], block: int = 4096) -> Tensor:
    """(N, len(rows)) scores of all images against a few captions."""
    with torch.inference_mode():
        blocks = ScoreBlocks(embeddings.images, scorer, block, embeddings.ids)
        return torch.cat([scores.cpu() for _, scores in blocks.of(embeddings.texts, torch.tensor(rows))])


def first_images(embeddings: Embeddings, scores: Tensor, owner: int, top: int) -> list[RankedImage]:
    """The `top` images by scores (N,), and `owner`, the true one, wherever it stands."""
    order = scores.argsort(descending=True, stable=True).tolist()
    shown = list(enumerate(order[:top], start=1))
    if owner not in order[:top]:
        shown.append((order.index(owner) + 1, owner))
    return [RankedImage(embeddings.ids[image], rank, image == owner) for rank, image in shown]


def _explained(embeddings: Embeddings, editor: CaptionEditor, labels: Sequence[str], row: int) -> Explanation:
    """What the caption keeps and drops of its own image."""
    image, text = embeddings.images[embeddings.owners[row]], embeddings.texts[row]
    return editor.explain_edit(image.float(), text.float(), names=labels)


def pick_latents(
    embeddings: Embeddings,
    sae: SparseAutoencoder,
    names: Names = (),
    *,
    count: int = 12,
    top: int = 8,
    seed: int = 0,
    block: int = 16384,
) -> list[LatentCard]:
    """Latents for the report, by `GALLERY_RULE`: `count` of those active in at least `top` images, `top` images each.

    Codes are made a block at a time, twice: for the strongest images, and to count.
    """
    rows, strength, _ = strongest_images(sae, as_rows(embeddings), top, block)
    common = (strength > 0).all(1).nonzero()[:, 0]
    drawn = common[torch.randperm(len(common), generator=generator(seed, "report latents"))[:count]]
    active = torch.zeros(sae.n_latents, dtype=torch.int64)
    for images in embeddings.images.split(block):
        codes = sae.encode(images)
        active += torch.bincount(codes.indices[codes.values > 0], minlength=sae.n_latents)
    return [
        LatentCard(
            latent=latent,
            name=_name(names, latent, f"latent {latent}"),
            share=int(active[latent]) / len(embeddings),
            image_ids=[embeddings.ids[row] for row in rows[latent].tolist()],
        )
        for latent in drawn.tolist()
    ]


def _name(names: Names, latent: int, missing: str) -> str:
    name = names.get(latent, "") if isinstance(names, Mapping) else names[latent] if latent < len(names) else ""
    return name or missing
