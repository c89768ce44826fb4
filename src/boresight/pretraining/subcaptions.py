"""Sub-captions: what is kept of a long synthetic caption for the contrastive loss (CLIPS, section 3.2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, Literal, get_args

import torch
from torch import Generator

from boresight.errors import InputError

Captions = Literal["web", "synthetic", "both"]
Strategy = Literal["none", "truncate", "random", "block", "sub-caption"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A full stop after these, or after initials and numbers of pages and houses, seldom ends a sentence.
_BEFORE_WORDS = _words(
    "mr mrs ms dr prof st mt ft rev hon gen col sgt capt lt gov sen rep jr sr inc ltd co corp bros dept est vs etc"
    " approx ca cf al e.g i.e viz incl oz lb lbs sq tel ext"
)
_BEFORE_NUMBERS = _words("no nos nr fig figs vol p pp ch sec art eq jan feb mar apr jun jul aug sep sept oct nov dec")
_OPENERS = _words(
    "the a an it its he she they we you i his her their this that these those there here in on at to by from with"
    " above below behind beside beneath near next over under between around while although overall one two several"
    " some many each both another other no all additionally also however"
)
_MARKS = re.compile(r"[.!?…]+(?:[ \t]+[.!?…]+(?=\s|$))*[\"'”’»)\]}*_]*|[。！？]+[」』”’）]*|[\r\n]+")
_LAST_WORD = re.compile(r"[^\s(\[{\"'“‘«]+$")
_NEXT_WORD = re.compile(r"[\s\"'“‘«(\[{*_]*(\w+)")


def truncate(ids: Sequence[int], budget: int) -> list[int]:
    """The first `budget` tokens; `ids` are content tokens, without start and end."""
    return list(ids[:budget])


def random_mask(ids: Sequence[int], budget: int, random: Generator) -> list[int]:
    """`budget` tokens drawn without replacement, every set equally likely, in their order in the caption."""
    if len(ids) <= budget:
        return list(ids)
    return [ids[place] for place in sorted(torch.randperm(len(ids), generator=random)[:budget].tolist())]


def block_mask(ids: Sequence[int], budget: int, random: Generator) -> list[int]:
    """`budget` tokens in a row; every start from 0 to len(ids) - budget is equally likely, so the last can be kept."""
    if len(ids) <= budget:
        return list(ids)
    start = _draw(len(ids) - budget + 1, random)
    return list(ids[start : start + budget])


def sentences(text: str) -> list[str]:
    """The sentences of a text, each with its mark; but for white space between them, joined they are the text.

    A sentence ends at a run of . ! ? … with the quotes and brackets that close behind it, at a new line, and at the
    full stops of Chinese and Japanese. It does not end

    - inside a word or number: "3.5", "example.com", "U.S."; only "sky.The", a small letter before the mark and a
      capital behind it, is taken for a forgotten space;
    - after an abbreviation ("Dr. Lee", "e.g. this", "J. Smith", "the U.S. flag", "No. 5", "Oct. 3"), unless a word
      follows that mostly opens a sentence: "in the U.S. The flag" is two;
    - after an ellipsis, or a mark within quotes or brackets, that a small letter follows: "well... no", '"Stop!" he
      said';
    - before there is a letter or digit, or behind a lone number: "1. A dog" is one sentence, and "..." joins one.

    A text without words ("...") is one sentence, white space is none. What it cannot know: a line broken in
    mid-sentence is two, "made by Acme Inc. Blue paint" is one.
    """
    pieces, start = [], 0
    for mark in _MARKS.finditer(text):
        if mark.start() >= start and _ends(text, start, mark):
            pieces.append(text[start : mark.end()].strip())
            start = mark.end()
    pieces.append(text[start:].strip())
    return [piece for piece in pieces if piece]


def _ends(text: str, start: int, mark: re.Match[str]) -> bool:
    # A word or two on each side decide; whole texts would make this quadratic.
    before, after = text[max(start, mark.start() - 80) : mark.start()], text[mark.end() : mark.end() + 40]
    sign = mark[0]
    if sign[0] in "\r\n。！？":
        return bool(before.strip())
    words = before.strip()
    if not re.search(r"\w", words) or (words.isdecimal() and sign == "." and after[:1].isspace()):
        return not after.strip()
    following = after.lstrip(" \t\"'“‘«([{*_")
    if after and not after[0].isspace():
        return len(sign) == 1 and before[-1:].islower() and before[-2:-1].islower() and after[0].isupper()
    if following[:1].islower() and (sign[-1] not in ".!?…" or sign.count(".") > 1 or "…" in sign):
        return False
    return sign != "." or not _abbreviated(before, after)


def _abbreviated(before: str, after: str) -> bool:
    """Whether the full stop between the two belongs to an abbreviation and the sentence goes on."""
    last, following = _LAST_WORD.search(before), _NEXT_WORD.match(after)
    if last is None or following is None:
        return False
    word = last[0].lower()
    if word in _BEFORE_NUMBERS:
        return following[1][0].isdigit()
    initials = re.fullmatch(r"(?:[^\W\d_]\.)*[^\W\d_]", last[0]) and last[0] not in ("I", "a")
    if word not in _BEFORE_WORDS and not initials:
        return False
    return not (following[1][0].isupper() and following[1].lower() in _OPENERS)


def published_sentences(text: str) -> list[str]:
    """The pieces between runs of . and !, as the published code splits: for comparison only.

    It cuts "3.5" and "U.S.", knows neither ? nor new lines, drops the marks and keeps pieces of white space.
    """
    return [piece for piece in re.split(r"[.!]+", text) if piece]


def sub_caption(
    text: str,
    random: Generator,
    *,
    n_sentences: int = 1,
    fill_to: int | None = None,
    count: Callable[[list[str]], list[int]] | None = None,
    split: Callable[[str], list[str]] = sentences,
) -> str:
    """Some whole sentences of `text`: the paper's choice for the synthetic caption.

    Args:
        text: the caption; one sentence comes back as it is, without the white space around it, none as "".
        n_sentences: how many to draw without replacement, every set equally likely; they keep their order.
        fill_to: instead, take sentences from a random start, every start equally likely, until they have so many
            tokens or the text ends. The last one may reach beyond; the caller cuts at the budget.
        count: the number of tokens in each of some sentences; needed with `fill_to`.

    Raises InputError when `fill_to` comes without `count`, or `n_sentences` is below 1.
    """
    if n_sentences < 1:
        raise InputError(f"n_sentences={n_sentences} keeps nothing of a caption; pass 1 or more.")
    pieces = split(text)
    if fill_to is not None:
        if count is None:
            raise InputError("fill_to counts tokens; pass count, a function from sentences to their numbers of tokens.")
        if not pieces:
            return ""
        pieces = pieces[_draw(len(pieces), random) :]
        before = accumulate(count(pieces), initial=0)
        return " ".join(piece for piece, tokens in zip(pieces, before, strict=False) if tokens < max(fill_to, 1))
    drawn = torch.randperm(len(pieces), generator=random)[:n_sentences].tolist()
    return " ".join(pieces[place] for place in sorted(drawn))


def reduce(
    text: str,
    strategy: Strategy,
    budget: int,
    tokenizer: Any,
    random: Generator,
    *,
    n_sentences: int = 1,
    fill: bool = False,
    split: Callable[[str], list[str]] = sentences,
) -> list[int]:
    """Content token ids of `text`, without start and end, reduced by `strategy`.

    "none" keeps them all; "truncate", "random" and "block" keep `budget` of them; "sub-caption" keeps `n_sentences`
    sentences, or with `fill` as many as fill the budget, and no more than its first `budget` tokens. Empty when
    nothing of the text is left: the caller takes the web caption. The result depends on the arguments and the state
    of `random` alone.

    Raises InputError when the strategy is unknown or the budget is below 1.
    """
    if strategy not in get_args(Strategy):
        raise InputError(f"strategy='{strategy}' is unknown; choose one of {', '.join(get_args(Strategy))}.")
    if budget < 1:
        raise InputError(f"A budget of {budget} tokens keeps nothing of a caption; pass 1 or more.")
    if strategy == "sub-caption":

        def count(parts: list[str]) -> list[int]:
            rows = tokenizer(parts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
            return [len(row) for row in rows]

        limit = budget if fill else None
        text = sub_caption(text, random, n_sentences=n_sentences, fill_to=limit, count=count, split=split)
    ids = content_ids(text, tokenizer)
    match strategy:
        case "none":
            return ids
        case "random":
            return random_mask(ids, budget, random)
        case "block":
            return block_mask(ids, budget, random)
        case _:
            return truncate(ids, budget)


def content_ids(text: str, tokenizer: Any) -> list[int]:
    """Token ids of the text alone, uncut, without start and end."""
    return tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]


def encode(ids: Sequence[int], tokenizer: Any, length: int) -> list[int]:
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
    for place in range(len(whole) - len(content) + 1):
        if whole[place : place + len(content)] == content:
            return tuple(whole[:place]), tuple(whole[place + len(content) :])
    raise InputError("The tokenizer changes a text's own tokens when it adds start and end; use another tokenizer.")


def _draw(count: int, random: Generator) -> int:
    return int(torch.randint(count, (1,), generator=random))
