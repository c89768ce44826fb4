"""The verdict: whether an edit finds more than the best that a user could do without one, and how sure that is.

The difference in the sum of six recalls is taken over the images of a test set, drawn again and again with all that
hangs on them: the image as a query and its captions as queries. The galleries stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.brief import Brief, brief
from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings
from boresight.embeddings.embeddings import left_out_words
from boresight.errors import InputError
from boresight.evaluation.comparison_rows import PLAIN
from boresight.evaluation.retrieval import RetrievalScores, chance
from boresight.seeds import generator
from boresight.tables import signed

Word = Literal["helps", "level", "hurts"]
DRAWS = 2000
FEW_IMAGES = 200
_INTERVAL = (0.025, 0.975)
_NOISE = 3.0  # standard deviations that plain has to be above chance
_MANY_REPEATED = 0.5  # of the captions
_DRAWN_AT_ONCE = 2**19
_HASHED_AT_ONCE = 8192
_ROUNDING = 1e-9
_SAME = 1 - 1e-5  # cosine of one picture with itself, remembered in half precision


@dataclass(frozen=True, repr=False)
class Verdict(Brief):
    """Ours against the best alternative, in the sum of six recalls (0 to 600), means over seeds.

    Attributes:
        word: 'helps' where the interval is above 0, 'level' where it holds 0, 'hurts' where it is below.
        rival: name of the alternative with the largest sum.
        ours, theirs: the two sums.
        difference: ours - theirs.
        low, high: its 95 % interval over the images; another fit of the same models is not in it.
        sentence: all of this in words.
        warnings: what takes from its worth, a sentence each.
        chosen: of alternatives that needed no training what each takes off, 'bank' and 'chosen on', in words.
    """

    word: Word
    rival: str
    ours: float
    theirs: float
    difference: float
    low: float
    high: float
    sentence: str
    warnings: tuple[str, ...] = ()
    chosen: Mapping[str, str] = field(default_factory=dict)

    def _parts(self) -> dict[str, str]:
        shown = {"word": repr(self.word), "difference": f"{self.difference:+.1f}"}
        shown |= {"interval": f"[{self.low:.1f}, {self.high:.1f}]", "rival": brief(self.rival)}
        return shown | ({"warnings": str(len(self.warnings))} if self.warnings else {})

    def __str__(self) -> str:
        warnings = [f"Warning: {warning}" for warning in self.warnings]
        return "\n".join([self.sentence, *warnings, *(f"{name}: {how}" for name, how in self.chosen.items())])


def hits_by_image(scores: RetrievalScores, owners: Tensor) -> np.ndarray:
    """(N, 2) float32, of each image: hits of its captions, added up, and its own; of depths 1, 5 and 10 together.

    owners: (M,) int64, the image of each caption.
    """
    n = len(scores.i2t_hits)
    of_captions = np.bincount(owners.cpu().numpy(), weights=scores.t2i_hits, minlength=n)
    return np.stack([of_captions, np.nan_to_num(scores.i2t_hits)], axis=1).astype(np.float32)


def verdict(
    test: Embeddings | Sequence[Embeddings],
    ours: Sequence[np.ndarray],
    rivals: Mapping[str, Sequence[np.ndarray]],
    *,
    notes: Sequence[str] = (),
    draws: int = DRAWS,
    seed: int = 0,
) -> Verdict:
    """Paired bootstrap over the images that have captions, each drawn with its captions.

    Args:
        test: what was scored, N images; or several galleries, N images together, whose queries count alike.
        ours: what `hits_by_image` gave, one array a seed.
        rivals: the same by name, 'plain' among them; one array where no seed changes it.
        notes: more to warn of.
        draws, seed: how often images are drawn, and by which seed.

    Memory: a few arrays of N numbers, the captions once, and blocks of 2^19 draws.

    Example:
        scores = {"plain": evaluate_retrieval(test), "edited": evaluate_retrieval(test, editor)}
        hits = {name: [hits_by_image(each, test.owners)] for name, each in scores.items()}
        print(verdict(test, hits.pop("edited"), hits))

    Relations: `evaluate_editor` and `compare` end with it.

    Raises:
        InputError: no 'plain' among the rivals.
    """
    if PLAIN.name not in rivals:
        raise InputError(f"A verdict needs '{PLAIN.name}' among the rivals, by which a wrong encoder shows; add it.")
    galleries = [test] if isinstance(test, Embeddings) else test
    counts = np.concatenate([np.bincount(part.owners.cpu().numpy(), minlength=len(part)) for part in galleries])
    level = np.concatenate([hits_by_image(chance(part), part.owners) for part in galleries])
    asked = counts > 0
    means = {name: np.stack(hits).mean(axis=0, dtype=float)[asked] for name, hits in rivals.items()}
    mine, floor = np.stack(ours).mean(axis=0, dtype=float)[asked], level[asked]
    columns = np.stack([counts[asked], np.ones(asked.sum())], axis=1)
    sums = {name: float(_recall_sums(hits.sum(0), columns.sum(0))) for name, hits in means.items()}
    rival = max(sums, key=lambda name: sums[name])
    drawn = _drawn(np.concatenate([mine - means[rival], means[PLAIN.name] - floor, columns], axis=1), draws, seed)
    low, high = (float(end) for end in np.quantile(_recall_sums(drawn[:, :2], drawn[:, 4:]), _INTERVAL))
    word: Word = "helps" if low > _ROUNDING else "hurts" if high < -_ROUNDING else "level"
    own, chances = (float(_recall_sums(hits.sum(0), columns.sum(0))) for hits in (mine, floor))
    warnings = []
    if sums[PLAIN.name] - chances <= _NOISE * float(_recall_sums(drawn[:, 2:4], drawn[:, 4:]).std()):
        warnings.append(
            f"'{PLAIN.name}' is at chance, {sums[PLAIN.name]:.1f} where a score that knows nothing has {chances:.1f}: "
            "look for a wrong encoder or captions of other images, or test on more."
        )
    if len(counts) < FEW_IMAGES:
        warnings.append(f"The test set has {len(counts)} images; with under {FEW_IMAGES} a few of them decide.")
    repeated, texts = sum(_repeated(part) for part in galleries), int(counts.sum())
    if repeated >= _MANY_REPEATED * texts:
        warnings.append(
            f"{repeated:,} of {texts:,} test captions read like one of another image, and nothing can tell which image "
            "such a caption asks for; test on captions that say what is special."
        )
    if own - sums[rival] < -_ROUNDING:
        warnings.append(f"'{rival}' found more than the edit, and is the simpler way.")
    return Verdict(
        word=word,
        rival=rival,
        ours=own,
        theirs=sums[rival],
        difference=own - sums[rival],
        low=low,
        high=high,
        sentence=f"The edit {'is level' if word == 'level' else word}: it has {own:.1f} in the sum of six recalls and "
        f"'{rival}', the best alternative, {sums[rival]:.1f}; the difference is {signed(own - sums[rival])} (95 % "
        f"interval {signed(low)} to {signed(high)}).",
        warnings=(*warnings, *notes),
    )


def _repeated(test: Embeddings) -> int:
    """How many captions are also another image's; 0 where their words are not known."""
    owner: dict[str, int] = {}
    shared = set()
    for caption, image in zip(test.captions or (), test.owners.tolist(), strict=False):
        if owner.setdefault(caption, image) != image:
            shared.add(caption)
    return sum(caption in shared for caption in test.captions or ())


def _recall_sums(hits: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Sums of six recalls in percent; hits, queries: (..., 2) of captions and of images."""
    return 100 * (hits / queries).sum(-1)


def _drawn(values: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """(draws, C) sums over N rows drawn with replacement, each draw anew. values: (N, C)."""
    rows, size, random = torch.from_numpy(values), len(values), generator(seed, "verdict")
    sums = rows.new_empty(draws, rows.shape[1])  # whole from the start: small pieces between blocks would keep the heap
    for part in sums.split(max(1, _DRAWN_AT_ONCE // size)):
        chosen = torch.randint(size, (len(part), size), generator=random)
        chosen += size * torch.arange(len(part)).unsqueeze(1)
        times = torch.bincount(chosen.flatten(), minlength=len(part) * size).view(len(part), size)
        part.copy_(times.double() @ rows)
    return sums.numpy()


def warn_of_known(
    test: Sequence[Embeddings], fitted: Sequence[Embeddings], editor: CaptionEditor | None = None
) -> list[str]:
    """A sentence where images of the test sets are, by their embeddings, among what was fitted on or is remembered."""
    known = {row for part in fitted for row in _row_hashes(part)}
    same = np.array([row in known for part in test for row in _row_hashes(part)])
    if editor is not None and editor.memory is not None:
        same |= np.concatenate([_remembered(part, editor.memory.images) for part in test])
    if not same.any():
        return []
    return [f"{same.sum():,} of {len(same):,} test images were fitted or chosen on, or are remembered; test on others."]


def warn_of_missing(test: Sequence[Embeddings]) -> list[str]:
    """A sentence where pictures of the test sets were left out of their embeddings."""
    missing = dict.fromkeys(words for part in test if (words := left_out_words(part)))
    return [f"The test set is not whole; left out: {'; '.join(missing)}."] if missing else []


def _row_hashes(embeddings: Embeddings) -> Iterator[int]:
    """A number for each image, equal for equal embeddings; in blocks, since they may be memory-mapped."""
    return (hash(row.tobytes()) for block in embeddings.images.split(_HASHED_AT_ONCE) for row in block.float().numpy())


def _remembered(test: Embeddings, images: Tensor) -> np.ndarray:
    """(N,) bool. images: (R, d)."""
    remembered = F.normalize(images.float().cpu(), dim=1).t()
    blocks = test.images.split(max(1, 2**23 // max(1, remembered.shape[1])))
    nearest = [(F.normalize(block.float(), dim=1) @ remembered).amax(1) for block in blocks]
    return (torch.cat(nearest) > _SAME).numpy()
