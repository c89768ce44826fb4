"""A scorer whose score matrix a test chooses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from boresight.embeddings import Embeddings


@dataclass(frozen=True)
class Prepared:
    rows: torch.Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice) -> Prepared:
        return Prepared(self.rows[rows])


class DotScorer:
    """Inner products; with the identity for images the text vectors are the columns of any score matrix."""

    device = torch.device("cpu")

    def require_same_encoder(self, source):
        """Any will do."""

    def prepare_images(self, images):
        return Prepared(images)

    def prepare_texts(self, texts):
        return Prepared(texts)

    def score_prepared(self, images, texts):
        return images.rows @ texts.rows.T


def with_scores(scores, owners, **more) -> Embeddings:
    """Embeddings whose inner products are `scores` (N, M)."""
    scores = torch.as_tensor(np.asarray(scores), dtype=torch.float32)
    return Embeddings.from_arrays(torch.eye(len(scores)), scores.T.contiguous(), owners, **more)
