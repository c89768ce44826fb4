"""Retrieval of a model that is still being trained, on pictures that are preprocessed once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import torch
from torch import nn

from boresight.data import Collection
from boresight.embeddings import Embeddings
from boresight.embeddings.batches import caption_batches, pixels_ahead
from boresight.encoders.hf import TransformersEncoder
from boresight.errors import InputError
from boresight.evaluation.retrieval import DIRECTIONS, evaluate_retrieval
from boresight.progress import progress, say
from boresight.seeds import generator

AT_ONCE = 64


def retrieval_watch(
    collection: Collection, encoder: TransformersEncoder, *, most: int = 5000, workers: int = 2, seed: int = 0
) -> Callable[[nn.Module], dict[str, float]]:
    """What gives R@1 and R@5, in percent, of a model with `encoder`'s tokenizer and image processor on `collection`.

    Of more than `most` pictures so many are drawn; those that cannot be read are named and left out. `workers`
    threads, at least one, read them. Holds the preprocessed pictures in memory: 600 kB each at 224 pixels. The model
    computes where it stands. Raises InputError when no picture can be read.
    """
    if len(collection) > most:
        say(f"Retrieval as training goes on: {most:,} of the {len(collection):,} pictures, drawn by seed {seed}.")
        drawn = torch.randperm(len(collection), generator=generator(seed, "retrieval watch"))[:most]
        collection = collection.select(drawn.sort().values)

    rows, pictures, ids = list[int](), list[torch.Tensor](), collection.ids
    reading = pixels_ahead(
        encoder,
        collection.image,
        range(len(collection)),
        workers=max(workers, 1),
        depth=2 * AT_ONCE,
        name_of=lambda row: ids[row],
    )
    with closing(reading) as pictures_read:
        shown = progress(
            pictures_read, total=len(collection), what="reading what is measured", unit="picture", delay=2.0
        )
        for row, one in enumerate(shown):
            if isinstance(one, InputError):
                say(f"Left out of retrieval as training goes on: {one}")
            else:
                pictures.append(one)
                rows.append(row)
    if not rows:
        raise InputError(f"No picture of {collection.name or 'the validation split'} can be read; name another split.")
    collection = collection.select(rows)
    captions, owners = collection.texts, collection.owners

    def watch(model: Any) -> dict[str, float]:
        device = next(model.parameters()).device
        parts = (encoder.tokenizer, encoder.image_processor)
        now = TransformersEncoder(
            model, *parts, name="the model in training", fingerprint="", device=device, dtype=torch.float32
        )
        starts = range(0, len(pictures), AT_ONCE)
        images = torch.cat([now.embed_images(pictures[start : start + AT_ONCE]) for start in starts])
        texts = torch.cat([part for _, part, _ in caption_batches(now, captions, batch_size=AT_ONCE)])
        scores = evaluate_retrieval(Embeddings.from_arrays(images, texts, owners))
        return {f"{direction} R@{k}": scores[f"{direction} R@{k}"] for direction in DIRECTIONS for k in (1, 5)}

    return watch
