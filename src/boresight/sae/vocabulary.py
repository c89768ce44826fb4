"""Words and word pairs of captions, as candidates for the names of latents."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from scipy import sparse

from boresight.errors import InputError

WORD = re.compile(r"[^\W\d_]+(?:['’\-][^\W\d_]+)*")
_STOP = """
    a about above across after against all along also among an and another any are around as at away back be because
    been before behind being below beneath beside between both but by called can could did do does doing down during
    each either every few for from had has have having he her hers him his how i if in inside into is it its itself
    just like many may me more most much my near next no nor not of off on one onto or other our out outside over own
    per she should since so some such than that the their them then there these they this those through to together
    toward towards two under until up upon us very via was we were what when where which while who whom whose why will
    with within without would you your image photo picture photograph showing shows shown seen
"""
STOP_WORDS = frozenset(_STOP.split())


def terms(caption: str) -> set[str]:
    """Lower-case words of a caption, without stop words, and the pairs with nothing but a space between them.

    Words are runs of letters of any script, with inner hyphens and apostrophes; a script without spaces gives one
    word a phrase. A 10,000-word caption costs time in proportion to its length.
    """
    caption = caption.lower()
    words = [match for match in WORD.finditer(caption) if is_content(match.group())]
    pairs = {
        f"{first.group()} {second.group()}"
        for first, second in pairwise(words)
        if caption[first.end() : second.start()].isspace()
    }
    return {word.group() for word in words} | pairs


def vocabulary_from_captions(captions: Iterable[str], *, size: int = 10_000, least: int = 2) -> list[str]:
    """The words and pairs that occur in the most captions, at most `size`, each in at least `least` captions.

    Most frequent first, ties in alphabetical order; stop words (English) dropped. Raises InputError when nothing
    is left.
    """
    frequency: Counter[str] = Counter()
    for caption in captions:
        frequency.update(terms(caption))
    ranked = sorted(
        (term for term, count in frequency.items() if count >= least), key=lambda term: (-frequency[term], term)
    )
    if not ranked or size < 1:
        raise InputError(
            f"No word stands in {least} captions or more (size {size}); pass more captions or a smaller least."
        )
    return ranked[:size]


def terms_by_image(
    captions: Iterable[str], owners: Iterable[int], images: int, vocabulary: Sequence[str] | None = None
) -> tuple[sparse.csr_array, list[str]]:
    """(N, V) ones where a caption of an image holds a term, and the V terms.

    owners: the image of each caption, in [0, images). The terms are the vocabulary, or all that occur.
    """
    column_of = {term: index for index, term in enumerate(vocabulary or ())}
    rows, columns = array("q"), array("q")
    for caption, owner in zip(captions, owners, strict=True):
        for term in sorted(terms(caption)):
            index = column_of.get(term) if vocabulary is not None else column_of.setdefault(term, len(column_of))
            if index is not None:
                rows.append(owner)
                columns.append(index)
    shape = (images, len(column_of))
    said = sparse.csr_array((np.ones(len(rows)), (np.array(rows), np.array(columns))), shape=shape)
    said.data[:] = 1.0
    return said, list(column_of)


def words_beside(captions: Iterable[str], vocabulary: Sequence[str]) -> sparse.csr_array:
    """(V, C) how often each word, or the start or end of a caption, stands right before or right after each term.

    C is what stands before any term and what stands after any, apart. Terms that take each other's place, 'red' and
    'blue', have rows of one direction.
    """
    column_of = {term: row for row, term in enumerate(vocabulary)}
    beside: dict[tuple[bool, str], int] = {}
    rows, columns = array("q"), array("q")
    for caption in captions:
        words = ["", *WORD.findall(caption.lower()), ""]
        for start in range(1, len(words) - 1):
            for end in (start, start + 1):
                row = column_of.get(" ".join(words[start : end + 1]))
                if row is not None and end < len(words) - 1:
                    for context in ((False, words[start - 1]), (True, words[end + 1])):
                        rows.append(row)
                        columns.append(beside.setdefault(context, len(beside)))
    shape = (len(vocabulary), len(beside))
    return sparse.csr_array((np.ones(len(rows)), (np.array(rows), np.array(columns))), shape=shape)


def is_content(word: str) -> bool:
    """Whether a lower-case word says something by itself: more than one letter, no stop word."""
    return len(word) > 1 and word not in STOP_WORDS
