"""ROAR+: does a model that is trained anew miss what a map says matters?

Hooker et al. 2019 (arXiv 1806.10758, section 3) remove what is most important from all inputs and train the model
again, so that it has seen such inputs and only what is missing can hurt it. For a dual encoder, M2IB (Wang et al. 2023,
arXiv 2312.17174, experiments, 'ROAR+') fine-tunes on pairs degraded so and reads the contrastive loss.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attribution_measures.faithfulness import ranks
from attribution_measures.withheld import with_patches
from boresight.attribution.localisation import Array, as_maps
from boresight.errors import InputError
from boresight.seeds import generator
from boresight.training.contrastive import clamp_scale
from shared_captions import infonce_of_shared


def remove_and_retrain(
    model: nn.Module,
    train: Mapping[str, Tensor],
    test: Mapping[str, Tensor],
    train_weights: Array,
    test_weights: Array,
    *,
    share: float = 0.5,
    steps: int = 100,
    batch_size: int = 64,
    learning_rate: float = 1e-4,
    seed: int = 0,
) -> tuple[float, float]:
    """Contrastive loss on degraded held-out pairs, in nats, before and after fine-tuning on degraded pairs.

    The heaviest `share` of the patches of every picture, by its own map, turn to the mean colour. The higher the loss
    after fine-tuning, the more the map took away of what matters. It is over all held-out pairs at once, so that only
    losses over the same pairs compare; equal captions are no rivals. A copy of the model is trained, with Adam and
    without dropout; the model itself is never touched.

    Args:
        model: a transformers `CLIPModel` or alike: get_image_features, get_text_features, logit_scale.
        train, test: `pixel_values` (N, C, H, W), normalised, `input_ids` (N, T) and, where the model reads one,
            `attention_mask` (N, T).
        train_weights, test_weights: (N, gh, gw), their maps.
        share: of the patches that go, in (0, 1), to the nearest patch.
        steps: of fine-tuning, on batches drawn without replacement.
        seed: of the batches and of the order among patches of equal weight; the same batches for all maps.

    Raises:
        InputError: maps that are not one a pair, fewer than two pairs, a share or a number that makes no sense, a loss
            that is not finite.
    """
    if not 0 < share < 1 or steps < 1 or batch_size < 2 or not learning_rate > 0:
        raise InputError(
            f"share={share}, steps={steps}, batch_size={batch_size}, learning_rate={learning_rate} cannot be; a share "
            "lies between 0 and 1, a step needs 2 pairs or more, and the rest is above 0."
        )
    fitting = _degraded(train, train_weights, share, seed, "train")
    held_out = _degraded(test, test_weights, share, seed, "test")
    working: Any = copy.deepcopy(model).float().eval().requires_grad_(True)
    before = _held_out_loss(working, held_out, batch_size)
    optimiser = torch.optim.Adam(working.parameters(), lr=learning_rate)
    count = len(fitting["input_ids"])
    for step in range(steps):
        rows = torch.randperm(count, generator=generator(seed, f"roar {step}"))[:batch_size]
        batch = {name: value[rows] for name, value in fitting.items()}
        loss = _loss(working, batch, *_embedded(working, batch))
        if not math.isfinite(float(loss.detach())):
            raise InputError(f"The loss is no longer finite at step {step} of fine-tuning; lower the learning rate.")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        clamp_scale(working.logit_scale)
    return before, _held_out_loss(working, held_out, batch_size)


def _degraded(pairs: Mapping[str, Tensor], weights: Array, share: float, seed: int, label: str) -> dict[str, Tensor]:
    maps = as_maps(weights, f"{label}_weights")
    if len(maps) != len(pairs["pixel_values"]) or len(maps) != len(pairs["input_ids"]) or len(maps) < 2:
        raise InputError(
            f"{label} has {len(pairs['pixel_values'])} images, {len(pairs['input_ids'])} captions and {len(maps)} "
            "maps; pass as many of each, 2 or more."
        )
    flat = maps.flatten(1)
    keep = ranks(flat, seed, f"roar {label} equal weights") >= round(share * flat.shape[1])
    return {**pairs, "pixel_values": with_patches(pairs["pixel_values"].float(), keep.view(maps.shape))}


def _embedded(model: Any, pairs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    device = model.logit_scale.device
    texts = {name: value.to(device) for name, value in pairs.items() if name != "pixel_values"}
    pixels = pairs["pixel_values"].to(device)
    image = model.get_image_features(pixel_values=pixels).pooler_output
    return F.normalize(image, dim=1), F.normalize(model.get_text_features(**texts).pooler_output, dim=1)


def _loss(model: Any, pairs: Mapping[str, Tensor], images: Tensor, texts: Tensor) -> Tensor:
    ids = pairs["input_ids"].to(images.device)
    equal = (ids[:, None] == ids).all(2)
    return infonce_of_shared(images, texts, model.logit_scale.reshape(()), equal)


def _held_out_loss(model: Any, pairs: Mapping[str, Tensor], batch_size: int) -> float:
    rows = torch.arange(len(pairs["input_ids"])).split(batch_size)
    with torch.no_grad():
        parts = [_embedded(model, {name: value[some] for name, value in pairs.items()}) for some in rows]
        images, texts = (torch.cat(side) for side in zip(*parts, strict=True))
        return float(_loss(model, pairs, images, texts))
