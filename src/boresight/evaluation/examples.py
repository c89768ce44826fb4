"""What the report shows beside its figures: queries whose answer moved, and latents with their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from boresight.brief import Brief
from boresight.editing import CaptionEditor, Scorer
from boresight.editing.explanation import Explanation
from boresight.editing.scorer import ways
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation.ranking import ScoreBlocks
from boresight.evaluation.retrieval import RetrievalScores, evaluate_retrieval
from boresight.sae import SparseAutoencoder
from boresight.sae.names import BLOCK, LatentNames, strongest_images
from boresight.sae.rows import as_rows
from boresight.seeds import generator

Orders = Mapping[str, Sequence[int] | np.ndarray]
"""Rule -> rows of captions, the one that it picks first at the head."""

EXAMPLE_RULE = (
    "Captions for which one over the rank of the true image rose most, captions for which it fell most, and captions "
    "drawn at random; at most one caption an image."
)
GALLERY_RULE = (
    "Latents drawn at random among those active in enough images, named where a name is sure; each with "
    "the images in which it is strongest. How sure a name is: of the latent's activation the share on images whose "
    "captions say the name, corrected for chance; 1 where it is said wherever the latent is active, 0 where no more "
    "often than anywhere."
)


@dataclass(frozen=True)
class RankedImage:
    """One image in a ranking: `rank` from 1."""

    id: str
    rank: int
    right: bool


@dataclass(frozen=True, repr=False)
class Example(Brief):
    """One caption query, by the ways it was scored, 'plain' and 'edited'.

    Attributes:
        row: of the caption.
        rule: that picked it.
        image_id: the true image.
        ranks: way -> rank of the true image.
        rankings: way -> the first images, the true one always among them.
        kind: of the caption; '' where there are none.
        explanation: what the caption keeps and drops of its own image, where an editor was asked.
        shown: the same by the editor's form that shows, where it has one.
    """

    row: int
    rule: str
    caption: str
    image_id: str
    ranks: Mapping[str, float]
    rankings: Mapping[str, Sequence[RankedImage]]
    kind: str = ""
    explanation: Explanation | None = None
    shown: Explanation | None = None


@dataclass(frozen=True, repr=False)
class LatentCard(Brief):
    """A latent, the share of images in which it is active, and the images in which it is strongest.

    `certainty` of its name is as `LatentNames` has it, None where there is no name or it is not known; `source` says
    what named it.
    """

    latent: int
    name: str
    share: float
    image_ids: Sequence[str]
    certainty: float | None = None
    source: str = ""


def pick_examples(
    embeddings: Embeddings,
    editor: CaptionEditor,
    names: Sequence[str] | LatentNames = (),
    *,
    remembered: Embeddings | None = None,
    kinds: Sequence[str] | None = None,
    per_rule: int = 2,
    top: int = 5,
    seed: int = 0,
) -> list[Example]:
    """Caption queries for the report, by `EXAMPLE_RULE`, explained: `per_rule` of each, fewer where there are no more.

    Args:
        names: of all latents, '' for those that go by their number; or none.
        remembered: the training set with its captions, for the words of the pairs that the editor remembers.
        kinds: M strings shown beside the captions.
        top: images shown of each ranking.

    Raises:
        InputError: the embeddings carry no captions.
    """
    results = {way: evaluate_retrieval(embeddings, scorer) for way, scorer in {"plain": None, "edited": editor}.items()}

    shown = editor.shown if editor.taught_mask is not None else None

    def explained(example: Example) -> Example:
        image, text = embeddings.images[embeddings.owners[example.row]], embeddings.texts[example.row]
        pair = image.float(), text.float()
        explanation = editor.explain_edit(*pair, names=names or None, remembered=remembered)
        told = None if shown is None else shown.explain_edit(*pair, names=names or None)
        kind = "" if kinds is None else kinds[example.row]
        return replace(example, kind=kind, explanation=explanation, shown=told)

    examples = ranked_queries(embeddings, results, ways(editor), per_rule=per_rule, top=top, seed=seed)
    return [explained(example) for example in examples]


def ranked_queries(
    embeddings: Embeddings,
    results: Mapping[str, RetrievalScores],
    scorers: Mapping[str, Scorer],
    *,
    per_rule: int = 2,
    top: int = 5,
    seed: int = 0,
) -> list[Example]:
    """Caption queries worth looking at: `per_rule` of each rule, fewer where there are no more.

    With an editor by `EXAMPLE_RULE`; without one those that rank the true image best, those that rank it worst, and
    some at random; at most one caption an image.

    Args:
        results, scorers: 'plain' and, where there is an editor, 'edited' -> its retrieval on `embeddings`, and itself.
        top: images of each ranking.

    Raises InputError for embeddings without captions.
    """
    if embeddings.captions is None:
        raise InputError("These embeddings carry no captions to show; make them with captions=.")
    owners = embeddings.owners.tolist()
    plain, edited = results["plain"], results.get("edited")
    orders = _extremes(plain, seed) if edited is None else _moved(plain, edited, seed)
    picked = _first_of_each(orders, owners, per_rule)
    if not picked:
        return []
    with torch.inference_mode():
        columns = torch.tensor([row for row, _ in picked])
        scores = {way: _all_images(embeddings, scorers[way], columns) for way in results}
    return [
        Example(
            row=row,
            rule=rule,
            caption=embeddings.captions[row],
            image_id=embeddings.ids[owners[row]],
            ranks={way: float(result.t2i_ranks[row]) for way, result in results.items()},
            rankings={way: _first(embeddings, of[:, number], owners[row], top) for way, of in scores.items()},
        )
        for number, (row, rule) in enumerate(picked)
    ]


def _moved(before: RetrievalScores, after: RetrievalScores, seed: int) -> Orders:
    change = 1 / after.t2i_ranks - 1 / before.t2i_ranks
    drawn = torch.randperm(len(change), generator=generator(seed, "report examples")).numpy()
    rising = drawn[np.argsort(-change[drawn], kind="stable")]  # ties in random order
    return {
        "largest gain": [row for row in rising if change[row] > 0],
        "largest loss": [row for row in rising[::-1] if change[row] < 0],
        "drawn at random": drawn,
    }


def _extremes(result: RetrievalScores, seed: int) -> Orders:
    drawn = torch.randperm(len(result.t2i_ranks), generator=generator(seed, "benchmark examples")).numpy()
    best = drawn[np.argsort(result.t2i_ranks[drawn], kind="stable")]
    return {"among the best": best, "among the worst": best[::-1], "drawn at random": drawn}


def _first_of_each(orders: Orders, owners: Sequence[int], per_rule: int) -> list[tuple[int, str]]:
    """Of each rule's rows in their order the first `per_rule`, at most one caption an image over all rules."""
    seen: set[int] = set()
    picked = []
    for rule, order in orders.items():
        wanted = per_rule
        for row in map(int, order):
            if wanted and owners[row] not in seen:
                seen.add(owners[row])
                picked.append((row, rule))
                wanted -= 1
    return picked


def _all_images(embeddings: Embeddings, scorer: Scorer, columns: Tensor) -> Tensor:
    """(N, len(columns)) scores of all images against a few captions."""
    blocks = ScoreBlocks(embeddings.images, scorer, 4096, embeddings.ids)
    return torch.cat([scores.cpu() for _, scores in blocks.of(embeddings.texts, columns)])


def _first(embeddings: Embeddings, scores: Tensor, owner: int, top: int) -> list[RankedImage]:
    """The `top` images by scores (N,), and `owner`, the true one, wherever it stands."""
    order = scores.argsort(descending=True, stable=True).tolist()
    shown = list(enumerate(order[:top], start=1))
    if owner not in order[:top]:
        shown.append((order.index(owner) + 1, owner))
    return [RankedImage(embeddings.ids[image], rank, image == owner) for rank, image in shown]


def pick_latents(
    embeddings: Embeddings,
    sae: SparseAutoencoder,
    names: Sequence[str] | LatentNames = (),
    *,
    count: int = 12,
    top: int = 8,
    seed: int = 0,
) -> list[LatentCard]:
    """Latents for the report, by `GALLERY_RULE`: `count` of those active in at least `top` images, `top` images each.

    Codes are made a block at a time, twice: for the strongest images, and to count.
    """
    rows, strength = strongest_images(sae, as_rows(embeddings), top)
    common = (strength > 0).all(1).nonzero()[:, 0]
    drawn = common[torch.randperm(len(common), generator=generator(seed, "report latents"))[:count]]
    active = torch.zeros(sae.n_latents, dtype=torch.int64)
    for images in embeddings.images.split(BLOCK):
        codes = sae.encode(images)
        active += torch.bincount(codes.indices[codes.values > 0], minlength=sae.n_latents)
    sure = names.certainty.tolist() if isinstance(names, LatentNames) else None
    return [
        LatentCard(
            latent=latent,
            name=(names[latent] if len(names) else "") or f"latent {latent}",
            share=int(active[latent]) / len(embeddings),
            image_ids=[embeddings.ids[row] for row in rows[latent].tolist()],
            certainty=sure[latent] if sure is not None and names[latent] else None,
            source=names.source if isinstance(names, LatentNames) else "",
        )
        for latent in drawn.tolist()
    ]
