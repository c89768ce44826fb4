"""Attribution from attention weights, with and without their gradients.

- Chefer, Gur and Wolf 2021 (arXiv 2103.15679, sections 3.1 and 3.2): relevance R starts as the identity and every block
  adds E_h[(dA * A)^+] R, where dA is the gradient of the cosine with respect to the weights A of its heads h.
- LeGrad (Bousselham et al. 2024, arXiv 2404.03214, section 3): E_h[(dA)^+] of each block, where the cosine is that of
  the block's own output, read as if it were the last.
- Attention rollout (Abnar and Zuidema 2020, arXiv 2005.00928, section 3): the product of (A + I) / 2 over the blocks, A
  the mean over heads. It takes no notice of the other side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.attribution.methods.base import Method, require_layers
from boresight.encoders.towers.layers import pick_rows
from boresight.encoders.towers.tower import Hidden, Tower
from boresight.errors import InputError


@dataclass(frozen=True)
class Chefer(Method):
    """Generic attention explainability, read at the row that is pooled.

    That row is the probe of attention pooling, whose weights make the last step, and the mean of the patches' rows
    where they are averaged. The identity stays in, as published: the token that is read starts with 1. As f here is the
    cosine, and not a logit 100 times as large, products of several blocks' gradients weigh less against the single
    ones than in the published code; for the default of one block that is a matter of scale alone.

    Attributes:
        layer: the lowest hidden states: blocks from there on count. -2 is the last block only, the default of the
            authors' notebook for CLIP.

    Relations:
        Weights and gradients of one or a few blocks at the top, at the cost of one gradient; use `LeGrad` to sum over
        the matches of all blocks, `AttentionRollout` for attention alone.
    """

    layer: int = -2

    def scores(self, tower: Tower, hidden: Hidden, other: Tensor, seed: int) -> Tensor:
        """(B, N), none below 0. Raises InputError where no attention lies above `layer`."""
        require_layers(tower, "Chefer's method")
        top = len(tower.blocks)
        if hidden.layer == top and tower.probe is None:
            raise InputError(f"No attention lies above hidden states {self.layer}; choose a lower layer, such as -2.")
        _, maps, fit = _read_at(tower, hidden, top, other)
        slopes = torch.autograd.grad(fit, maps)
        steps = [(slope * weights.detach()).relu().mean(-3) for slope, weights in zip(slopes, maps, strict=True)]
        relevance = _identity(hidden)
        for step in steps[: top - hidden.layer]:
            relevance = relevance + step @ relevance
        return _pooled_row(tower, hidden, relevance, steps[-1])


@dataclass(frozen=True)
class LeGrad(Method):
    """Sensitivity of each layer's own match to its attention weights, summed over layers.

    With attention pooling the weights are the probe's. The mean over queries is over the input's own tokens.

    Attributes:
        layers: so many blocks, counted from the top; None for all of them, as the paper has it.

    Relations:
        The best map for its cost in our measurements, one gradient a block; use `BottleneckPath` or `KernelShap` where
        signs and sums matter.
    """

    layers: int | None = None

    def __post_init__(self) -> None:
        if self.layers is not None and self.layers < 1:
            raise InputError(f"LeGrad over {self.layers} layers has no map; ask for 1 or more, or None for all.")

    def start(self, tower: Tower) -> int:
        """Below the blocks that count."""
        return 0 if self.layers is None else -1 - self.layers

    def scores(self, tower: Tower, hidden: Hidden, other: Tensor, seed: int) -> Tensor:
        """(B, N), none below 0."""
        require_layers(tower, "LeGrad")
        total = hidden.states.new_zeros(hidden.states.shape[:-1])
        for layer in range(hidden.layer, len(tower.blocks)):
            hidden, maps, fit = _read_at(tower, hidden, layer + 1, other)
            slopes = torch.autograd.grad(fit, maps[-1])[0].relu().mean(-3)
            if tower.probe is None and hidden.keep is not None:
                total = total + (slopes * hidden.keep[..., None]).sum(-2) / hidden.keep.sum(-1, keepdim=True)
            else:
                total = total + slopes.mean(-2)
        return total


@dataclass(frozen=True)
class AttentionRollout(Method):
    """Attention rollout, read at the row that is pooled; the same whatever the other side says.

    Relations:
        A control as much as a method: what `Chefer` and `LeGrad` gain over it is what the match tells.
    """

    def scores(self, tower: Tower, hidden: Hidden, other: Tensor, seed: int) -> Tensor:
        """(B, N); a row sums to 1."""
        require_layers(tower, "Attention rollout")
        maps: list[Tensor] = []
        rollout = _identity(hidden)
        for layer in range(hidden.layer, len(tower.blocks)):
            maps = []
            hidden = tower.climb(hidden, layer + 1, maps)
            rollout = (maps[0].mean(-3) @ rollout + rollout) / 2
        tower.pool(hidden, maps)
        return _pooled_row(tower, hidden, rollout, maps[-1].mean(-3))


def _read_at(tower: Tower, hidden: Hidden, layer: int, other: Tensor) -> tuple[Hidden, list[Tensor], Tensor]:
    """Hidden states of `layer`, all attention weights up to their embeddings, and the sum of these ones' cosines."""
    maps: list[Tensor] = []
    below = hidden.with_states(hidden.states.detach().requires_grad_())
    with torch.enable_grad():
        above = tower.climb(below, layer, maps)
        return above, maps, F.cosine_similarity(tower.pool(above, maps), other, dim=-1).sum()


def _identity(hidden: Hidden) -> Tensor:
    batch, tokens = hidden.states.shape[:2]
    return torch.eye(tokens, device=hidden.states.device).expand(batch, -1, -1)


def _pooled_row(tower: Tower, hidden: Hidden, relevance: Tensor, last: Tensor) -> Tensor:
    """(B, N): of relevance (B, N, N), the rows that the embedding is made of; `last` (B, 1, N), of a probe."""
    if tower.probe is not None:
        return (last @ relevance)[:, 0]
    if tower.pooling == "mean":
        return relevance[:, tower.prefix :].mean(1)
    assert hidden.row is not None
    return pick_rows(relevance, hidden.row)
