"""Where the tokens of a caption stand in it, the words that they make up, and the rows of ids that models read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import Tensor

from boresight.errors import InputError

# Scripts without spaces give a word a character; others a run of letters and digits, or of signs.
_WORD = re.compile(r"[぀-ヿ㐀-䶿一-鿿豈-﫿]|[^\W぀-ヿ㐀-䶿一-鿿豈-﫿]+(?:['’\-][^\W぀-ヿ㐀-䶿一-鿿豈-﫿]+)*|[^\w\s]+")


@dataclass(frozen=True)
class Token:
    """A token as its tokenizer spells it, and the characters `start` to `end` of the caption it stands for.

    special: start, end and the like, which stand for no character.
    """

    text: str
    start: int
    end: int
    special: bool


@dataclass(frozen=True)
class TokenizedTexts:
    """Captions as a text tower takes them.

    Attributes:
        inputs: the tower's tensors, (B, ...) each.
        real: (B, T) bool, columns that hold a token of the caption and not padding.
        tokens: of each caption in order, as many as its row of `real` has columns.
    """

    inputs: dict[str, Tensor]
    real: Tensor
    tokens: list[list[Token]]


def grouped_words(caption: str, tokens: Sequence[Token]) -> list[tuple[str, tuple[int, ...]]]:
    """Whole words in order, each with its tokens (their positions in `tokens`); special tokens belong to none.

    A word is a run of letters and digits with inner hyphens and apostrophes, or a run of other signs; where one token
    reaches over several, they are one.
    """
    spans = [match.span() for match in _WORD.finditer(caption)]
    groups: list[tuple[int, int, list[int]]] = []
    for i, token in enumerate(tokens):
        if token.special:
            continue
        over = [span for span in spans if span[0] < max(token.end, token.start + 1) and token.start < span[1]]
        start, end = (over[0][0], over[-1][1]) if over else (token.start, token.end)
        if groups and start < groups[-1][1]:
            first, last, members = groups[-1]
            groups[-1] = (first, max(last, end), [*members, i])
        else:
            groups.append((start, end, [i]))
    return [(caption[start:end].strip(), tuple(members)) for start, end, members in groups]


def fast_tokens(tokenizer: Any, caption: str, ids: Sequence[int]) -> list[Token]:
    """The tokens `ids` of a caption, by a tokenizer that knows offsets; of a cut caption the end token may be left."""
    whole = tokenizer(caption, truncation=False, padding=False, return_offsets_mapping=True, verbose=False)
    offsets, special = list(whole["offset_mapping"]), set(tokenizer.all_special_ids)
    if len(offsets) > len(ids):
        kept_end = whole["input_ids"][-1] == ids[-1] and ids[-1] in special
        offsets = [*offsets[: len(ids) - 1], offsets[-1]] if kept_end else offsets[: len(ids)]
    names = tokenizer.convert_ids_to_tokens(list(ids))
    return [
        Token(name, start, end, number in special)
        for name, (start, end), number in zip(names, offsets, ids, strict=True)
    ]


def aligned_tokens(caption: str, pieces: Sequence[str | None]) -> list[Token]:
    """Tokens from the text of each (None for a special one), found one behind the other in the lower-cased caption.

    A piece that is not found (a tokenizer that rewrites its text) stands for nothing, at the place reached so far.
    """
    lowered, reached, aligned = caption.lower(), 0, []
    if len(lowered) != len(caption):
        lowered = caption  # lower case of another length would shift every position
    for piece in pieces:
        if piece is None:
            aligned.append(Token("", reached, reached, special=True))
            continue
        start = lowered.find(piece.strip(), reached) if piece.strip() else -1
        end = reached if start < 0 else start + len(piece.strip())
        aligned.append(Token(piece, reached if start < 0 else start, end, special=False))
        reached = end
    return aligned


def content_ids(text: str, tokenizer: Any, lower_case: bool = False) -> list[int]:
    """Token ids of the text alone, uncut, without start and end."""
    text = text.lower() if lower_case else text
    return tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]


def padded_ids(ids: Sequence[int], tokenizer: Any, length: int) -> list[int]:
    """`length` ids: content tokens between the tokenizer's own start and end, cut to fit, then padding.

    For untouched text this is what the tokenizer returns with `max_length=length`, truncation and padding to it. The
    end token is always kept: towers read the caption there. Where there is no padding token the last id is repeated.
    Raises InputError when `length` leaves no room for content.
    """
    start, end = special_ids(tokenizer)
    room = length - len(start) - len(end)
    if room < 1:
        raise InputError(f"A length of {length} leaves no room beside start and end tokens; pass a longer one.")
    row = [*start, *ids[:room], *end]
    blank = tokenizer.pad_token_id
    padding = [row[-1] if blank is None else blank] * (length - len(row))
    return padding + row if tokenizer.padding_side == "left" else row + padding


@lru_cache(maxsize=16)
def special_ids(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the tokenizer puts before a text and those it puts behind it."""
    content, whole = content_ids("a", tokenizer), tokenizer("a")["input_ids"]
    for start in range(len(whole) - len(content) + 1):
        if whole[start : start + len(content)] == content:
            return tuple(whole[:start]), tuple(whole[start + len(content) :])
    raise InputError("The tokenizer changes a text's own tokens when it adds start and end; use another tokenizer.")


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Hex digest (16 characters) of a tokenizer's vocabulary and special tokens."""
    vocabulary = [sorted(tokenizer.get_vocab().items()), sorted(tokenizer.all_special_ids)]
    return hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()[:16]
