"""Captions longer than a text tower reads: cut to what it reads, or read window by window."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Literal

import torch
from torch import Tensor

from boresight.encoders.protocol import Encoder, unit_rows
from boresight.errors import InputError

LongText = Literal["truncate", "windows"]
Count = Callable[[list[str]], list[int]]


def cut_to_limit(rows: Sequence[Sequence[int]], limit: int, special: Collection[int]) -> tuple[list[list[int]], int]:
    """Token ids of captions, none longer than `limit`, and how many were cut.

    A row that ends in one of the `special` ids keeps it as its last: many text towers read the caption at its
    end token, and without it the embedding means nothing.
    """
    out, cut = [], 0
    for row in rows:
        if len(row) > limit:
            cut += 1
            row = [*row[: limit - 1], row[-1]] if row[-1] in special else row[:limit]
        out.append(list(row))
    return out, cut


def warn_of_truncation(encoder: Encoder, cut: int, total: int | None = None) -> None:
    """The loud word on truncation; the caller sees to it that it is said once."""
    were, of = "was" if cut == 1 else "were", "" if total is None else f" of these {total}"
    warnings.warn(
        f"{cut}{of} captions {were} longer than the {encoder.token_limit} tokens that {encoder.name} reads and lost "
        "the end of the text (the end token is kept); this is said once.",
        UserWarning,
        stacklevel=4,
    )


def embed_texts_in_windows(encoder: Encoder, texts: Sequence[str], batch_size: int) -> tuple[Tensor, int]:
    """Embeddings (B, d) float32 of unit length on the CPU, and how many captions were longer than the model reads.

    Such a caption is cut into windows (see `windows`), each of which the model reads with its own start and end; the
    windows' unit embeddings are averaged, weighted by their tokens without start and end, and brought to unit length.
    A caption that fits gets bitwise what `encoder.embed_texts(texts)` gives it.

    Raises InputError when the encoder does not count tokens, and as `Encoder.embed_texts` does.
    """
    if not (hasattr(encoder, "token_counts") and hasattr(encoder, "token_limit")):
        raise InputError(
            f"{encoder.name} does not tell how many tokens a caption has (token_counts, token_limit), so none can be "
            "read in windows; pass long_text='truncate'."
        )
    long = [row for row, tokens in enumerate(encoder.token_counts(texts)) if tokens > encoder.token_limit]
    if not long:
        return encoder.embed_texts_counted(texts)[0], 0
    whole = torch.empty(len(texts), encoder.width)
    fits = sorted(set(range(len(texts))) - set(long))
    if fits:  # together with the long ones: another batch would be rounded otherwise
        whole[fits] = encoder.embed_texts_counted(texts)[0][fits]
    special = encoder.token_counts([""])[0]
    cut = [windows(texts[row], encoder.token_limit, encoder.token_counts) for row in long]
    pieces = [piece for parts in cut for piece in parts]
    owners = torch.tensor([row for row, parts in enumerate(cut) for _ in parts])
    weights = torch.tensor(encoder.token_counts(pieces), dtype=torch.float32).sub(special).clamp(min=1)
    rows = [encoder.embed_texts_counted(pieces[at : at + batch_size])[0] for at in range(0, len(pieces), batch_size)]
    sums = torch.zeros(len(long), encoder.width).index_add_(0, owners, torch.cat(rows) * weights[:, None])
    whole[long] = unit_rows(sums, encoder.name, "long caption")
    return whole, len(long)


def windows(text: str, limit: int, count: Count) -> list[str]:
    """Pieces of a text in order, none with more than `limit` tokens by `count`, filled from the left.

    They are cut between words, and only words that do not fit alone (or scripts without spaces) within; but for the
    white space between them, joined they are the text. A single character is never cut, whatever its tokens.

    Args:
        count: tokens of each of some texts, start and end included.
    """
    special = count([""])[0]
    spans = _fitting_spans(text, [match.span() for match in re.finditer(r"\S+", text)], limit, count)
    if not spans:
        return [text]
    sizes = count([text[start:end] for start, end in spans])
    full: list[tuple[int, int]] = []
    used = 0
    for (start, end), size in zip(spans, sizes, strict=True):
        if full and used + size - special <= limit:
            full[-1], used = (full[-1][0], end), used + size - special
        else:
            full.append((start, end))
            used = size
    # Tokens of words need not add up to those of the text between them, so that a window may still be too long.
    return [text[start:end] for start, end in _fitting_spans(text, full, limit, count)]


def _fitting_spans(text: str, spans: list[tuple[int, int]], limit: int, count: Count) -> list[tuple[int, int]]:
    """`spans` of the text with those halved, again and again, that have too many tokens; between words if there are."""
    while True:
        sizes = count([text[start:end] for start, end in spans]) if spans else []
        halved: list[tuple[int, int]] = []
        for (start, end), size in zip(spans, sizes, strict=True):
            halved += [(start, end)] if size <= limit or end - start == 1 else _halves(text, start, end)
        if len(halved) == len(spans):
            return spans
        spans = halved


def _halves(text: str, start: int, end: int) -> list[tuple[int, int]]:
    middle = (start + end) // 2
    gaps = [(start + match.start(), start + match.end()) for match in re.finditer(r"\s+", text[start:end])]
    stop, resume = min(gaps, key=lambda gap: abs(gap[0] - middle), default=(middle, middle))
    return [(start, stop), (resume, end)]
