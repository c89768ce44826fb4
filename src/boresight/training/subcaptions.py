"""Sub-captions: what is kept of a long synthetic caption for the contrastive loss (CLIPS, section 3.2).

The paper's four strategies are functions of token ids (`truncate`, `random_mask`, `block_mask`) or of the text
(`sub_caption`); `reduce` applies one by its name. A caption no longer than the budget is kept whole by all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, get_args

import torch
from torch import Generator

from boresight.data.sentences import sentences
from boresight.encoders.tokens import content_ids, plain_text
from boresight.errors import InputError, require_choice
from boresight.training.config import Strategy


def truncate(ids: Sequence[int], budget: int) -> list[int]:
    """The first `budget` tokens; `ids` are content tokens, without start and end."""
    return list(ids[:budget])


def random_mask(ids: Sequence[int], budget: int, random: Generator) -> list[int]:
    """`budget` tokens drawn without replacement, every set equally likely, in their order in the caption."""
    if len(ids) <= budget:
        return list(ids)
    return [ids[index] for index in sorted(torch.randperm(len(ids), generator=random)[:budget].tolist())]


def block_mask(ids: Sequence[int], budget: int, random: Generator) -> list[int]:
    """`budget` tokens in a row; every start from 0 to len(ids) - budget is equally likely, so the last can be kept."""
    if len(ids) <= budget:
        return list(ids)
    start = _draw(len(ids) - budget + 1, random)
    return list(ids[start : start + budget])


def sub_caption(
    text: str,
    random: Generator,
    *,
    n_sentences: int = 1,
    fill_to: int | None = None,
    count: Callable[[list[str]], list[int]] | None = None,
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
    pieces = sentences(text)
    if fill_to is not None:
        if count is None:
            raise InputError("fill_to counts tokens; pass count, a function from sentences to their numbers of tokens.")
        if not pieces:
            return ""
        pieces = pieces[_draw(len(pieces), random) :]
        before = accumulate(count(pieces), initial=0)
        return " ".join(piece for piece, tokens in zip(pieces, before, strict=False) if tokens < max(fill_to, 1))
    drawn = torch.randperm(len(pieces), generator=random)[:n_sentences].tolist()
    return " ".join(pieces[index] for index in sorted(drawn))


def reduce(
    text: str,
    strategy: Strategy,
    budget: int,
    tokenizer: Any,
    random: Generator,
    *,
    n_sentences: int = 1,
    fill: bool = False,
    lower_case: bool = False,
) -> list[int]:
    """Content token ids of `text`, without start and end, reduced by `strategy`.

    "none" keeps them all; "truncate", "random" and "block" keep `budget` of them; "sub-caption" keeps `n_sentences`
    sentences, or with `fill` as many as fill the budget, and no more than its first `budget` tokens. Empty when
    nothing of the text is left: the caller takes the web caption. Lower case comes last, since sentences are told by
    their capitals. The result depends on the arguments and the state of `random` alone.

    Example:
        >>> reduce(caption, "sub-caption", 32, tokenizer, generator(0, "example"))

    Relations:
        "sub-caption" is the published choice; "truncate" draws nothing and always loses what a caption says last;
        "block" may begin within a sentence, and "random" keeps words and no sentence. "none" shows what reducing gains.

    Raises InputError when the strategy is unknown or the budget is below 1.
    """
    require_choice("strategy", strategy, get_args(Strategy))
    if budget < 1:
        raise InputError(f"A budget of {budget} tokens keeps nothing of a caption; pass 1 or more.")
    if strategy == "sub-caption":

        def count(parts: list[str]) -> list[int]:
            parts = [part.lower() for part in parts] if lower_case else parts
            return [len(row) for row in plain_text(tokenizer, parts, add_special_tokens=False)["input_ids"]]

        limit = budget if fill else None
        text = sub_caption(text, random, n_sentences=n_sentences, fill_to=limit, count=count)
    ids = content_ids(text, tokenizer, lower_case)
    match strategy:
        case "none":
            return ids
        case "random":
            return random_mask(ids, budget, random)
        case "block":
            return block_mask(ids, budget, random)
        case _:
            return truncate(ids, budget)


def _draw(count: int, random: Generator) -> int:
    return int(torch.randint(count, (1,), generator=random))
