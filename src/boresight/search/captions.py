"""From an image to captions: the nearest by the cosine, in the order of the editor's score.

What a caption asks of an image is a row of weights for every latent, too many to store for each caption. So candidates
are found by the cosine, over all captions, and scored exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from boresight.brief import Brief, brief, spelled
from boresight.editing import CaptionEditor
from boresight.errors import InputError, require_at_least
from boresight.search.query import MOST
from boresight.search.scan import Columns, LinearQueries, Rows, top_k
from boresight.search.snapshot import Snapshot
from boresight.tables import table


@dataclass(frozen=True, repr=False)
class CaptionResult(Brief):
    """One caption that was found.

    Attributes:
        caption: its words.
        image_id: of the image that it was written about.
        score, plain_score: by the editor and by the cosine.
        rank, plain_rank: 1 for the first; by the cosine among all captions.
    """

    caption: str
    image_id: str
    score: float
    plain_score: float
    rank: int
    plain_rank: int


@dataclass(frozen=True, repr=False)
class CaptionResults(Sequence[CaptionResult]):
    """The captions found for an image, best first; `exact` says whether the editor scored every caption."""

    items: tuple[CaptionResult, ...]
    exact: bool

    def __repr__(self) -> str:
        return spelled(self, {"answers": str(len(self)), "best": brief([one.caption for one in self.items[:1]])})

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: Any) -> Any:
        return self.items[place]

    def __iter__(self) -> Iterator[CaptionResult]:
        return iter(self.items)

    def __str__(self) -> str:
        lines = [
            [
                str(one.rank),
                one.caption,
                f"{one.score:.4f}",
                f"{one.plain_score:.4f}",
                str(one.plain_rank),
                one.image_id,
            ]
            for one in self.items
        ]
        return table(["rank", "caption", "score", "plain", "plain rank", "of image"], lines)


@torch.inference_mode()
def caption_answers(
    image: Tensor, snapshot: Snapshot, editor: CaptionEditor | None, k: int, candidates: int | None
) -> CaptionResults:
    """See `SearchIndex.search_captions`; image: (d,)."""
    if not snapshot.layout.texts:
        raise InputError("This index holds no embeddings of captions; make it again with them (texts=True, --texts).")
    require_at_least("k", k, 1)
    if candidates is not None:
        require_at_least("candidates", candidates, 1)
    rows, allowed = [], []
    for segment in snapshot.segments:
        assert segment.texts is not None
        rows.append(Rows((segment.texts,), None, (), None))
        allowed.append(None if segment.live is None else segment.live[segment.caption_owners])
    count = sum(len(one.dense[0]) if mask is None else int(mask.sum()) for one, mask in zip(rows, allowed, strict=True))
    wanted = count if candidates is None else min(count, max(candidates, k))
    if not count or k > MOST:
        raise InputError(f"k is {k} and the index has {count:,} captions; ask for 1 to {MOST:,} of them.")
    unit, one, nothing = (
        normalize(image.float(), dim=0),
        np.ones((1, 1), dtype=np.float32),
        np.zeros(1, dtype=np.float32),
    )
    columns = Columns(0, unit.numpy()[None], (), None, 0.0, one)
    cosines, found = top_k(rows, LinearQueries((columns,), nothing, nothing), wanted, allowed=allowed)
    starts = np.cumsum([0, *(len(each.dense[0]) for each in rows)])
    segments = np.searchsorted(starts, found[0], side="right") - 1
    places = list(zip(segments.tolist(), (found[0] - starts[segments]).tolist(), strict=True))
    scores, order = torch.from_numpy(cosines[0]), torch.arange(wanted)
    if editor is not None:
        texts = np.stack([rows[number].dense[0][at] for number, at in places]).astype(np.float32)
        scores = editor.score(image[None], texts)[0]
        order = scores.argsort(descending=True, stable=True)
    items = []
    for place, number in enumerate(order[:k].tolist()):
        segment, at = snapshot.segments[places[number][0]], places[number][1]
        owner = int(segment.caption_owners[at])
        record = segment.meta.slice(owner, 1).select(["id", "captions"]).to_pylist()[0]
        caption = record["captions"][at - int(np.searchsorted(segment.caption_owners, owner))]
        score, cosine = float(scores[number]), float(cosines[0, number])
        items.append(CaptionResult(caption, record["id"], score, cosine, place + 1, number + 1))
    return CaptionResults(tuple(items), editor is None or wanted == count)
