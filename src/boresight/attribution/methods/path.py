"""The bottleneck's whole path: what a token adds to the match as all gates open together. Ours.

M2IB trains gates to one trade-off between fit and information, and stops them half way. Here nothing is trained. With x
the hidden states of a layer, mu and sigma the mean and deviation of each channel over the tokens of the same input, and
one gate lambda_n for each token n,

    z_n = mu + lambda_n (x_n - mu) + (1 - lambda_n) sigma eps,    eps ~ N(0, 1),

all gates open from 0, where z is noise that is like the input and tells nothing of it, to 1, where it is the input. The
fit is M2IB's, the cosine of what the layers above make of z with the other side's embedding, and a token is given what
its own gate brings along the way:

    a_n = integral over t from 0 to 1 of  E_eps [ d fit / d lambda_n  at lambda = (t, ..., t) ].

So a_n adds up to fit(input) - E fit(noise): integrated gradients (Sundararajan, Taly and Yan 2017) in the space of the
gates, over every trade-off and not one. Like M2IB it needs no label. A token that is like all the others says nothing
of its own, and its gate brings nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from boresight.attribution.methods.base import Method, cosine, require_layers
from boresight.attribution.methods.bottleneck import draw_noise, in_blocks, moments
from boresight.encoders.towers.tower import Hidden, Tower
from boresight.errors import InputError


@dataclass(frozen=True)
class BottleneckPath(Method):
    """Signed, unlike M2IB's map: below 0 is what speaks against the match.

    Attributes:
        layer: whose hidden states are gated, numbered as `Tower.lower` does; left out, the middle one of an image tower
            and 0, the embedded tokens, of a text tower: higher up a word's information has moved to other tokens.
        steps: points on the way (midpoints of equal parts). The sum converges, so more of them refine the same map.
        n_samples: draws of noise a step, each with its negative; an even number.

    Relations:
        At M2IB's cost, better than it where a map should be about the caption. Use `IntegratedGradients` for a
        baseline of zeros, `KernelShap` where only scores are at hand.
    """

    layer: int | None = None
    steps: int = 8
    n_samples: int = 2

    def __post_init__(self) -> None:
        if self.steps < 1 or self.n_samples < 2 or self.n_samples % 2:
            raise InputError(
                f"{self.steps} steps of {self.n_samples} samples make no path; ask for 1 step or more, and for an even "
                "number of samples, since they come in pairs."
            )

    def start(self, tower: Tower) -> int:
        """`layer`, or what this modality has for it."""
        if self.layer is not None:
            return self.layer
        return len(tower.blocks) // 2 if tower.modality == "image" else 0

    def scores(self, tower: Tower, hidden: Hidden, other: Tensor, seed: int) -> Tensor:
        """(B, N) signed, in units of the cosine."""
        require_layers(tower, "The bottleneck's path")
        return in_blocks(self._of_block, tower, hidden, other, seed, self.n_samples)

    def _of_block(self, tower: Tower, hidden: Hidden, other: Tensor, seed: int) -> Tensor:
        x = hidden.states
        mean, deviation = moments(x, hidden.keep)
        total = x.new_zeros(x.shape[:-1])
        for step in range(self.steps):
            noise = draw_noise(tower, x, "antithetic", self.n_samples, seed, step)
            gates = torch.full_like(x[..., :1], (step + 0.5) / self.steps).requires_grad_()
            with torch.enable_grad():
                z = mean + gates * (x - mean) + (1 - gates) * deviation * noise
                fit = cosine(tower, hidden, z, other).mean(0).sum()
            total += torch.autograd.grad(fit, gates)[0][..., 0] / self.steps
        return total
