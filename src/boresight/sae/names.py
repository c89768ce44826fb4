"""Names of latents, from what captions say of the images that activate them, or from a vocabulary."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn.functional import normalize

from boresight.brief import Brief
from boresight.embeddings.embeddings import Embeddings
from boresight.errors import ArtefactError, InputError
from boresight.sae.autoencoder import SparseAutoencoder
from boresight.sae.model import SaeModel
from boresight.sae.rows import Rows, as_rows
from boresight.sae.vocabulary import terms_by_image
from boresight.storage import as_said, load_artefact, save_artefact

Source = Literal["captions", "vocabulary"]
SHOWN = 8  # strongest images of each latent that are kept as examples
HEARD = 50_000  # images whose captions name latents, evenly spread over the rows where there are more
LEAST_IMAGES, MOST_IMAGES = 3, 0.5  # that say a word, a number and a share; a word that most say tells nothing
CHANCE = 3.5  # standard errors to which chance lifts the best correlation among 2,000 words
BLOCK = 16384  # images coded at once
_PAIRS = 2**22  # of latent and word at once


@dataclass(frozen=True, repr=False)
class LatentNames(Brief):
    """What each of n latents seems to stand for, and how sure that is.

    Attributes:
        names: n words or word pairs, lower case; '' for a latent that is dead or that nothing names surely. Of several
            latents with one name the surest keeps it; the others get their next sure word too, 'red, kite', or where
            that does not tell them apart a number, 'red (2)'.
        source: 'captions' or 'vocabulary', what named them.
        certainty: (n,) float32, how sure each name is, 0 where there is none. From captions: of the latent's activation
            over all images, the share on images whose captions say the name, corrected for chance, (P - b) / (1 - b)
            with b the share of images that say it. 1: wherever the latent is active the name is said; 0: no more often
            than anywhere. From a vocabulary: the cosine of direction and word.
        activity: (n,) float32, mean activation over the images; zeros where none were given.
        examples: (n, 8) int64, rows of the images that activate the latent most, strongest first, -1 where fewer do.
        activations: (n, 8) float32, how strongly.
        ids: the image ids that the rows of `examples` belong to, or empty where the images came without.
        sae_fingerprint: of the autoencoder whose latents these are.
    """

    names: Sequence[str]
    source: Source
    certainty: Tensor
    activity: Tensor
    examples: Tensor
    activations: Tensor
    ids: Sequence[str]
    sae_fingerprint: str

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, latent: int) -> str:
        return self.names[latent]

    def __str__(self) -> str:
        """How many live latents have a name, and how sure the names are."""
        named = torch.tensor([bool(name) for name in self.names])
        live = int((self.examples[:, 0] >= 0).sum()) or len(self)
        mean = float(self.certainty[named].mean()) if named.any() else 0.0
        share = f"{int(named.sum())} of {live} live latents have a name ({int(named.sum()) / max(1, live):.0%})"
        return f"{share}, mean certainty {mean:.2f}"

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


_FIELDS = ("names", "source", "ids", "sae_fingerprint")


def name_latents(
    sae: SparseAutoencoder,
    *,
    vocabulary: Sequence[str] | None = None,
    vocabulary_embeddings: Tensor | None = None,
    embeddings: Embeddings | None = None,
    least_certainty: float = 0.3,
) -> LatentNames:
    """A name for each latent that one fits: from captions where there are some, from a vocabulary's vectors if not.

    - 'captions': the word that the captions of the images say just where the latent is active: of those that are sure
      enough, the one with the largest product of certainty and correlation (of activation and whether it is said).
      Certainty alone would take the most general word, correlation alone one that most of the images never say.
      Words that fewer than 3 images say, or more than half, name nothing.
    - 'vocabulary': the word whose embedding points most along the latent's direction. Word embeddings lie in a cone
      of their own (the modality gap), so their mean is taken off first; a direction is a difference of images and
      needs no centring (the naming rule of Rao et al. 2024, arXiv 2407.14499, with the centring of Bhalla et al.
      2024, arXiv 2402.10376). Nothing checks it against images, so weak encoders give nonsense with high cosines.

    Args:
        vocabulary: V words or phrases that may be names; left out, captions choose among the words of their own.
        vocabulary_embeddings: (V, d), the words through the text encoder of the same space; where there are captions
            they are not used.
        embeddings: to find the strongest images, and what their captions say where they have some. A latent active in
            no image is dead and stays without a name.
        least_certainty: below it a latent stays without a name; see `LatentNames.certainty`.

    Example:
        names = name_latents(sae, embeddings=embeddings.train)
        names[17], names.certainty[17]  # the word for latent 17, and how sure it is

    Raises:
        InputError: neither source can be used, or shapes do not fit.
        ArtefactError: `embeddings` are of another encoder than the autoencoder's.
    """
    said = embeddings is not None and bool(embeddings.captions)
    if vocabulary_embeddings is None and not said:
        raise InputError("Nothing to name latents from; pass vocabulary_embeddings, or embeddings with captions.")
    if embeddings is not None:
        sae.require_same_encoder(embeddings)
    vectors = _check_vocabulary(sae, vocabulary, vocabulary_embeddings)
    n = sae.n_latents
    rows, strength, activity = torch.full((n, SHOWN), -1), torch.zeros(n, SHOWN), np.zeros(n)
    alive, terms = np.ones(n, dtype=bool), list(vocabulary or ())
    word, sure = _name_by_words(sae.directions.detach().cpu(), vectors)
    second = [""] * n
    if embeddings is not None:
        rows, strength = strongest_images(sae, as_rows(embeddings))
        alive = rows[:, 0].numpy() >= 0
        every = -(-len(embeddings) // HEARD)
        heard = embeddings if every <= 1 else embeddings.select(range(0, len(embeddings), every))
        codes = _codes(sae, as_rows(heard))
        activity = codes.sum(1) / max(1, len(heard))
        if said:
            spoken = terms_by_image(heard.captions or (), heard.owners.tolist(), len(heard), vocabulary)
            told, terms = _candidates(*spoken)
            word, sure, second = _name_by_captions(codes, told, terms, least_certainty)
    named = alive & (word >= 0) & (sure >= least_certainty)
    certainty = np.where(named, sure, 0.0)
    names = [terms[word[latent]] if named[latent] else "" for latent in range(n)]
    return LatentNames(
        names=_told_apart(names, second, certainty),
        source="captions" if said else "vocabulary",
        certainty=torch.from_numpy(certainty).float(),
        activity=torch.from_numpy(activity).float(),
        examples=rows,
        activations=strength,
        ids=list(embeddings.ids) if embeddings is not None else [],
        sae_fingerprint=sae.fingerprint,
    )


def _check_vocabulary(sae: SparseAutoencoder, vocabulary: Sequence[str] | None, embedded: Tensor | None) -> Tensor:
    """The words' vectors (V, d), less their mean."""
    count = len(vocabulary or ())
    if embedded is not None and (not count or embedded.shape != (count, sae.width)):
        raise InputError(
            f"vocabulary_embeddings has shape {tuple(embedded.shape)}; the vocabulary of {count} words and the "
            f"autoencoder's width need ({count}, {sae.width})."
        )
    repeated = [word for word, count in Counter(vocabulary or ()).items() if count > 1]
    if repeated:
        raise InputError(f"The word '{repeated[0]}' stands in the vocabulary more than once; give each word once.")
    words = torch.zeros(1, sae.width) if embedded is None else embedded.detach().cpu().float()
    return words - words.mean(0)


def strongest_images(sae: SaeModel, images: Rows, count: int = SHOWN, block: int = BLOCK) -> tuple[Tensor, Tensor]:
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


def _codes(sae: SaeModel, images: Rows) -> sparse.csr_array:
    """(n, N) activations, in blocks of images."""
    parts = [sparse.csr_array((0, sae.n_latents))]
    for start in range(0, len(images), BLOCK):
        codes = sae.encode(images[start : start + BLOCK])
        active = codes.values > 0
        entries = codes.values[active].double().numpy(), (active.nonzero()[:, 0].numpy(), codes.indices[active].numpy())
        parts.append(sparse.csr_array(entries, shape=(len(codes.values), sae.n_latents)))
    return sparse.vstack(parts, format="csr").T.tocsr()


def _candidates(spoken: sparse.csr_array, terms: Sequence[str]) -> tuple[sparse.csr_array, list[str]]:
    """The terms that can name something, pairs first, and their columns (N, V) of `terms_by_image`.

    Neither words that too few or most images say, nor pairs that say no more than one of their words does alone.
    """
    counts = dict(zip(terms, spoken.sum(0).tolist(), strict=True))

    def tells(term: str) -> bool:
        alone = [counts.get(word, 0) > counts[term] for word in term.split()]
        return LEAST_IMAGES <= counts[term] <= MOST_IMAGES * spoken.shape[0] and (all(alone) or not any(alone))

    column_of = {term: column for column, term in enumerate(terms)}
    kept = sorted(filter(tells, terms), key=lambda term: (-len(term.split()), term))
    return spoken[:, [column_of[term] for term in kept]], kept


def _name_by_captions(
    codes: sparse.csr_array, spoken: sparse.csr_array, terms: Sequence[str], least_certainty: float
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Of each latent the best word (n,), -1 for none, its certainty (n,), and the next that shares no word with it.

    codes: (n, N) activations. spoken: (N, V), see `terms_by_image`. Of equal words the earlier wins.
    """
    n, images = codes.shape
    total, spread = codes.sum(1), np.sqrt((codes.power(2).mean(1) - codes.mean(1) ** 2).clip(1e-24))
    said = spoken.sum(0) / max(1, images)
    word, certainty, second = np.full(n, -1), np.zeros(n), [""] * n
    block = max(1, _PAIRS // max(1, spoken.shape[1]))
    for start in range(0, n, block):
        together = (codes[start : start + block] @ spoken).tocoo()
        latents, words = together.coords[0] + start, together.coords[1]
        share, base = together.data / total[latents], said[words]
        sure = (share - base) / (1 - base)
        correlation = (share - base) * total[latents] / images / (spread[latents] * np.sqrt(base * (1 - base)))
        order = np.lexsort((words, -sure * correlation, latents))
        fits = (sure >= least_certainty) & (correlation * images**0.5 >= CHANCE)
        order = order[fits[order]]
        for latent, one, sureness in zip(latents[order].tolist(), words[order].tolist(), sure[order], strict=True):
            if word[latent] < 0:
                word[latent], certainty[latent] = one, sureness
            elif not second[latent] and not {*terms[word[latent]].split()} & {*terms[one].split()}:
                second[latent] = terms[one]
    return word, certainty, second


def _name_by_words(directions: Tensor, words: Tensor, block: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """Of each direction (n, d) the centred word (V, d) with the highest cosine, (n,), and that cosine, (n,)."""
    words = normalize(words, dim=1)
    best = [(normalize(part, dim=1) @ words.T).max(dim=1) for part in directions.split(block)]
    return torch.cat([part.indices for part in best]).numpy(), torch.cat([part.values for part in best]).numpy()


def _told_apart(names: Sequence[str], second: Sequence[str], certainty: np.ndarray) -> list[str]:
    """'red', 'red, kite', 'red (2)': of latents with one name the surest keeps it."""
    apart, taken = list(names), {""}
    for latent in np.argsort(-certainty, kind="stable").tolist():
        pair = f"{names[latent]}, {second[latent]}" if second[latent] else names[latent]
        numbered = (f"{names[latent]} ({number})" for number in count(2))
        if names[latent]:
            apart[latent] = next(name for name in chain([names[latent], pair], numbered) if name not in taken)
            taken.add(apart[latent])
    return apart
