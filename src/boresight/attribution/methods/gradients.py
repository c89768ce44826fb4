"""Attribution from the gradient of the cosine with respect to a layer's hidden states.

With x the hidden states, f(x) the cosine that the layers above make of them with the other side's embedding, and sums
over the channels of a token:

- Gradient x input: x . df/dx, the first-order estimate of what f would lose if the token's states were zero.
- Integrated gradients (Sundararajan, Taly and Yan 2017, arXiv 1703.01365, section 3): x . the mean of df/dx over the
  straight path from zero to x. Over all tokens it adds up to f(x) - f(0).
- Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391, section 3): channels weighted by their mean gradient, negative sums
  cut off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.attribution.methods.base import Method, cosine, require_layers
from boresight.encoders.towers.tower import Hidden, Tower
from boresight.errors import InputError


@dataclass(frozen=True)
class GradientXInput(Method):
    """Gradient times input, signed.

    Attributes:
        layer: whose hidden states, numbered as `Tower.lower` does; 0 are the embedded patches and tokens.

    Relations:
        One gradient, and noisy; use `IntegratedGradients` where values should add up, `LeGrad` for a better map at
        the same cost.
    """

    layer: int = 0

    def scores(self, tower: Tower, hidden: Hidden, other: Tensor, seed: int) -> Tensor:
        """(B, N) signed."""
        require_layers(tower, "Gradient times input")
        return (hidden.states * _slope(tower, hidden, hidden.states, other)).sum(-1)


@dataclass(frozen=True)
class IntegratedGradients(Method):
    """Layer integrated gradients from a baseline of zeros, signed; at layer -3 with 10 steps, what NIB computes.

    Attributes:
        layer: whose hidden states, numbered as `Tower.lower` does.
        steps: points of the Gauss-Legendre rule along the path. A pre-norm block at layer 0 is nearly blind to the
            length of its input, so that the gradient changes fast near zero; few steps suffice higher up.
        rows_at_once: inputs times steps that go through the layers together; memory grows with it.

    Relations:
        Values add up to the cosine less that of zeros. `BottleneckPath` starts from noise like the input instead, and
        `KernelShap` needs no gradient.
    """

    layer: int = 0
    steps: int = 32
    rows_at_once: int = 64

    def __post_init__(self) -> None:
        if self.steps < 1 or self.rows_at_once < 1:
            raise InputError(f"{self.steps} steps, {self.rows_at_once} rows at once; ask for at least 1 of each.")

    def scores(self, tower: Tower, hidden: Hidden, other: Tensor, seed: int) -> Tensor:
        """(B, N) signed."""
        require_layers(tower, "Integrated gradients")
        x = hidden.states
        nodes, areas = np.polynomial.legendre.leggauss(self.steps)
        shares, weights = (torch.from_numpy(part / 2).to(x)[:, None, None, None] for part in (1 + nodes, areas))
        total = torch.zeros_like(x)
        for points in torch.arange(self.steps, device=x.device).split(max(1, self.rows_at_once // len(hidden))):
            total += (weights[points] * _slope(tower, hidden, shares[points] * x, other)).sum(0) * x
        return total.sum(-1)


@dataclass(frozen=True)
class GradCam(Method):
    """Grad-CAM at what the last block's attention reads: its input norm, the published choice for vision transformers.

    The gradient is the one through the attention; the residual path around it carries the row that is read alone. For
    a block whose norms come last, as BERT's do, what its attention reads is the hidden states themselves.

    Relations:
        One gradient through the last block, nothing below 0; use `LeGrad` to hear from all blocks.
    """

    layer = -2  # below the last block, and no option

    def scores(self, tower: Tower, hidden: Hidden, other: Tensor, seed: int) -> Tensor:
        """(B, N), none below 0."""
        require_layers(tower, "Grad-CAM")
        x, block = hidden.states, tower.blocks[-1]
        read = (block.norm1(x) if block.norm_first else x).detach().requires_grad_()
        with torch.enable_grad():
            states = block.finish(x, block.attention(read, tower.bias(hidden)))
            fit = F.cosine_similarity(tower.pool(hidden.with_states(states)), other, dim=-1).sum()
        slope = torch.autograd.grad(fit, read)[0]
        live = torch.ones(x.shape[:-1], device=x.device) if hidden.keep is None else hidden.keep.float()
        live = live * (torch.arange(live.shape[1], device=live.device) >= tower.prefix)
        channels = torch.einsum("bn,bnd->bd", live / live.sum(1, keepdim=True), slope)
        return torch.einsum("bnd,bd->bn", read.detach(), channels).relu()


def _slope(tower: Tower, hidden: Hidden, states: Tensor, other: Tensor) -> Tensor:
    """The gradient d cosine / d states, of the shape of `states` (..., B, N, D)."""
    with torch.enable_grad():
        at = states.detach().requires_grad_()
        return torch.autograd.grad(cosine(tower, hidden, at, other).sum(), at)[0]
