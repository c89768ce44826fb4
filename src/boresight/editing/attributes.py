"""Attributes on demand: images edited by what a phrase names, "the colour of the background", and compared by that.

A caption tells a value of an attribute; a phrase that names the attribute raises the latents of no value. So it is
read as its values: texts t_1 ... t_V with shares p_v that sum to 1. With a_l(t) how much t raises the log-odds of
latent l, as the mask was taught it (`boresight.editing.presence`),

    c_vl = a_l(t_v) - sum_u p_u a_l(t_u)    how much more value v raises latent l than the values do together
    y_v  = sqrt(p_v) sum_l c_vl z_l         what the latents of an image say for value v
    x~   = sum_v y_v u_v                    with orthonormal u_v, as near to the values' directions in the image space
                                            as such can be, so that cosines of edits are cosines of y

A latent that all values raise alike, or none, has c = 0 and is dropped. Our own: of TEVI (arXiv 2606.07451) we know the
aim alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.brief import Brief
from boresight.editing.model import EditModel
from boresight.embeddings.embeddings import Embeddings
from boresight.errors import InputError, require_at_least
from boresight.sae.vocabulary import terms_by_image, vocabulary_from_captions, words_beside

VALUES = 64  # terms that a phrase is read as, at most
NAMED, SAID = 2.0, 6.0  # sharpness over standardised likeness: of a phrase that names values, of a text that is a value
EXCHANGE = 4  # power of the cosine of what stands beside two terms
_CAPTIONS = 16384
_TERMS = 256  # embedded at once
_ROWS = 4096


class TextEncoder(Protocol):
    """Whatever puts texts into a space of meanings: an `Encoder`, or a model of language alone."""

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(B, e), one row a text."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class Values(Brief):
    """What an attribute is read as.

    Attributes:
        texts: (V, d), in the editor's space.
        shares: (V,) float32, of each value; they sum to 1.
        names: V words, where they are known.
    """

    texts: Tensor
    shares: Tensor
    names: Sequence[str] = ()

    @classmethod
    def of(cls, texts: Tensor) -> Values:
        """Values of equal shares. Raises InputError for fewer than 2 texts, among which nothing differs."""
        if len(texts) < 2:
            raise InputError(f"{len(texts)} text tells no values apart; pass two or more, 'a red star', 'a blue star'.")
        return cls(texts, torch.full((len(texts),), 1 / len(texts)))


@dataclass(frozen=True, eq=False, repr=False)
class Words(Brief):
    """The words of training captions, so that an attribute can be named by a phrase.

    A word alone is no caption, and its embedding is a poor one; so it stands for the mean embedding of the captions
    that say it. A phrase is read as the terms that are near it in meaning, as are those that stand in captions where
    these may stand: 'red' and 'teal' have the same words beside them, so what names the one names the other.

    Attributes:
        terms: V words and word pairs.
        texts: (V, d) float32, unit, the mean embedding of the captions that say each.
        meanings: (V, e) float32, unit, the terms by themselves in the encoder's space.
        exchange: (V, V) float32, how well each term takes the place of each other; rows sum to 1.
        encoder: what meanings are compared in. The image encoder's text tower knows the words it was trained on; a
            model of language knows that red is a colour.
    """

    terms: Sequence[str]
    texts: Tensor
    meanings: Tensor
    exchange: Tensor
    encoder: TextEncoder

    @classmethod
    def of(cls, train: Embeddings, encoder: TextEncoder, *, size: int = 2000) -> Words:
        """The words that most captions of a training set say. Raises InputError for embeddings without captions.

        Example:
            editor.words = Words.of(embeddings.train, encoder)
            editor.similarity(images, others, by="the colour of the background")
        """
        require_at_least("size", size, 2)
        if train.captions is None:
            raise InputError("These embeddings do not keep their captions, so no words are known; embed them again.")
        terms = vocabulary_from_captions(train.captions, size=size)
        if len(terms) < 2:
            raise InputError(f"These captions have one word alone in common, '{terms[0]}'; pass more captions.")
        sums = torch.zeros(len(terms), train.width)
        for start in range(0, len(train.captions), _CAPTIONS):
            block = train.captions[start : start + _CAPTIONS]
            said, _ = terms_by_image(block, range(len(block)), len(block), terms)
            unit = F.normalize(train.texts[start : start + _CAPTIONS].float(), dim=1)
            sums += torch.from_numpy(said.T @ unit.numpy()).float()
        parts = [encoder.embed_texts(terms[start : start + _TERMS]) for start in range(0, len(terms), _TERMS)]
        meanings = F.normalize(torch.cat(parts).float(), dim=1)
        return cls(terms, F.normalize(sums, dim=1), meanings, _exchange(train.captions, terms), encoder)

    def values(self, by: str | Sequence[str]) -> Values:
        """A phrase as the terms that are nearest in meaning; of several texts each as one value.

        Raises InputError for a list of fewer than 2 texts.
        """
        if isinstance(by, str):
            shares, nearest = _shares(self._near([by]) @ self.exchange.t(), NAMED)[0].topk(min(VALUES, len(self.terms)))
            return Values(self.texts[nearest], shares / shares.sum(), [self.terms[row] for row in nearest.tolist()])
        return Values.of(F.normalize(_shares(self._near(list(by)), SAID) @ self.texts, dim=1))

    def _near(self, texts: Sequence[str]) -> Tensor:
        return F.normalize(self.encoder.embed_texts(texts).float(), dim=1) @ self.meanings.t()


def _shares(likeness: Tensor, sharpness: float) -> Tensor:
    """(B, V) shares of the terms; likeness (B, V) is standardised over them, so that no scale of an encoder counts."""
    standard = (likeness - likeness.mean(1, keepdim=True)) / likeness.std(1, keepdim=True).clamp_min(1e-6)
    return (sharpness * standard).softmax(1)


def _exchange(captions: Sequence[str], terms: Sequence[str]) -> Tensor:
    beside = words_beside(captions, terms)
    roots = (beside.multiply(1 / beside.sum(1).clip(1)[:, None])).sqrt()  # of shares: unit rows
    alike = torch.from_numpy((roots @ roots.T).toarray()).float() ** EXCHANGE
    return alike / alike.sum(1, keepdim=True)


@torch.no_grad()
def telling(editor: EditModel, values: Values) -> Tensor:
    """(n_latents, d): what each latent, where it is active, adds to an image edited by an attribute.

    Raises InputError where the values raise the same latents, and where the form has no latents.
    """
    shares, raised = values.shares.to(editor.device), editor.raised(values.texts)
    contrast = shares.sqrt().unsqueeze(1) * (raised - shares @ raised)
    if contrast.abs().max() < 1e-3:
        raise InputError("These texts raise the same latents, so they tell no values apart; pass others.")
    left, _, right = torch.linalg.svd((contrast @ editor.sae.directions).cpu().double(), full_matrices=False)
    return contrast.t() @ (left @ right).float().to(editor.device)


@torch.no_grad()
def edit_by(editor: EditModel, images: Tensor | np.ndarray, values: Values) -> Tensor:
    """(N, d) float32, images edited by an attribute; all zero where an image has no latent that tells it.

    images: (N, d). Raises InputError as `telling` does, and for NaN, infinity or rows of another width.
    """
    return added_up(editor, images, telling(editor, values))


@torch.no_grad()
def added_up(editor: EditModel, images: Tensor | np.ndarray, added: Tensor) -> Tensor:
    """(N, d) float32, `edit_by` of images (N, d) by what `telling` gave."""
    images = editor.checked(images, "the images")
    parts = [editor.sae.encode(rows.to(editor.device).float()) for rows in images.split(_ROWS)]
    edited = [F.embedding_bag(one.indices, added, per_sample_weights=one.values, mode="sum") for one in parts]
    return torch.cat([torch.empty(0, editor.width, device=editor.device), *edited])


@torch.no_grad()
def similarity(images: Tensor, others: Tensor) -> Tensor:
    """(N, M) float32 cosines on the CPU, in blocks of rows; 0 where a row is all zero. (N, d) and (M, d)."""
    out, others = torch.empty(len(images), len(others)), F.normalize(others, dim=1).t()
    for start in range(0, len(images), _ROWS):
        out[start : start + _ROWS] = (F.normalize(images[start : start + _ROWS], dim=1) @ others).cpu()
    return out
