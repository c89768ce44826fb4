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

from boresight.brief import Brief
from boresight.encoders.towers.layers import AttentionPool, Block, Norm, pick_rows
from boresight.errors import InputError

Pooling = Literal["cls", "eos", "last", "mean", "map"]
Modality = Literal["image", "text"]


@dataclass(frozen=True, repr=False)
class Hidden(Brief):
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
        """Other states of the same inputs."""
        return replace(self, states=states)

    def select(self, rows: Tensor) -> Hidden:
        """Some inputs (B',), repeated as often as they are named."""
        grids = None if self.grids is None else tuple(self.grids[row] for row in rows.tolist())
        keep, row = (None if part is None else part[rows] for part in (self.keep, self.row))
        inputs = {name: value[rows] for name, value in self.inputs.items()}
        return Hidden(self.states[..., rows, :, :], self.layer, keep, row, inputs, grids)


@dataclass(frozen=True, repr=False)
class Tower(Brief):
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
    probe: AttentionPool | None = None

    def resolve(self, layer: int) -> int:
        """`layer` in 0..n; negative ones count from the end, -1 being n. Raises InputError for a layer not there."""
        if not self.blocks:
            return 0
        resolved = layer if layer >= 0 else len(self.blocks) + 1 + layer
        if not 0 <= resolved <= len(self.blocks):
            raise InputError(
                f"The {self.modality} tower has {len(self.blocks)} layers and no hidden states {layer}; "
                f"choose from 0 to {len(self.blocks)}, or from -1 (the last) down to -{len(self.blocks) + 1}."
            )
        return resolved

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
            bias = pick_rows(seen, below.row)[:, None, :]
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
        row = pick_rows(states, hidden.row)
        return self.head(row if self.norm is None else self.norm(row))

    def bias(self, hidden: Hidden) -> Tensor | None:
        """(B or 1, 1, N or 1, N), what attention adds to its logits; None for nothing."""
        bias = None if hidden.keep is None else closed(hidden.keep)[:, None, None, :]
        if not self.causal:
            return bias
        size = hidden.states.shape[-2]
        backwards = closed(torch.ones(size, size, dtype=torch.bool, device=hidden.states.device).tril())[None, None]
        return backwards if bias is None else torch.minimum(bias, backwards)


def closed(open_to: Tensor) -> Tensor:
    """0 where True, else the lowest float32: not minus infinity, so that a row with nothing to see stays finite."""
    return torch.zeros(open_to.shape, device=open_to.device).masked_fill(~open_to, torch.finfo(torch.float32).min)


@dataclass(frozen=True)
class Towers:
    """Both sides of a dual encoder."""

    image: Tower
    text: Tower
