"""What retrieval, search and evaluation need of anything that scores images against captions."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from boresight.editing.scoring import LengthTerms
from boresight.editing.tokens import Tokens


@dataclass(frozen=True)
class PreparedImages:
    """The side of N images, which no caption enters: made once, kept, sliced.

    Attributes:
        base: (N, d) float32, the dense part of the edit over the image's length.
        indices: (N, k) int64, active latents; k is 0 where the form has none.
        values: (N, k) float32, activations over the image's length.
        terms: length terms, where the score divides by the length of each pair.
    """

    base: Tensor
    indices: Tensor
    values: Tensor
    terms: LengthTerms | None = None

    def __len__(self) -> int:
        return self.base.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> PreparedImages:
        terms = None if self.terms is None else self.terms[rows]
        return PreparedImages(self.base[rows], self.indices[rows], self.values[rows], terms)


@dataclass(frozen=True)
class PreparedTexts:
    """The side of T captions: O(T n_latents), so it is made for a block of captions at a time.

    The undivided score is [base ; values] . [query ; latent_query]; a length per caption is already divided in.

    Attributes:
        query: (T, d) float32.
        latent_query: (n_latents, T) float32, or None where the form has no latents.
        weights: (n_latents, T) float32, weights of the latents, where the score divides by the length of each pair.
        gate: (T, d) float32, gate over the dimensions, where the score divides by the length of each gated pair.
    """

    query: Tensor
    latent_query: Tensor | None = None
    weights: Tensor | None = None
    gate: Tensor | None = None

    def __len__(self) -> int:
        return self.query.shape[0]

    def __getitem__(self, columns: slice | Tensor) -> PreparedTexts:
        along_columns = {"latent_query", "weights"}
        parts = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                parts[field.name] = value[:, columns] if field.name in along_columns else value[columns]
        return replace(self, **parts)


class Scorer(Protocol):
    """Scores images against captions. `CaptionEditor` and `PlainScorer` are scorers."""

    def prepare_images(self, images: Tensor) -> PreparedImages:
        """images: (N, d). O(N (d + k + k^2)) memory."""
        ...

    def prepare_texts(self, texts: Tensor, tokens: Tokens | None = None) -> PreparedTexts:
        """texts: (T, d). O(T n_latents) memory: pass a block of captions."""
        ...

    def score_prepared(self, images: PreparedImages, texts: PreparedTexts) -> Tensor:
        """(N, T) float32."""
        ...


class PlainScorer:
    """The unedited score: the cosine of image and caption."""

    def prepare_images(self, images: Tensor) -> PreparedImages:
        rows = F.normalize(images.float(), dim=1)
        none = rows.new_empty(len(rows), 0)
        return PreparedImages(rows, none.long(), none)

    def prepare_texts(self, texts: Tensor, tokens: Tokens | None = None) -> PreparedTexts:
        return PreparedTexts(F.normalize(texts.float(), dim=1))

    def score_prepared(self, images: PreparedImages, texts: PreparedTexts) -> Tensor:
        return images.base @ texts.query.t()
