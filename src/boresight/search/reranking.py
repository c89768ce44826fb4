"""The answers of any other store in the exact order of an editor's score, whichever form the editor has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.editing import PlainScorer, PreparedImages, Scorer
from boresight.embeddings.embeddings import check_rows
from boresight.encoders import Encoder
from boresight.errors import InputError, require_at_least
from boresight.indexing import as_tensor

_AT_ONCE = 16384  # images prepared at once


@torch.inference_mode()
def rerank(
    editor: Scorer | None,
    query: str | Sequence[str] | Tensor | np.ndarray,
    images: Tensor | np.ndarray | PreparedImages,
    *,
    ids: Sequence[Any] | None = None,
    encoder: Encoder | None = None,
    top_k: int | None = None,
) -> list[dict[str, Any]]:
    """Candidates in the order of the exact edited score, best first; equal ones stay in the order given.

    Every editor will do, also one whose score is divided by the length of each pair's edit, which no index holds.

    Args:
        editor: any scorer; None orders by the cosine.
        query: a sentence, or an embedding (d,); or several, (T, d), whose scores are averaged.
        images: (N, d) embeddings of the candidates, as the encoder made them, at any length; or what
            `editor.prepare_images` made of them, where the store keeps that: it saves reading their codes anew.
        ids: N of any kind; left out, the row numbers.
        encoder: for a query in words.
        top_k: how many to return; left out, all.

    Returns:
        One `{"id": ..., "score": ...}` a candidate.

    Raises:
        InputError: words without an encoder, another width, NaN, infinity or rows without direction, another number
            of ids than images.
        ArtefactError: an encoder that the editor was not made for.

    Example:
        hits = store.search(encoder.embed_texts(["a red kite"])[0], limit=1000)
        rerank(editor, "a red kite", hits.vectors, ids=hits.ids, encoder=encoder, top_k=10)
    """
    scorer: Scorer = PlainScorer() if editor is None else editor
    if top_k is not None:
        require_at_least("top_k", top_k, 1)
    texts = scorer.prepare_texts(_texts(scorer, query, encoder).to(scorer.device))
    rows: Any = images
    if not isinstance(images, PreparedImages):
        rows = as_tensor(images, "the images") if not isinstance(images, Tensor) else images
        if rows.ndim != 2:
            raise InputError(f"The images have shape {tuple(rows.shape)}; pass one row a candidate, (N, d).")
        check_rows(rows, "the images")
    if ids is not None and len(ids) != len(rows):
        raise InputError(f"There are {len(rows):,} images and {len(ids):,} ids; pass one id an image.")
    parts = [torch.empty(0)]
    for start in range(0, len(rows), _AT_ONCE):
        block = rows[start : start + _AT_ONCE]
        prepared = block if isinstance(images, PreparedImages) else scorer.prepare_images(block.to(scorer.device))
        parts.append(scorer.score_prepared(prepared, texts).mean(1).cpu())
    scores = torch.cat(parts)
    order = torch.argsort(scores, descending=True, stable=True)[:top_k].tolist()
    return [{"id": row if ids is None else ids[row], "score": float(scores[row])} for row in order]


def _texts(scorer: Scorer, query: Any, encoder: Encoder | None) -> Tensor:
    """(T, d), checked."""
    if isinstance(query, Tensor | np.ndarray):
        vectors = query if isinstance(query, Tensor) else as_tensor(query, "the query")
        vectors = vectors.unsqueeze(0) if vectors.ndim == 1 else vectors
    else:
        sentences = [query] if isinstance(query, str) else list(query)
        if encoder is None:
            raise InputError("The query is in words; pass the `encoder` that made the images, or an embedding of it.")
        scorer.require_same_encoder(encoder)
        if not sentences or not all(isinstance(one, str) and one.strip() for one in sentences):
            raise InputError("The query is empty or no text; pass a sentence, sentences, or embeddings (T, d).")
        vectors = encoder.embed_texts(sentences)
    if vectors.ndim != 2 or not len(vectors):
        raise InputError(f"The query has shape {tuple(vectors.shape)}; pass an embedding (d,) or several (T, d).")
    check_rows(vectors, "the query")
    return F.normalize(vectors.float(), dim=1)
