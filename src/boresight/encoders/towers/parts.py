"""Pieces that the towers of all libraries are put together from: weights, and what turns inputs into hidden states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boresight.encoders.towers.layers import Attention, Linear, Mlp, Norm
from boresight.encoders.towers.tower import Hidden
from boresight.errors import InputError

WAY_OUT = "use a method that needs only its scores: 'occlusion', 'rise' or 'kernelshap'."


def image_start(
    projection: Any,
    positions: Tensor,
    first: Tensor | None = None,
    norm: Callable[[Tensor], Tensor] | None = None,
) -> Callable[[Mapping[str, Tensor]], Hidden]:
    """Pictures cut into patches by a convolution, a first token before them where there is one."""
    weight, bias = plain(projection.weight), None if projection.bias is None else plain(projection.bias)
    offsets = plain(positions)

    def start(inputs: Mapping[str, Tensor]) -> Hidden:
        pixels = inputs["pixel_values"].to(weight.device).float()
        patches = F.conv2d(pixels, weight, bias, stride=projection.stride)
        states = patches.flatten(2).transpose(1, 2)
        if first is not None:
            states = torch.cat([plain(first).expand(len(states), 1, -1), states], dim=1)
        if states.shape[1] != len(offsets):
            raise InputError(
                f"The pictures have {tuple(pixels.shape[-2:])} pixels, which make {states.shape[1]} tokens, and the "
                f"model reads {len(offsets)}; pass them through its own preprocessing."
            )
        states = states + offsets
        row = None if first is None else torch.zeros(len(states), dtype=torch.int64, device=states.device)
        grid = (patches.shape[2], patches.shape[3])
        return Hidden(states if norm is None else norm(states), 0, None, row, inputs, (grid,) * len(states))

    return start


def text_start(
    token_weight: Tensor, position_weight: Tensor, row_of: Callable[[Tensor], Tensor], *, causal: bool = False
) -> Callable[[Mapping[str, Tensor]], Hidden]:
    """Tokens with positions counted from the left. `causal`: nothing behind the row that is read can matter."""
    tokens, positions = plain(token_weight), plain(position_weight)

    def start(inputs: Mapping[str, Tensor]) -> Hidden:
        ids = checked_ids(inputs, tokens, len(positions))
        row, mask = row_of(ids), inputs.get("attention_mask")
        keep = None if mask is None else mask.to(ids.device).bool()
        if causal:
            behind = torch.arange(ids.shape[1], device=ids.device) > row[:, None]
            keep = ~behind if keep is None else keep & ~behind
        states = tokens[ids] + positions[: ids.shape[1]]
        return Hidden(states, 0, keep, row, inputs)

    return start


def checked_ids(inputs: Mapping[str, Tensor], tokens: Tensor, limit: int) -> Tensor:
    """The token ids (B, T). Raises InputError for captions too long, or ids that the model has no token for."""
    ids = inputs["input_ids"].to(tokens.device)
    if ids.shape[1] > limit:
        raise InputError(f"The captions have {ids.shape[1]} tokens and the model reads {limit}; cut them.")
    if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= len(tokens)):
        raise InputError(f"A caption has a token outside the model's {len(tokens)}; use the model's own tokenizer.")
    return ids


def highest(ids: Tensor) -> Tensor:
    """The position of the highest number: CLIP's end token."""
    return ids.argmax(1)


def first_of(number: int) -> Callable[[Tensor], Tensor]:
    """The first position of this number."""
    return lambda ids: (ids == number).int().argmax(1)


def first(ids: Tensor) -> Tensor:
    """The first position."""
    return torch.zeros_like(ids[:, 0])


def last(ids: Tensor) -> Tensor:
    """The last position, padding or not."""
    return torch.full_like(ids[:, 0], ids.shape[1] - 1)


def attention_of(part: Any) -> Attention:
    """Torch's own `nn.MultiheadAttention`, whose query, key and value lie in one weight."""
    weights, biases = plain(part.in_proj_weight).chunk(3), plain(part.in_proj_bias).chunk(3)
    query, key, value = (Linear(weight, bias) for weight, bias in zip(weights, biases, strict=True))
    return Attention(part.num_heads, query, key, value, linear(part.out_proj))


def mlp_of(up: Any, activation: Any, down: Linear) -> Mlp:
    """X sigmoid(1.702 x) becomes the fused silu, which takes half the passes back and forth."""
    if type(activation).__name__ in ("QuickGELUActivation", "QuickGELU"):
        return Mlp(linear(up), F.silu, down, slope=1.702)
    return Mlp(linear(up), activation, down)


def scaled(layer: Linear, scale: Any) -> Linear:
    """A linear layer with the layer scale behind it, if any, taken in."""
    if isinstance(scale, nn.Identity):
        return layer
    gamma = plain(scale.gamma)
    return Linear(layer.weight * gamma[:, None], None if layer.bias is None else layer.bias * gamma)


def then(*steps: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """One step after the other."""

    def run(x: Tensor) -> Tensor:
        for step in steps:
            x = step(x)
        return x

    return run


def same(x: Tensor) -> Tensor:
    """No step at all."""
    return x


def linear(layer: Any) -> Linear:
    """An `nn.Linear`."""
    return Linear(plain(layer.weight), None if layer.bias is None else plain(layer.bias))


def norm(layer: Any) -> Norm:
    """An `nn.LayerNorm`, or what has its parts."""
    return Norm(plain(layer.weight), None if layer.bias is None else plain(layer.bias), layer.eps)


def plain(weight: Tensor) -> Tensor:
    """A weight as a float32 tensor that asks for no gradient."""
    return weight.detach().float()
