"""RoCOCO's two attacks (arXiv 2304.10727) as published: altered captions against images, altered pictures against
captions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from boresight.benchmarks.rococo import Rococo
from boresight.editing import Scorer
from boresight.embeddings import Embeddings
from boresight.embeddings.batches import LongText, embed_captions
from boresight.encoders.protocol import Encoder
from boresight.errors import InputError
from boresight.evaluation.attacks import evaluate_image_attack, evaluate_robustness

Figures = dict[str, dict[str, float]]
"""'plain', and 'edited' where there is an editor -> measure -> percent."""


def embed_altered(
    encoder: Encoder,
    rococo: Rococo,
    embeddings: Embeddings,
    *,
    long_text: LongText = "truncate",
    batch_size: int = 64,
) -> Tensor:
    """(S, d) float32 embeddings of the altered captions.

    One that reads like a true caption takes its embedding, so that the two are a tie whatever an encoder's rounding
    does. `long_text` is what `embeddings` were made with. Raises InputError unless they are of the set's own images
    and captions, in order, and for a batch size below 1.
    """
    _require_same(rococo, embeddings)
    true = {caption: row for row, caption in enumerate(rococo.collection.texts)}
    new = sorted({caption for caption in rococo.altered if caption not in true}, key=lambda caption: len(caption))
    place = {caption: row for row, caption in enumerate(new)}
    rows = embed_captions(encoder, new, long_text=long_text, batch_size=batch_size) if new else torch.empty(0)
    return torch.stack(
        [
            rows[place[caption]] if caption in place else embeddings.texts[true[caption]].float()
            for caption in rococo.altered
        ]
    )


def evaluate_rococo(rococo: Rococo, embeddings: Embeddings, altered: Tensor, editor: Scorer | None = None) -> Figures:
    """Image to caption with the altered captions in the gallery, plain and edited, by `evaluate_robustness`.

    The published figures are 'I2T R@1', 'I2T R@5', 'I2T R@10' and 'false_rate'; published code takes no notice of
    ties, of which there are next to none but the altered captions that were left as they were.

    Args:
        embeddings: of `rococo.collection`.
        altered: (S, d), from `embed_altered`.

    Raises InputError unless `embeddings` are of the set's own images and captions, and as `evaluate_robustness`.
    """
    _require_same(rococo, embeddings)
    return {
        name: evaluate_robustness(embeddings, altered, rococo.rows, scorer) for name, scorer in _scorers(editor).items()
    }


def evaluate_rococo_images(
    embeddings: Embeddings,
    altered: Sequence[Embeddings | Tensor],
    editor: Scorer | None = None,
) -> Figures:
    """Caption to image with the altered pictures in the gallery, plain and edited, by `evaluate_image_attack`.

    Args:
        embeddings: of the N originals and their captions.
        altered: for each seed the embeddings of the N altered pictures, in the same order; the figures are means over
            the seeds (published: 1, 10 and 100).

    Raises InputError for no seed, altered pictures of other images, and as `evaluate_image_attack`.
    """
    if isinstance(altered, (Tensor, Embeddings)) or not len(altered):
        raise InputError("altered is a list, the embeddings of one seed each; pass at least one.")
    for one in altered:
        if isinstance(one, Embeddings) and list(one.ids) != list(embeddings.ids):
            raise InputError(
                f"{one.name or 'The altered pictures'} and {embeddings.name or 'the originals'} are not of the same "
                "images in the same order; embed both from the same collection, and mend pictures that were skipped."
            )
        if len(one) != len(embeddings):
            raise InputError(f"There are {len(one)} altered pictures of {len(embeddings)} images; pass one of each.")
    images = [one.images if isinstance(one, Embeddings) else one for one in altered]
    figures: Figures = {}
    for name, scorer in _scorers(editor).items():
        runs = [evaluate_image_attack(embeddings, rows, range(len(embeddings)), scorer) for rows in images]
        figures[name] = {measure: sum(run[measure] for run in runs) / len(runs) for measure in runs[0]}
    return figures


def _scorers(editor: Scorer | None) -> dict[str, Scorer | None]:
    return {"plain": None} if editor is None else {"plain": None, "edited": editor}


def _require_same(rococo: Rococo, embeddings: Embeddings) -> None:
    collection = rococo.collection
    if list(embeddings.ids) != collection.ids or list(embeddings.captions or ()) != collection.texts:
        raise InputError(
            f"These embeddings are not of the images and captions of {collection.name}; embed its collection, with "
            "on_error='refuse' so that none is left out."
        )
