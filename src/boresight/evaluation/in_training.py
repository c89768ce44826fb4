"""Retrieval of a model that is still being trained, on pictures that are preprocessed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from boresight.collections import Collection
from boresight.embeddings import Embeddings
from boresight.encoders.hf import TransformersEncoder
from boresight.evaluation.retrieval import evaluate_retrieval

AT_ONCE = 64


def retrieval_watch(collection: Collection, encoder: TransformersEncoder) -> Callable[[nn.Module], dict[str, float]]:
    """What gives R@1 and R@5, in percent, of a model with `encoder`'s tokenizer and image processor on `collection`.

    Holds the preprocessed pictures in memory: 600 kB each at 224 pixels. Raises InputError when a picture cannot be
    read.
    """
    pictures = torch.stack([encoder.preprocess(collection.image(row)) for row in range(len(collection))])
    captions, owners = collection.texts, collection.owners

    def watch(model: Any) -> dict[str, float]:
        place = next(model.parameters()).device
        parts = (encoder.tokenizer, encoder.image_processor)
        now = TransformersEncoder(model, *parts, name="", fingerprint="", device=place, dtype=torch.float32)
        images = torch.cat([now.embed_images(part) for part in pictures.split(AT_ONCE)])
        texts = torch.cat(
            [now.embed_texts(captions[start : start + AT_ONCE]) for start in range(0, len(captions), AT_ONCE)]
        )
        found = evaluate_retrieval(Embeddings.from_arrays(images, texts, owners))
        sides = (("T2I", found.t2i), ("I2T", found.i2t))
        return {f"{label} {name}": side[name] for label, side in sides for name in ("R@1", "R@5")}

    return watch
