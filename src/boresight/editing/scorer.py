"""What retrieval, search and evaluation need of anything that scores images against captions."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.brief import Brief
from boresight.editing.scoring import LengthTerms
from boresight.errors import require_at_least

if TYPE_CHECKING:
    from boresight.embeddings import Embeddings
    from boresight.encoders import Encoder


@dataclass(frozen=True, repr=False)
class PreparedImages(Brief):
    """The side of N images, which no caption enters: made once, kept, sliced.

    Attributes:
        base: (N, d) float32, the dense part of the edit over the image's length.
        indices: (N, k) int64, active latents; k is 0 where the form has none.
        values: (N, k) float32, activations over the image's length.
        terms: length terms, where the score divides by the length of each pair.
        bias: (N,) float32, what is taken off each image's scores (`boresight.editing.hubness`).
    """

    base: Tensor
    indices: Tensor
    values: Tensor
    terms: LengthTerms | None = None
    bias: Tensor | None = None

    def __len__(self) -> int:
        return self.base.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> PreparedImages:
        terms = None if self.terms is None else self.terms[rows]
        bias = None if self.bias is None else self.bias[rows]
        return PreparedImages(self.base[rows], self.indices[rows], self.values[rows], terms, bias)


@dataclass(frozen=True, repr=False)
class PreparedTexts(Brief):
    """The side of T captions: O(T n_latents), so it is made for a block of captions at a time.

    The undivided score is [base ; values ; bias ; 1] . [query ; latent_query ; -1 ; -bias].

    Attributes:
        query: (T, d) float32.
        latent_query: (n_latents, T) float32, or None where the form has no latents.
        weights: (n_latents, T) float32, weights of the latents, where the score divides by the length of each pair.
        gate: (T, d) float32, gate over the dimensions, where the score divides by the length of each gated pair.
        bias: (T,) float32, what is taken off each caption's scores (`boresight.editing.hubness`).
    """

    query: Tensor
    latent_query: Tensor | None = None
    weights: Tensor | None = None
    gate: Tensor | None = None
    bias: Tensor | None = None

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


def less_bias(scores: Tensor, of_images: Tensor | None, of_texts: Tensor | None) -> Tensor:
    """Scores (N, T) less the biases of their two sides, (N,) and (T,), where there are any."""
    if of_images is not None:
        scores = scores - of_images.unsqueeze(1)
    return scores if of_texts is None else scores - of_texts


Prepared = Any
"""One side as a scorer prepares it: whatever has a length and takes slices of rows, a tensor too."""


class PairScorer(Protocol):
    """Prepares each side once, then scores any images against any captions."""

    @property
    def device(self) -> torch.device:
        """Where it prepares and scores: rows are moved there before they are passed. The CPU, unless a class says."""
        return torch.device("cpu")

    def prepare_images(self, images: Tensor) -> Prepared:
        """images: (N, d)."""
        ...

    def prepare_texts(self, texts: Tensor) -> Prepared:
        """texts: (T, d), of a block of captions."""
        ...

    def score_prepared(self, images: Prepared, texts: Prepared) -> Tensor:
        """(N, T) float32."""
        ...


class Scorer(PairScorer, Protocol):
    """Scores images against captions. `CaptionEditor`, `CorrectedScorer` and `PlainScorer` are scorers.

    A class of your own takes this one as its base and has the three methods `prepare_images`, `prepare_texts` and
    `score_prepared`; the rest is there.

    Example:
        class Centred(Scorer):
            def __init__(self, embeddings):
                self.mean = embeddings.images.float().mean(0)

            def prepare_images(self, images):
                return F.normalize(images - self.mean, dim=1)

            def prepare_texts(self, texts):
                return F.normalize(texts, dim=1)

            def score_prepared(self, images, texts):
                return images @ texts.T


        evaluate_retrieval(embeddings.test, Centred(embeddings.train))
    """

    def require_same_encoder(self, source: Embeddings | Encoder) -> None:
        """Raises ArtefactError for embeddings, or an encoder, that it was not made for. Any, unless a class says."""
        return


class PlainScorer:
    """The unedited score: the cosine of image and caption. It suits every encoder.

    Relations: `CaptionEditor` scores an image by what the caption keeps of it; `ways` sets the two side by side.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)

    def __repr__(self) -> str:
        return f"PlainScorer({str(self.device)!r})"

    def require_same_encoder(self, source: Embeddings | Encoder) -> None:
        """Any embeddings will do."""

    def prepare_images(self, images: Tensor) -> PreparedImages:
        """Unit images, without codes. images: (N, d)."""
        rows = F.normalize(images.to(self.device).float(), dim=1)
        none = rows.new_empty(len(rows), 0)
        return PreparedImages(rows, none.long(), none)

    def prepare_texts(self, texts: Tensor) -> PreparedTexts:
        """Unit captions. texts: (T, d)."""
        return PreparedTexts(F.normalize(texts.to(self.device).float(), dim=1))

    def score_prepared(self, images: PreparedImages, texts: PreparedTexts) -> Tensor:
        """(N, T) cosines."""
        return images.base @ texts.query.t()


def check_batches(encoder: Encoder, editor: Scorer | None, batch_size: int) -> None:
    """Raises InputError for a batch size below 1, ArtefactError for an editor of another encoder or width."""
    require_at_least("batch_size", batch_size, 1)
    if editor is not None:
        editor.require_same_encoder(encoder)


def ways(editor: Scorer | None, device: str | torch.device = "cpu") -> dict[str, Scorer]:
    """The plain cosine (on `device`) and, where there is an editor, the editor beside it, by the names of tables.

    Example:
        for name, scorer in ways(editor).items():
            print(name, evaluate_retrieval(embeddings, scorer))
    """
    plain: dict[str, Scorer] = {"plain": PlainScorer(device)}
    return plain if editor is None else {**plain, "edited": editor}
