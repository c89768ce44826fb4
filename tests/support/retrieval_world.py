"""Captions at a distance from their images, for tests of retrieval."""

from __future__ import annotations

import numpy as np

from boresight.embeddings import Embeddings


def noisy(images: int, noise: float, seed: int = 0, captions: int = 2, width: int = 16) -> Embeddings:
    """Captions of one image each, at a distance from it."""
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(images, width)).astype(np.float32)
    owners = np.repeat(np.arange(images), captions)
    texts = rows[owners] + noise * draw.normal(size=(len(owners), width)).astype(np.float32)
    return Embeddings.from_arrays(
        rows, texts.astype(np.float32), owners, ids=[f"{seed}-{row}" for row in range(images)]
    )
