"""The layers of a transformer tower as plain arithmetic over weights that are read, never changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.brief import Brief


@dataclass(frozen=True, repr=False)
class Linear(Brief):
    """weight (out, in), bias (out,) or None."""

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return F.linear(x, self.weight, self.bias)


@dataclass(frozen=True, repr=False)
class Norm(Brief):
    """Layer normalisation over the last dimension."""

    weight: Tensor
    bias: Tensor | None
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True, repr=False)
class Mlp(Brief):
    """down(activation(slope * up(x)) / slope), multiplied where x is narrow and not where it is wide."""

    up: Linear
    activation: Callable[[Tensor], Tensor]
    down: Linear
    slope: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        if self.slope == 1:
            return self.down(self.activation(self.up(x)))
        inner = F.linear(self.slope * x, self.up.weight, None if self.up.bias is None else self.slope * self.up.bias)
        out = F.linear(self.activation(inner), self.down.weight) / self.slope
        return out if self.down.bias is None else out + self.down.bias


@dataclass(frozen=True, repr=False)
class Attention(Brief):
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


@dataclass(frozen=True, repr=False)
class Block(Brief):
    """One layer; norms stand before attention and MLP, or after them as in BERT."""

    norm1: Norm
    attention: Attention
    norm2: Norm
    mlp: Mlp
    norm_first: bool = True

    def __call__(self, x: Tensor, bias: Tensor | None, maps: list[Tensor] | None = None) -> Tensor:
        """(..., N, D) -> (..., N, D); bias and maps as of `Attention`."""
        return self.finish(x, self.attention(self.norm1(x) if self.norm_first else x, bias, maps))

    def of_row(self, x: Tensor, row: Tensor, bias: Tensor | None, maps: list[Tensor] | None = None) -> Tensor:
        """(..., B, D): the row `row` (B,) of what `__call__` gives for x (..., B, N, D), without the other rows."""
        inner = self.norm1(x) if self.norm_first else x
        return self.finish(pick_rows(x, row), self.attention.of_row(pick_rows(inner, row), inner, bias, maps))

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """What becomes of hidden states x (..., D) once attention has given `attended` for them."""
        if self.norm_first:
            x = x + attended
            return x + self.mlp(self.norm2(x))
        x = self.norm1(x + attended)
        return self.norm2(x + self.mlp(x))


@dataclass(frozen=True, repr=False)
class AttentionPool(Brief):
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


def pick_rows(x: Tensor, row: Tensor) -> Tensor:
    """X (..., B or 1, N, D), row (B,) -> (..., B, D)."""
    batch = torch.arange(len(row), device=x.device) if x.shape[-3] == len(row) else torch.zeros_like(row)
    return x[..., batch, row, :]
