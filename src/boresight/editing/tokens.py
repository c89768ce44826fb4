"""Token features of captions: ragged rows, concatenated."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from boresight.embeddings import Embeddings

Tokens = tuple[Tensor, Tensor]
"""Token features of M captions: features (sum of lengths, d_token), concatenated, and lengths (M,) int64."""


def tokens_of(embeddings: Embeddings, captions: Tensor) -> Tokens | None:
    """Token features and lengths of some captions, or None where the embeddings have none."""
    features, offsets = embeddings.token_features, embeddings.token_offsets
    if features is None or offsets is None:
        return None
    lengths = (offsets[1:] - offsets[:-1])[captions]
    starts = torch.repeat_interleave(offsets[:-1][captions] - (lengths.cumsum(0) - lengths), lengths)
    return features[starts + torch.arange(int(lengths.sum()))].float(), lengths


def token_blocks(tokens: Tokens | None, n_texts: int, block: int) -> Iterator[tuple[int, Tokens | None]]:
    """(start, tokens of captions start to start + block - 1) over all captions."""
    for start in range(0, n_texts, block):
        if tokens is None:
            yield start, None
        else:
            features, lengths = tokens
            first, here = int(lengths[:start].sum()), lengths[start : start + block]
            yield start, (features[first : first + int(here.sum())], here)
