"""A transformer tower as plain arithmetic over its weights, so that it can be cut at any layer.

Nothing here calls, hooks or changes the model that the weights belong to: they are read, detached, in float32.
Hidden states are numbered as transformers' `hidden_states` are: 0 is what enters the first block, n what leaves the
last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.errors import InputError

Pooling = Literal["cls", "eos", "last", "mean", "map"]
Modality = Literal["image", "text"]


@dataclass(frozen=True)
class Linear:
    """weight (out, in), bias (out,) or None."""

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class Norm:
    """Layer normalisation over the last dimension."""

    weight: Tensor
    bias: Tensor | None
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class Mlp:
    """down(activation(slope * up(x)) / slope), multiplied where x is narrow and not where it is wide."""

    up: Linear
    activation: Callable[[Tensor], Tensor]
    down: Linear
    slope: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        if self.slope == 1:
            return self.down(self.activation(self.up(x)))
        inner = F.linear(self.slope * x, self.up.weight, None if self.up.bias is None else self.slope * self.up.bias)
        out = F.linear(self.activation(inner), self.down.weight) / self.slope
        return out if self.down.bias is None else out + self.down.bias


@dataclass(frozen=True)
class Attention:
    """Multi-head attention with `heads` heads of e dimensions; weights (heads * e, D) and, of `out`, (D, heads * e)."""

    heads: int
    query: Linear
    key: Linear
    value: Linear
    out: Linear

    def __call__(self, x: Tensor, bias: Tensor | None, maps: list[Tensor] | None = None) -> Tensor:
        """(..., N, D) -> (..., N, D); bias is added to the logits (..., heads, N, N), which join `maps` as weights."""
        query, key, value = (self._split(part(x)) for part in (self.query, self.key, self.value))
        if maps is None:
            attended = self._fused(query, key, value, bias)
        else:
            maps.append(self._weights(query @ key.transpose(-1, -2), bias))
            attended = maps[-1] @ value
        return self.out(attended.transpose(-2, -3).flatten(-2))

    def of_row(self, asked: Tensor, x: Tensor, bias: Tensor | None, maps: list[Tensor] | None = None) -> Tensor:
        """What one row `asked` (..., D) attends to among x (..., N, D) -> (..., D); bias: (..., heads or 1, N).

        Keys and values are never formed: the query goes through the key's weights and the sum of rows through the
        value's. That is O(heads N D + D^2) where the plain way is O(N D^2). A bias of the key shifts all logits alike.
        """
        query = self.query(asked).unflatten(-1, (self.heads, -1))
        through_key = torch.einsum("...he,hed->...hd", query, self._by_head(self.key))
        # What joins `maps` must lie on the way to the output, or there is no gradient with respect to it.
        weights = self._weights(through_key @ x.transpose(-1, -2), bias).unsqueeze(-2)
        if maps is not None:
            maps.append(weights)
        gathered = torch.einsum("...hd,hed->...he", weights.squeeze(-2) @ x, self._by_head(self.value))
        if self.value.bias is not None:
            # Weights sum to 1, but their gradient is that of the plain way only if they also weigh the bias.
            gathered = gathered + weights.sum(-1) * self.value.bias.unflatten(0, (self.heads, -1))
        return self.out(gathered.flatten(-2))

    def _fused(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        if bias is not None:
            bias = bias.expand(*query.shape[:-3], 1, -1, -1).flatten(0, -4)
        flat = [part.flatten(0, -4) for part in (query, key, value)]
        return F.scaled_dot_product_attention(flat[0], flat[1], flat[2], bias).unflatten(0, query.shape[:-3])

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)

    def _by_head(self, part: Linear) -> Tensor:
        return part.weight.unflatten(0, (self.heads, -1))

    def _weights(self, logits: Tensor, bias: Tensor | None) -> Tensor:
        logits = logits * (self.query.weight.shape[0] // self.heads) ** -0.5
        return torch.softmax(logits if bias is None else logits + bias, dim=-1)


@dataclass(frozen=True)
class Block:
    """One layer; norms stand before attention and MLP, or after them as in BERT."""

    norm1: Norm
    attention: Attention
    norm2: Norm
    mlp: Mlp
    norm_first: bool = True

    def __call__(self, x: Tensor, bias: Tensor | None, maps: list[Tensor] | None = None) -> Tensor:
        return self.finish(x, self.attention(self.norm1(x) if self.norm_first else x, bias, maps))

    def of_row(self, x: Tensor, row: Tensor, bias: Tensor | None, maps: list[Tensor] | None = None) -> Tensor:
        """(..., B, D): the row `row` (B,) of what `__call__` gives for x (..., B, N, D), without the other rows."""
        inner = self.norm1(x) if self.norm_first else x
        return self.finish(pick(x, row), self.attention.of_row(pick(inner, row), inner, bias, maps))

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """What becomes of hidden states x (..., D) once attention has given `attended` for them."""
        if self.norm_first:
            x = x + attended
            return x + self.mlp(self.norm2(x))
        x = self.norm1(x + attended)
        return self.norm2(x + self.mlp(x))


@dataclass(frozen=True)
class Probe:
    """SigLIP's attention pooling: a learnt query (D,) attends to all tokens, and an MLP follows."""

    query: Tensor
    attention: Attention
    norm: Callable[[Tensor], Tensor]
    mlp: Mlp

    def __call__(self, x: Tensor, bias: Tensor | None, maps: list[Tensor] | None = None) -> Tensor:
        """(..., N, D) -> (..., D)."""
        asked = self.query.expand(*x.shape[:-2], -1)
        pooled = self.attention.of_row(asked, x, bias, maps)
        return pooled + self.mlp(self.norm(pooled))


@dataclass(frozen=True)
class Hidden:
    """The hidden states of B inputs between two layers, and what the layers above need to know.

    Attributes:
        states: (..., B, N, D) float32; leading dimensions are samples of the same inputs.
        layer: how many blocks they have been through.
        keep: (B, N) bool, tokens that may be attended to; None where all may. A text tower that reads its caption
            off one token and looks only backwards keeps nothing behind that token.
        row: (B,) int64, the token that is read; None where all are pooled.
        inputs: what they were made from.
        grids: for images, rows and columns of the patches of each.
    """

    states: Tensor
    layer: int
    keep: Tensor | None
    row: Tensor | None
    inputs: Mapping[str, Tensor]
    grids: tuple[tuple[int, int], ...] | None = None

    def __len__(self) -> int:
        return self.states.shape[-3]

    def with_states(self, states: Tensor) -> Hidden:
        return replace(self, states=states)

    def select(self, rows: Tensor) -> Hidden:
        """Some inputs (B',), repeated as often as they are named."""
        grids = None if self.grids is None else tuple(self.grids[row] for row in rows.tolist())
        keep, row = (None if part is None else part[rows] for part in (self.keep, self.row))
        inputs = {name: value[rows] for name, value in self.inputs.items()}
        return Hidden(self.states[..., rows, :, :], self.layer, keep, row, inputs, grids)


@dataclass(frozen=True)
class Tower:
    """One side of a dual encoder.

    Attributes:
        modality: what it reads.
        start: inputs -> the hidden states of layer 0.
        blocks: the n layers.
        norm: over the last hidden states; None where there is none.
        pooling: 'cls' (first token), 'eos' (end token), 'last' (last position), 'mean' (of the patches) or 'map'
            (attention pooling).
        head: pooled (..., D) -> embedding (..., d), not normalised.
        prefix: tokens that stand before the patches.
        causal: whether a token sees only those before it.
        probe: of 'map'.
    """

    modality: Modality
    start: Callable[[Mapping[str, Tensor]], Hidden]
    blocks: tuple[Block, ...]
    norm: Norm | None
    pooling: Pooling
    head: Callable[[Tensor], Tensor]
    prefix: int = 0
    causal: bool = False
    probe: Probe | None = None

    def resolve(self, layer: int) -> int:
        """`layer` in 0..n; negative ones count from the end, -1 being n. Raises InputError for a layer not there."""
        if not self.blocks:
            return 0
        found = layer if layer >= 0 else len(self.blocks) + 1 + layer
        if not 0 <= found <= len(self.blocks):
            raise InputError(
                f"The {self.modality} tower has {len(self.blocks)} layers and no hidden states {layer}; "
                f"choose from 0 to {len(self.blocks)}, or from -1 (the last) down to -{len(self.blocks) + 1}."
            )
        return found

    def lower(self, inputs: Mapping[str, Tensor], layer: int) -> Hidden:
        """Hidden states after `layer` blocks. Raises InputError for a layer that is not there."""
        return self.climb(self.start(inputs), self.resolve(layer))

    def climb(self, hidden: Hidden, layer: int, maps: list[Tensor] | None = None) -> Hidden:
        """From one layer to a higher one; attention weights (..., B, heads, N, N) of each block passed join `maps`."""
        states, bias = hidden.states, self.bias(hidden)
        for block in self.blocks[hidden.layer : layer]:
            states = block(states, bias, maps)
        return replace(hidden, states=states, layer=layer)

    def upper(self, hidden: Hidden) -> Tensor:
        """(..., B, d): the embeddings of the inputs whose hidden states these are, not normalised.

        Of the last block only the row that is read is computed.
        """
        if self.pooling in ("map", "mean") or hidden.layer == len(self.blocks):
            return self.pool(self.climb(hidden, len(self.blocks)))
        below, bias = self.climb(hidden, len(self.blocks) - 1), self.bias(hidden)
        assert below.row is not None
        if bias is not None:
            seen = bias.squeeze(1).expand(-1, below.states.shape[-2], -1)
            bias = pick(seen, below.row)[:, None, :]
        row = self.blocks[-1].of_row(below.states, below.row, bias)
        return self.head(row if self.norm is None else self.norm(row))

    def pool(self, hidden: Hidden, maps: list[Tensor] | None = None) -> Tensor:
        """(..., B, d): these hidden states read as if they were the last. The weights of 'map' join `maps`."""
        states = hidden.states
        if self.pooling in ("map", "mean"):
            states = states if self.norm is None else self.norm(states)
            if self.probe is None:
                return self.head(states[..., self.prefix :, :].mean(-2))
            bias = None if hidden.keep is None else closed(hidden.keep)[:, None, :]
            return self.head(self.probe(states, bias, maps))
        assert hidden.row is not None
        row = pick(states, hidden.row)
        return self.head(row if self.norm is None else self.norm(row))

    def bias(self, hidden: Hidden) -> Tensor | None:
        """(B or 1, 1, N or 1, N), what attention adds to its logits; None for nothing."""
        bias = None if hidden.keep is None else closed(hidden.keep)[:, None, None, :]
        if not self.causal:
            return bias
        size = hidden.states.shape[-2]
        backwards = closed(torch.ones(size, size, dtype=torch.bool, device=hidden.states.device).tril())[None, None]
        return backwards if bias is None else torch.minimum(bias, backwards)


def pick(x: Tensor, row: Tensor) -> Tensor:
    """X (..., B or 1, N, D), row (B,) -> (..., B, D)."""
    batch = torch.arange(len(row), device=x.device) if x.shape[-3] == len(row) else torch.zeros_like(row)
    return x[..., batch, row, :]


def closed(open_to: Tensor) -> Tensor:
    """0 where True, else the lowest float32: not minus infinity, so that a row with nothing to see stays finite."""
    return torch.zeros(open_to.shape, device=open_to.device).masked_fill(~open_to, torch.finfo(torch.float32).min)


@dataclass(frozen=True)
class Towers:
    """Both sides of a dual encoder."""

    image: Tower
    text: Tower
