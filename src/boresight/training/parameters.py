"""Which weights learn, and how fast: locked towers, layer-wise learning rates, no decay of what has one dimension."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from boresight.errors import InputError

_TOWER = {"image": ("vision_model.", "visual_projection."), "text": ("text_model.", "text_projection.")}
_LAYER = re.compile(r"(?:^|\.)(text_model|vision_model)\.encoder\.layers\.(\d+)\.")


def lock(model: nn.Module, tower: str) -> None:
    """Stop a dual encoder's 'image' or 'text' tower from learning, its projection with it (locked tuning, LiT).

    Raises InputError for another name.
    """
    if tower not in _TOWER:
        raise InputError(f"There is no tower '{tower}'; lock 'image' or 'text'.")
    for name, value in model.named_parameters():
        if name.startswith(_TOWER[tower]):
            value.requires_grad_(False)


def parameter_groups(
    module: nn.Module, learning_rate: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Groups for an optimiser, of all parameters of `module` that learn.

    Matrices decay and vectors do not. With `layer_decay` r below 1, layer l (0 to n - 1) of a tower learns at r^(n - l)
    of the rate, its embeddings at r^(n + 1), and what stands above the layers at the full one. The rate itself is a
    schedule's: 'share' is what a group takes of it, 'lr' where it starts.
    """
    depth: dict[str, int] = {}
    for name, _ in module.named_parameters():
        if layer := _LAYER.search(name):
            depth[layer[1]] = max(depth.get(layer[1], 0), int(layer[2]) + 1)
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, value in module.named_parameters():
        if value.requires_grad:
            decay = weight_decay if value.ndim >= 2 else 0.0
            groups.setdefault((layer_decay ** _height(name, depth), decay), []).append(value)
    return [
        {"params": values, "weight_decay": decay, "share": share, "lr": learning_rate * share}
        for (share, decay), values in groups.items()
    ]


def rate_share(step: int, steps: int, warmup: int) -> float:
    """Factor in (0, 1] of the learning rate at `step`: linear warm-up, then half a cosine."""
    if step < warmup:
        return (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    return (1 + math.cos(math.pi * share)) / 2


def _height(name: str, depth: Mapping[str, int]) -> int:
    """How many layers stand between these weights and the top of their tower."""
    if layer := _LAYER.search(name):
        return depth[layer[1]] - int(layer[2])
    for tower, layers in depth.items():
        if f"{tower}.embeddings." in name or f"{tower}.pre_layrnorm." in name:
            return layers + 1
    return 0


@torch.no_grad()
def average_into(average: Mapping[str, Tensor], module: nn.Module, decay: float) -> None:
    """Average <- decay average + (1 - decay) weights, in place: an exponential moving average of the weights."""
    for name, value in module.named_parameters():
        if name in average:
            average[name].lerp_(value.detach().to(average[name]), 1 - decay)
