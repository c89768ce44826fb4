"""Captions with one wrong word, after RoCOCO (arXiv 2304.10727), for any collection.

RoCOCO takes word classes from WordNet; here they come from the captions, by the neighbours a word stands between. A
swapped caption is false of its own image as far as that image's captions tell, and may be true of another.

The four kinds are RoCOCO's same-concept, diff-concept, rand-voca and danger (`boresight.benchmarks.rococo` reads the
published files). Other than there, any content word may go, not only a noun; 'random' draws from the words of the
captions, where rand-voca holds words that no caption has; 'danger' has 20 words, where three make up nearly all of the
published set; a word is replaced as a whole and typing stays as it was, so nothing but the word gives a swap away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from boresight.brief import Brief
from boresight.errors import InputError
from boresight.indexing import as_tensor
from boresight.sae.vocabulary import WORD, is_content
from boresight.seeds import generator

Kind = Literal["same-concept", "different-concept", "random", "danger"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NEAREST = 10
_DANGER = """
    ambush arson assassin blackmail bomb criminal explosion grenade gunfire hostage kidnapper massacre minefield missile
    murder poison terrorist torture warfare weapon
"""
DANGER = tuple(_DANGER.split())


@dataclass(frozen=True, repr=False)
class Swapped(Brief):
    """M captions, unchanged where none could be swapped; the S rows that were, ascending; S words out and S in."""

    captions: list[str]
    rows: list[int]
    old: list[str]
    new: list[str]


def word_vectors(captions: Sequence[str]) -> tuple[list[str], sparse.csr_array]:
    """V lower-case content words in alphabetical order, and (V, C) unit float64 rows of where they stand.

    Words in at least two captions, English stop words left out, by pointwise mutual information with neighbours. Left
    and right neighbour, and the ends of a caption, are contexts of their own; negative information is zero.
    """
    spoken = [[match.group().lower() for match in WORD.finditer(caption)] for caption in captions]
    frequency = Counter(word for said in spoken for word in set(said))
    words = sorted(word for word, count in frequency.items() if count > 1 and is_content(word))
    row_of = {word: row for row, word in enumerate(words)}
    contexts: dict[tuple[str, str], int] = {}
    counts: Counter[tuple[int, int]] = Counter()
    for said in spoken:
        for word, left, right in zip(said, ["", *said], [*said[1:], ""], strict=False):
            if word in row_of:
                for context in (("left", left), ("right", right)):
                    counts[row_of[word], contexts.setdefault(context, len(contexts))] += 1
    cells = np.array(list(counts), np.int64).reshape(-1, 2)
    seen = np.array(list(counts.values()), np.float64)
    expected = np.prod([np.bincount(side, seen)[side] for side in cells.T], axis=0) / max(seen.sum(), 1)
    information = np.log(seen / expected).clip(0)
    unit = information / np.sqrt(np.bincount(cells[:, 0], information**2)).clip(1e-12)[cells[:, 0]]
    return words, sparse.csr_array((unit, tuple(cells.T)), (len(words), len(contexts)))


def swap_words(
    captions: Sequence[str],
    kind: Kind,
    *,
    owners: Tensor | np.ndarray | Sequence[int] | None = None,
    seed: int = 0,
) -> Swapped:
    """Every caption with exactly one content word, drawn at random, replaced by a wrong one.

    The new word stands in no caption of that image, with or without an s, and the new caption is none of `captions`.
    The old word is the same for all kinds, unless nothing may replace it.

    Args:
        captions: M strings.
        kind: 'same-concept' draws among the NEAREST words by context, those at least half as near as the nearest;
            'different-concept' among the quarter least alike; 'random' among all; 'danger' among DANGER.
        owners: (M,) the image of each caption; left out, each is of its own image.

    Raises InputError for an unknown kind, no caption, another number of owners than of captions.
    """
    if kind not in KINDS:
        raise InputError(f"There is no swap '{kind}'; choose from {', '.join(KINDS)}.")
    if isinstance(captions, str) or not len(captions):
        raise InputError("swap_words needs a list of at least one caption.")
    images = list(range(len(captions))) if owners is None else as_tensor(owners, "owners").tolist()
    if len(images) != len(captions):
        raise InputError(f"owners has {len(images)} entries and there are {len(captions)} captions.")
    said, vectors = word_vectors(captions)
    words = DANGER if kind == "danger" else said
    pool, known, taken = _pools(kind, said, vectors), set(said), set(captions)
    true_of: dict[int, set[str]] = {}
    for caption, image in zip(captions, images, strict=True):
        true_of.setdefault(image, set()).update(_stem(match.group().lower()) for match in WORD.finditer(caption))
    where, which = generator(seed, "word swapped"), generator(seed, f"{kind} word")

    def swap(caption: str, true: set[str]) -> tuple[str, str, str] | None:
        matches = [match for match in WORD.finditer(caption) if match.group().lower() in known]
        for chosen in torch.randperm(len(matches), generator=where).tolist():
            word, rows = matches[chosen].group(), pool(matches[chosen].group().lower())
            for choice in torch.randperm(len(rows), generator=which).tolist():
                other = words[rows[choice]]
                shown = other.capitalize() if word[0].isupper() else other
                changed = caption[: matches[chosen].start()] + shown + caption[matches[chosen].end() :]
                if _stem(other) not in true and changed not in taken:
                    return changed, word.lower(), other
        return None

    swaps = [swap(caption, true_of[image]) for caption, image in zip(captions, images, strict=True)]
    done = [(row, *swapped) for row, swapped in enumerate(swaps) if swapped is not None]
    changed = [caption if swapped is None else swapped[0] for caption, swapped in zip(captions, swaps, strict=True)]
    return Swapped(changed, [row for row, *_ in done], [old for *_, old, _ in done], [new for *_, new in done])


def _pools(kind: Kind, words: Sequence[str], vectors: sparse.csr_array) -> Callable[[str], Sequence[int] | np.ndarray]:
    """From a word to the rows of those it may be swapped for, the words of its image not yet taken out."""
    if kind in ("random", "danger"):
        rows = range(len(words if kind == "random" else DANGER))
        return lambda word: rows
    row_of = {word: row for row, word in enumerate(words)}

    @lru_cache(maxsize=512)  # of all words at once these would be the square of their number
    def pool(word: str) -> np.ndarray:
        cosines = (vectors @ vectors[[row_of[word]]].T).toarray()[:, 0]
        others = np.delete(np.arange(len(cosines), dtype=np.int32), row_of[word])
        alike = others[np.argsort(-cosines[others], kind="stable")]
        if kind == "same-concept":
            return alike[:NEAREST][cosines[alike[:NEAREST]] >= max(cosines[alike].max(initial=0) / 2, 1e-9)]
        return alike[cosines[alike] <= np.quantile(cosines[alike], 0.25)] if len(alike) else alike

    return pool


def _stem(word: str) -> str:
    return word.removesuffix("s").removesuffix("'")
