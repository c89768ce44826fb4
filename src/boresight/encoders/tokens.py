"""Where the tokens of a caption stand in it, the words that they make up, and the rows of ids that models read."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from torch import Tensor

from boresight.brief import Brief
from boresight.errors import InputError

_IDEOGRAPHS = "\u3040-\u3098\u309b-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_JOINERS = "\u200c\u200d"


@cache
def _word_pattern() -> re.Pattern[str]:
    """Scripts without spaces give a word a character; others a run of letters and digits, or of signs.

    Vowel signs, accents and joiners belong to the letter or sign before them.
    """
    marks = [chr(number) for number in range(0x300, 0x1E950) if unicodedata.category(chr(number))[0] == "M"]
    mark = f"[{''.join(marks)}\U000e0100-\U000e01ef{_JOINERS}]"
    letter = rf"(?:(?!{mark})[^\W{_IDEOGRAPHS}]{mark}*)"
    return re.compile(rf"[{_IDEOGRAPHS}]{mark}*|{letter}+(?:['’\-]{letter}+)*|(?:(?!{mark})[^\w\s]{mark}*)+|{mark}+")


@dataclass(frozen=True)
class Token:
    """A token as its tokenizer spells it, and the characters `start` to `end` of the caption it stands for.

    special: start, end and the like, which stand for no character.
    """

    text: str
    start: int
    end: int
    special: bool


@dataclass(frozen=True, repr=False)
class TokenizedTexts(Brief):
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
    reaches over several, they are one. A token of nothing but white space belongs to the word behind it, or to the
    last one.
    """
    spans = [match.span() for match in _word_pattern().finditer(caption)]
    groups: list[tuple[int, int, list[int]]] = []
    blank: list[int] = []
    for i, token in enumerate(tokens):
        if token.special:
            continue
        over = [span for span in spans if span[0] < max(token.end, token.start + 1) and token.start < span[1]]
        start, end = (over[0][0], over[-1][1]) if over else (token.start, token.end)
        if groups and start < groups[-1][1]:
            first, last, members = groups[-1]
            groups[-1] = (first, max(last, end), [*members, *blank, i])
        elif over:
            groups.append((start, end, [*blank, i]))
        else:
            blank.append(i)
            continue
        blank = []
    if groups:
        groups[-1][2].extend(blank)
    return [(caption[start:end], tuple(members)) for start, end, members in groups]


def lowered(caption: str) -> tuple[str, list[int]]:
    """The caption in lower case, and where in the caption each of its characters, and its end, stands.

    Lower case can be longer: that of the Turkish dotted capital I has two characters.
    """
    lengths = [len(sign.lower()) for sign in caption]
    places = [place for place, length in enumerate(lengths) for _ in range(length)]
    return caption.lower(), [*places, len(caption)]


def fast_tokens(tokenizer: Any, caption: str, ids: Sequence[int], *, lower_case: bool = False) -> list[Token]:
    """The tokens `ids` of a caption, by a tokenizer that knows offsets; of a cut caption the end token may be left."""
    text, places = lowered(caption) if lower_case else (caption, list(range(len(caption) + 1)))
    whole = plain_text(tokenizer, text, return_offsets_mapping=True, return_special_tokens_mask=True)
    # Not told by their numbers: the name of what is unknown stands for something in the caption.
    rows = list(zip(whole["offset_mapping"], whole["special_tokens_mask"], strict=True))
    if len(rows) > len(ids):
        kept_end = whole["input_ids"][-1] == ids[-1] and bool(rows[-1][1])
        rows = [*rows[: len(ids) - 1], rows[-1]] if kept_end else rows[: len(ids)]
    names = tokenizer.convert_ids_to_tokens(list(ids))
    return [
        Token(name, places[start], places[end - 1] + 1 if end > start else places[end], bool(special))
        for name, ((start, end), special) in zip(names, rows, strict=True)
    ]


def aligned_tokens(caption: str, pieces: Sequence[bytes | None], *, without: str = "") -> list[Token]:
    """Tokens from the UTF-8 of each (None for a special one), found one behind the other in the lower-cased caption.

    A piece may be part of a character. One that is not found (a tokenizer that rewrites its text) stands for nothing,
    at the place reached so far.

    Args:
        without: characters that the tokenizer leaves out.
    """
    text, places = lowered(caption)
    kept = [(sign, place) for sign, place in zip(text, places, strict=False) if sign not in without]
    signs = [*(place for sign, place in kept for _ in sign.encode()), len(caption)]
    encoded, reached, aligned = "".join(sign for sign, _ in kept).encode(), 0, []
    for piece in pieces:
        found = -1 if piece is None or not piece.strip() else encoded.find(piece.strip(), reached)
        start, end = (reached, reached) if found < 0 or piece is None else (found, found + len(piece.strip()))
        name = "" if piece is None else piece.decode(errors="replace")
        aligned.append(Token(name, signs[start], signs[end - 1] + 1 if end > start else signs[end], piece is None))
        reached = end
    return aligned


def plain_text(tokenizer: Any, texts: str | list[str], **options: Any) -> Mapping[str, Any]:
    """What the tokenizer makes of captions, uncut and unpadded.

    The name of a token of its own that a caption happens to hold ('</s>', '[SEP]') is text like any other: taken for
    the token, it would end the caption there. Tokens that were added to the vocabulary stay tokens, those that were
    added as special ones but for captions that hold such a name.
    """
    names = set(tokenizer.special_tokens_map.values())
    if isinstance(texts, str):
        options["split_special_tokens"] = any(name in texts for name in names)
    elif any(name in text for name in names for text in texts):
        # One by one: what a caption becomes does not hang on those beside it.
        rows = [plain_text(tokenizer, text, **options) for text in texts]
        return {key: [row[key] for row in rows] for key in rows[0]}
    return tokenizer(texts, truncation=False, padding=False, verbose=False, **options)


def content_ids(text: str, tokenizer: Any, lower_case: bool = False) -> list[int]:
    """Token ids of the text alone, uncut, without start and end."""
    return plain_text(tokenizer, text.lower() if lower_case else text, add_special_tokens=False)["input_ids"]


def padded_ids(ids: Sequence[int], tokenizer: Any, length: int) -> list[int]:
    """`length` ids: content tokens between the tokenizer's own start and end, cut to fit, then padding.

    For untouched text this is what a tokenizer that pads on the right returns with `max_length=length`, truncation and
    padding to it. The end token is always kept: towers read the caption there. Where there is no padding token the last
    id is repeated. Raises InputError when `length` leaves no room for content.
    """
    start, end = special_ids(tokenizer)
    room = length - len(start) - len(end)
    if room < 1:
        raise InputError(f"A length of {length} leaves no room beside start and end tokens; pass a longer one.")
    row = [*start, *ids[:room], *end]
    blank = tokenizer.pad_token_id
    return row + [row[-1] if blank is None else blank] * (length - len(row))


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
