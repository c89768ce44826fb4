"""Cutting captions that are longer than a text tower can read, and saying so."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence


def truncate(rows: Sequence[Sequence[int]], limit: int, special: Collection[int]) -> tuple[list[list[int]], int]:
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


def warn_of_truncation(encoder: str, cut: int, total: int, limit: int) -> None:
    """The loud word on truncation; the caller sees to it that it is said once an encoder."""
    were = "was" if cut == 1 else "were"
    warnings.warn(
        f"{cut} of these {total} captions {were} longer than the {limit} tokens that {encoder} reads and lost the end "
        "of the text (the end token is kept); this is said once, the encoder's .truncated counts on.",
        UserWarning,
        stacklevel=4,
    )
