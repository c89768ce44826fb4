"""Names of latents, from a vocabulary through the text encoder and from the captions of the strongest images."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy import sparse
from scipy.special import rel_entr
from torch import Tensor
from torch.nn.functional import normalize

from boresight.embeddings.embeddings import Embeddings
from boresight.errors import ArtefactError, InputError
from boresight.sae.autoencoder import SparseAutoencoder
from boresight.sae.model import SaeModel
from boresight.sae.rows import Rows, as_rows
from boresight.sae.vocabulary import terms_by_image
from boresight.storage import as_said, load_artefact, save_artefact

Source = Literal["captions", "vocabulary"]
EVIDENCE = 32  # strongest images of a latent whose captions speak for it
SHOWN = 8  # of them kept as examples
BLOCK = 16384  # images coded at once


@dataclass(frozen=True)
class LatentNames:
    """What each of n latents seems to stand for, and how sure that is.

    Attributes:
        names: n words or word pairs, lower case; '' for a latent that is dead or that nothing names.
        sources: n of 'captions', 'vocabulary' or '' (no name).
        scores: (n,) float32; from captions, how surprisingly often the word is said, about a z-score; from the
            vocabulary, the cosine of direction and word. Compare scores of one source only.
        margins: (n,) float32, score less that of the runner-up; a small one says that the name is a toss-up.
        examples: (n, 8) int64, rows of the images that activate the latent most, strongest first, -1 where fewer do.
        activations: (n, 8) float32, how strongly.
        ids: the image ids that the rows of `examples` belong to, or empty where the images came without.
        sae_fingerprint: of the autoencoder whose latents these are.
    """

    names: Sequence[str]
    sources: Sequence[str]
    scores: Tensor
    margins: Tensor
    examples: Tensor
    activations: Tensor
    ids: Sequence[str]
    sae_fingerprint: str

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, latent: int) -> str:
        return self.names[latent]

    @property
    def fingerprint(self) -> str:
        """16 hex characters that depend on the names and on the autoencoder."""
        return hashlib.sha256("\n".join([self.sae_fingerprint, *self.names]).encode()).hexdigest()[:16]

    def require_same_autoencoder(self, sae: SparseAutoencoder) -> None:
        """Raises ArtefactError when these are the names of another autoencoder's latents."""
        if self.sae_fingerprint != sae.fingerprint:
            raise ArtefactError(
                f"These names are of the autoencoder {self.sae_fingerprint} and this one is {sae.fingerprint}; "
                "name its latents anew."
            )

    def save(self, folder: str | Path) -> None:
        """Write the folder. Raises ArtefactError when it cannot be written."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        save_artefact(folder, "latent-names", tensors, {name: getattr(self, name) for name in _FIELDS})

    @classmethod
    def load(cls, folder: str | Path) -> LatentNames:
        """Read a folder written by `save`. Raises ArtefactError when it is none, torn or altered."""
        tensors, manifest = load_artefact(folder, "latent-names")
        with as_said(folder, "make"):
            fields: dict[str, Any] = {**tensors, **{name: manifest[name] for name in _FIELDS}}
            return cls(**fields)


_FIELDS = ("names", "sources", "ids", "sae_fingerprint")


@dataclass(frozen=True)
class Named:
    """Best of V words for each of n latents: word (n,) int64 or -1, score (n,), margin (n,), float64 numpy."""

    word: np.ndarray
    score: np.ndarray
    margin: np.ndarray


def name_latents(
    sae: SparseAutoencoder,
    *,
    vocabulary: Sequence[str] | None = None,
    vocabulary_embeddings: Tensor | None = None,
    embeddings: Embeddings | None = None,
    least_score: float = 3.5,
) -> LatentNames:
    """A name for each latent, from either source or both; where both have one, that of the captions.

    - 'vocabulary': the word whose embedding points most along the latent's direction. Word embeddings lie in a cone
      of their own (the modality gap), so their mean is taken off first; a direction is a difference of images and
      needs no centring (the naming rule of Rao et al. 2024, arXiv 2407.14499, with the centring of Bhalla et al.
      2024, arXiv 2402.10376).
    - 'captions': the word most over-represented in the captions of the 32 images that activate the latent most, by
      the signed root of the log-likelihood ratio (Dunning 1993, "Accurate methods for the statistics of surprise and
      coincidence"), which needs no text encoder that knows the word.

    Args:
        vocabulary: V words or phrases, e.g. `vocabulary_from_captions(...)`. Also the candidates of the captions;
            left out, captions choose among the words of their own.
        vocabulary_embeddings: (V, d), the words through the text encoder of the same space.
        embeddings: to find the strongest images, and what their captions say where they have some. A latent active in
            no image is dead and stays without a name.
        least_score: score below which captions name nothing; chance lifts the best of 2,000 words to about 3.5.

    Example:
        names = name_latents(sae, embeddings=embeddings.train)
        names[17], names.scores[17]  # the word for latent 17, and how sure it is

    Raises:
        InputError: neither source can be used, or shapes do not fit.
        ArtefactError: `embeddings` are of another encoder than the autoencoder's.
    """
    captions = None if embeddings is None else embeddings.captions
    if vocabulary_embeddings is None and not captions:
        raise InputError("Nothing to name latents from; pass vocabulary_embeddings, or embeddings with captions.")
    if embeddings is not None:
        sae.require_same_encoder(embeddings)
    _check_vocabulary(sae, vocabulary, vocabulary_embeddings)
    n = sae.n_latents
    rows = torch.full((n, EVIDENCE), -1)
    strength = torch.zeros(n, EVIDENCE)
    by_source: dict[Source, tuple[Sequence[str], Named]] = {}
    if embeddings is not None:
        rows, strength = strongest_images(sae, as_rows(embeddings))
    if vocabulary is not None and vocabulary_embeddings is not None:
        words = vocabulary_embeddings.detach().cpu().float()
        by_source["vocabulary"] = vocabulary, _name_by_words(sae.directions.detach().cpu(), words - words.mean(0))
    if embeddings is not None and captions:
        spoken, terms = terms_by_image(captions, embeddings.owners.tolist(), len(embeddings), vocabulary)
        by_source["captions"] = terms, _name_by_captions(rows, spoken, least_score)

    alive = rows[:, 0].numpy() >= 0 if embeddings is not None else np.ones(n, dtype=bool)
    names, sources = [""] * n, [""] * n
    scores, margins = torch.zeros(n), torch.zeros(n)
    for source, (candidates, best) in by_source.items():  # captions last, over the vocabulary
        named = np.flatnonzero(alive & (best.word >= 0))
        for latent in named.tolist():
            names[latent], sources[latent] = candidates[best.word[latent]], source
        scores[named], margins[named] = (torch.from_numpy(part[named]).float() for part in (best.score, best.margin))
    return LatentNames(
        names=names,
        sources=sources,
        scores=scores,
        margins=margins,
        examples=rows[:, :SHOWN].contiguous(),
        activations=strength[:, :SHOWN].contiguous(),
        ids=list(embeddings.ids) if embeddings is not None else [],
        sae_fingerprint=sae.fingerprint,
    )


def _check_vocabulary(sae: SparseAutoencoder, vocabulary: Sequence[str] | None, embedded: Tensor | None) -> None:
    count = len(vocabulary or ())
    if embedded is not None and (not count or embedded.shape != (count, sae.width)):
        raise InputError(
            f"vocabulary_embeddings has shape {tuple(embedded.shape)}; the vocabulary of {count} words and the "
            f"autoencoder's width need ({count}, {sae.width})."
        )
    repeated = [word for word, count in Counter(vocabulary or ()).items() if count > 1]
    if repeated:
        raise InputError(f"The word '{repeated[0]}' stands in the vocabulary more than once; give each word once.")


def strongest_images(sae: SaeModel, images: Rows, count: int = EVIDENCE, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """Rows (n, count) of the images that activate each latent most, and how strongly (n, count).

    A row is -1 where fewer images do; of equal activations the earlier row leads. Holds one block of codes beside the
    result.
    """
    n = sae.n_latents
    rows = torch.full((n, count), -1)
    strength = torch.zeros(n, count)
    for start in range(0, len(images), block):
        codes = sae.encode(images[start : start + block])
        active = codes.values > 0
        held = strength > 0
        latents = torch.cat([held.nonzero()[:, 0], codes.indices[active]])
        values = torch.cat([strength[held], codes.values[active]])
        owners = torch.cat([rows[held], start + active.nonzero()[:, 0]])
        order = values.argsort(descending=True, stable=True)
        order = order[latents[order].argsort(stable=True)]
        latents, values, owners = latents[order], values[order], owners[order]
        counts = torch.bincount(latents, minlength=n)
        rank = torch.arange(len(latents)) - (counts.cumsum(0) - counts)[latents]
        keep = rank < count
        rows[latents[keep], rank[keep]] = owners[keep]
        strength[latents[keep], rank[keep]] = values[keep]
    return rows, strength


def _name_by_words(directions: Tensor, words: Tensor, block: int = 1024) -> Named:
    """Highest cosine of each direction (n, d) with the centred words (V, d)."""
    words = normalize(words, dim=1)
    best, picks = [], []
    for part in directions.split(block):
        values, indices = (normalize(part, dim=1) @ words.T).topk(min(2, len(words)), dim=1)
        best.append(values if values.shape[1] == 2 else torch.nn.functional.pad(values, (0, 1)))
        picks.append(indices[:, 0])
    top = torch.cat(best).double().numpy()
    return Named(torch.cat(picks).numpy(), top[:, 0], top[:, 0] - top[:, 1])


def _name_by_captions(rows: Tensor, spoken: sparse.csr_array, least_score: float) -> Named:
    """Most surprising of each latent's words against those of all other images.

    rows: (n, T) strongest images, -1 for none. spoken: (N, V), see `terms_by_image`. A word must stand with at least
    two of a latent's images, or with its one image where it has only one.
    """
    n, images = len(rows), spoken.shape[0]
    active = rows.numpy() >= 0
    latent_of = np.nonzero(active)[0]
    chosen = sparse.csr_array((np.ones(len(latent_of)), (latent_of, rows.numpy()[active])), shape=(n, images))
    counts = (chosen @ spoken).tocoo()
    latent, word = counts.coords
    inside = counts.data
    outside = np.asarray(spoken.sum(0)).ravel()[word] - inside
    images_inside = active.sum(1)[latent]
    images_outside = images - images_inside
    score = _surprise(inside, images_inside, outside, images_outside)
    score[inside < np.minimum(2, images_inside)] = -np.inf
    named = _best_of_each(latent, word, score, n)
    named.word[named.score < least_score] = -1
    return named


def _surprise(inside: np.ndarray, of_inside: np.ndarray, outside: np.ndarray, of_outside: np.ndarray) -> np.ndarray:
    """Signed root of the log-likelihood ratio that `inside` of `of_inside` and `outside` of `of_outside` differ.

    About standard normal where they do not, positive where the first is larger, and trustworthy for rare words.
    """
    share = (inside + outside) / (of_inside + of_outside)
    ratio = np.zeros_like(share)
    for part, whole in ((inside, of_inside), (outside, of_outside)):
        ratio += rel_entr(part, whole * share) + rel_entr(whole - part, whole * (1 - share))
    more = inside * of_outside > outside * of_inside
    return np.where(more, 1.0, -1.0) * np.sqrt(2 * ratio.clip(0))


def _best_of_each(latent: np.ndarray, word: np.ndarray, score: np.ndarray, n: int) -> Named:
    """The best finite score of each latent among (latent, word, score) triples, and its lead over the second (or 0)."""
    named = Named(np.full(n, -1), np.zeros(n), np.zeros(n))
    finite = np.isfinite(score)
    latent, word, score = latent[finite], word[finite], score[finite]
    order = np.lexsort((word, -score, latent))
    latent, word, score = latent[order], word[order], score[order]
    first = np.flatnonzero(np.r_[True, latent[1:] != latent[:-1]]) if len(latent) else np.zeros(0, dtype=int)
    named.word[latent[first]] = word[first]
    named.score[latent[first]] = score[first]
    second = np.minimum(first + 1, len(latent) - 1)
    has_second = (second > first) & (latent[second] == latent[first])
    named.margin[latent[first]] = score[first] - np.where(has_second, score[second], 0.0)
    return named
