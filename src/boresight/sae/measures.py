"""How good a sparse autoencoder is: one number a question, each summed over the whole set."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.embeddings.embeddings import Embeddings
from boresight.recall import count_text_to_image
from boresight.sae.model import SaeModel
from boresight.sae.rows import as_rows


@dataclass(frozen=True)
class SaeMeasures:
    """What `measure_sae` found on N embeddings.

    Attributes:
        explained_variance: 1 - sum |x - x^|^2 / sum |x - mean|^2, the mean taken over the N embeddings feature by
            feature. 0 is what the constant mean explains.
        l0: mean active latents an embedding.
        dead_share: share of the latents active in none of the N embeddings.
        cosine: mean cosine of x and x^.
        retrieval_kept_r1, retrieval_kept_r10: see `retrieval_kept`; None where captions are not given.
    """

    explained_variance: float
    l0: float
    dead_share: float
    cosine: float
    retrieval_kept_r1: float | None = None
    retrieval_kept_r10: float | None = None

    def to_dict(self) -> dict[str, float]:
        """The measures that are known, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None and math.isfinite(value)}


def measure_sae(sae: SaeModel, images: Tensor | np.ndarray | Embeddings, *, block: int = 16384) -> SaeMeasures:
    """Measures on (N, d) embeddings, a block at a time, summed in float64; with captions, also the retrieval kept.

    Relations: `compare` tells what an autoencoder is worth for retrieval.
    """
    rows = as_rows(images, least=1)
    error = active = cosines = squares = 0.0
    total = torch.zeros(rows.width, dtype=torch.float64)
    seen = torch.zeros(sae.n_latents, dtype=torch.bool)
    # The shift leaves the variance as it is and spares it the cancellation of two large sums.
    shift = rows[:1].double()
    for start in range(0, len(rows), block):
        x = rows[start : start + block]
        codes = sae.encode(x)
        decoded = sae.decode(codes)
        error += float((x.double() - decoded.double()).square().sum())
        shifted = x.double() - shift
        total += shifted.sum(0)
        squares += float(shifted.square().sum())
        on = codes.values > 0
        active += int(on.sum())
        seen[codes.indices[on]] = True
        cosines += float(F.cosine_similarity(x, decoded, dim=1).double().sum())
    variance = squares - float(total.square().sum()) / len(rows)
    kept: dict[int, float | None] = {1: None, 10: None}
    if isinstance(images, Embeddings) and len(images.texts):
        kept |= retrieval_kept(sae, images)
    return SaeMeasures(
        explained_variance=1 - error / variance if variance > 0 else math.nan,
        l0=active / len(rows),
        dead_share=1 - float(seen.float().mean()),
        cosine=cosines / len(rows),
        retrieval_kept_r1=kept[1],
        retrieval_kept_r10=kept[10],
    )


def retrieval_kept(
    sae: SaeModel, embeddings: Embeddings, *, ks: tuple[int, ...] = (1, 10), at_most: int = 5000
) -> dict[int, float]:
    """Text-to-image R@k by cosine with reconstructed images over R@k with the images as they are, for each k.

    1.0 means that the reconstruction costs no recall; nan where the images themselves find nothing. On at most
    `at_most` images; of more, as many of those with captions, evenly spaced. Ties as in `evaluate_retrieval`.
    """
    if len(embeddings.owners) == 0:
        return dict.fromkeys(ks, math.nan)
    if len(embeddings) > at_most:
        captioned = torch.unique(embeddings.owners)
        spaced = torch.linspace(0, len(captioned) - 1, min(at_most, len(captioned))).long()
        embeddings = embeddings.select(captioned[spaced])
    images = embeddings.images.float()
    plain, decoded = (_text_to_image_recalls(x, embeddings, ks) for x in (images, sae.decode(sae.encode(images))))
    return {k: decoded[k] / plain[k] if plain[k] else math.nan for k in ks}


def _text_to_image_recalls(images: Tensor, embeddings: Embeddings, ks: tuple[int, ...]) -> dict[int, float]:
    unit = F.normalize(images.float(), dim=1)
    recalls = dict.fromkeys(ks, 0.0)
    for texts, owners in zip(embeddings.texts.split(1024), embeddings.owners.split(1024), strict=True):
        counts = count_text_to_image(unit @ F.normalize(texts.float(), dim=1).T, owners)
        for k in ks:
            recalls[k] += float(counts.recall(k).sum()) / len(embeddings.owners)
    return recalls
