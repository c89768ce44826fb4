"""A caption's own words in other orders, after the order tests of ARO (arXiv 2210.01936).

ARO draws four orders, two of them of words chosen by a part-of-speech tagger. The four here need none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain

import torch

from boresight.seeds import generator

KINDS = ("words", "words", "within trigrams", "trigrams")
LONGEST = 30  # words, as in ARO
TRIES = 20
_MARKS = re.compile(r"[.!\"()*#:;~]")


def words_of(caption: str) -> list[str]:
    """The first 30 words in lower case, without the marks that would betray where a caption ended."""
    return _MARKS.sub(" ", caption.lower()).split()[:LONGEST]


def shuffles_of(words: Sequence[str], seed: int) -> list[str]:
    """One caption for each of KINDS: all words shuffled, twice; the words of each three; the threes.

    What no draw out of TRIES tells from the given order is left out, so a caption of three words has no 'trigrams'
    and one of a single word has none at all. A function of words and seed alone.
    """
    given = " ".join(words)
    numbers = generator(seed, f"word order: {given}")
    orders = []
    for kind in KINDS:
        drawn = (" ".join(_drawn(kind, words, numbers)) for _ in range(TRIES))
        other = next((shuffled for shuffled in drawn if shuffled != given), None)
        if other is not None:
            orders.append(other)
    return orders


def _drawn(kind: str, words: Sequence[str], numbers: torch.Generator) -> list[str]:
    threes = [words[start : start + 3] for start in range(0, len(words), 3)]
    if kind == "trigrams":
        return list(chain.from_iterable(_shuffled(threes, numbers)))
    if kind == "within trigrams":
        return list(chain.from_iterable(_shuffled(three, numbers) for three in threes))
    return _shuffled(words, numbers)


def _shuffled(items: Sequence, numbers: torch.Generator) -> list:
    return [items[row] for row in torch.randperm(len(items), generator=numbers).tolist()]
