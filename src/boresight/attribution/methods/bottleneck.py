"""M2IB: the information that an image and a text share, found by squeezing out all the rest.

Wang, Rudner and Wilson, "Visual explanations of image-text representations via multi-modal information bottleneck
attribution" (2023, arXiv 2312.17174), in the order of the paper. For one side m of a pair, with hidden states x of a
layer and the other side's embedding e:

- The bottleneck. Noise is let in through gates lambda, one for each token and channel,
  z = lambda x + (1 - lambda) eps,  eps ~ N(0, 1),  lambda = sigmoid(alpha).
- The objective, maximised over alpha:  fit - beta compression.
- Fit stands for the information that z holds about the other side: the cosine between e and what the layers above make
  of z, a mean over draws of eps (`cosine_similarity` in `_of_block`).
- Compression bounds the information that z holds about x: KL[N(lambda x, (1 - lambda)^2) || N(0, 1)] (`divergence`).
- The map is that divergence in nats, summed over a token's channels.

Shapes are in suffixes: B inputs, S samples of noise, N tokens, D channels; G is D, or 1 where a gate is a token's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.attribution.methods.base import Method
from boresight.encoders.towers.tower import Hidden, Tower
from boresight.errors import InputError, require_choice
from boresight.seeds import generator

Noise = Literal["antithetic", "iid", "none"]
Gate = Literal["element", "token"]
AT_ONCE = 2**21  # numbers in a block of hidden states; measured: smaller products are slower, larger ones no faster
ALPHA = 5.0  # where the gates start: lambda 0.993
_CHUNK = 16  # torch draws normal numbers in groups of so many, and a longer draw then begins like a shorter one


@dataclass(frozen=True)
class M2IB(Method):
    """Multi-modal information bottleneck attribution.

    The layers below the gates and the whole other tower run once; of the last layer only the row that is read is
    computed, and many pairs and samples go through at once. The maps are those of the plain algorithm, which runs both
    towers for every sample and step, to 1e-5 under the same noise.

    Attributes:
        layer: whose hidden states are gated, numbered as `Tower.lower` does. -3 lies two layers below the end, as layer
            9 (of 0 to 11) of the published code does.
        beta: weight of the compression, a mean over tokens and channels.
        steps: of Adam. The published 10 are part of the method's definition: the gates have not converged there, and
            a map of fewer or more steps is another map. The last step's map is taken before its update, as published.
        n_samples: draws of noise a step.
        noise: 'antithetic' (each draw with its negative), 'iid' (as published, with n_samples=10) or 'none' (z is its
            mean).
        gate: 'element' (a gate for each token and channel, as published) or 'token'.
        learning_rate: of Adam.
        standardise: noise of the mean and variance that each channel has over the tokens, and the divergence against
            it: the variance that the published code reads and never uses. Without it the noise is N(0, 1) whatever the
            scale of the layer.

    Relations:
        Best at parting objects from background, and little about the caption at its published depth; use `LeGrad` or
        `BottleneckPath` to see which object a caption names, `KernelShap` for what moves the score most.

    Example:
        >>> image_maps, text_maps = M2IB(model, beta=0.3).attribute(pixel_values, input_ids)
    """

    layer: int = -3
    beta: float = 0.1
    steps: int = 10
    n_samples: int = 4
    noise: Noise = "antithetic"
    gate: Gate = "element"
    learning_rate: float = 1.0
    standardise: bool = False

    def __post_init__(self) -> None:
        require_choice("noise", self.noise, get_args(Noise))
        require_choice("gate", self.gate, get_args(Gate))
        if self.steps < 1 or self.n_samples < 1:
            raise InputError(f"{self.steps} steps of {self.n_samples} samples make no map; ask for at least 1 of each.")
        if self.noise == "antithetic" and self.n_samples % 2:
            raise InputError(f"Antithetic samples come in pairs, and n_samples is {self.n_samples}; make it even.")
        if not (math.isfinite(self.beta) and math.isfinite(self.learning_rate)):
            raise InputError("beta and learning_rate must be finite numbers.")

    def scores(self, tower: Tower, hidden: Hidden, other: Tensor, seed: int) -> Tensor:
        """(B, N) nats."""
        return in_blocks(self._of_block, tower, hidden, other, seed, 1 if self.noise == "none" else self.n_samples)

    def _of_block(self, tower: Tower, hidden: Hidden, other: Tensor, seed: int) -> Tensor:
        x_BND = hidden.states
        mean, deviation = moments(x_BND, hidden.keep) if self.standardise else (0.0, 1.0)
        centred_BND, share_BN = (x_BND - mean) / deviation, shares(x_BND, hidden.keep)
        alpha_BNG = torch.full_like(x_BND if self.gate == "element" else x_BND[..., :1], ALPHA).requires_grad_()
        optimizer = torch.optim.Adam([alpha_BNG], lr=self.learning_rate)
        for step in range(self.steps - 1):
            with torch.enable_grad():
                gates_BNG = alpha_BNG.sigmoid()
                noise_S1ND = draw_noise(tower, x_BND, self.noise, self.n_samples, seed, step)
                z_SBND = torch.addcmul(gates_BNG * x_BND, 1 - gates_BNG, mean + deviation * noise_S1ND)
                e_SBd = tower.upper(hidden.with_states(z_SBND))
                fit_B = F.cosine_similarity(e_SBd, other, dim=-1, eps=1e-6).mean(0)
                compression_B = (divergence(alpha_BNG, centred_BND).mean(-1) * share_BN).sum(1)
                loss = (self.beta * compression_B - fit_B).sum()
            alpha_BNG.grad = torch.autograd.grad(loss, alpha_BNG)[0]
            optimizer.step()
        return divergence(alpha_BNG.detach(), centred_BND).sum(-1)


def in_blocks(
    work: Callable[[Tower, Hidden, Tensor, int], Tensor],
    tower: Tower,
    hidden: Hidden,
    other: Tensor,
    seed: int,
    n_samples: int,
) -> Tensor:
    """work(tower, hidden, other, seed) -> (B, N) of all inputs, as many at once as `n_samples` copies of them fit."""
    size = max(1, AT_ONCE // (n_samples * hidden.states[0].numel()))
    blocks = torch.arange(len(hidden)).split(size)
    return torch.cat([work(tower, hidden.select(rows), other[rows], seed) for rows in blocks])


def draw_noise(tower: Tower, x: Tensor, kind: Noise, n_samples: int, seed: int, step: int) -> Tensor:
    """(samples, 1, N, D) for x (..., N, D): the same for all pairs, and for a token whatever comes behind it."""
    tokens, width = x.shape[-2:]
    if kind == "none":
        return x.new_zeros(1, 1, tokens, width)
    draws = n_samples // 2 if kind == "antithetic" else n_samples
    source = generator(seed, f"m2ib {tower.modality} {step}")
    rows = math.ceil(tokens / _CHUNK) * _CHUNK
    drawn = torch.randn(rows, draws, width, generator=source)[:tokens].transpose(0, 1).to(x.device)[:, None]
    return torch.cat([drawn, -drawn]) if kind == "antithetic" else drawn


def divergence(alpha: Tensor, x: Tensor) -> Tensor:
    """KL[N(lambda x, (1 - lambda)^2) || N(0, 1)] in nats, elementwise; lambda = sigmoid(alpha). Always finite."""
    gates, closing = alpha.sigmoid(), F.logsigmoid(-alpha)
    return -0.5 * (1 + 2 * closing - (gates * x).square() - (2 * closing).exp())


def shares(x: Tensor, keep: Tensor | None) -> Tensor:
    """(B, N): equal weights of the tokens of x (B, N, D) that are kept, 1 in all, and 0 of the others."""
    live = torch.ones(x.shape[:-1], device=x.device) if keep is None else keep.float()
    return live / live.sum(1, keepdim=True)


def moments(x: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (B, 1, D) of each channel of x (B, N, D) over the tokens that are kept."""
    weights = shares(x, keep).unsqueeze(-1)
    mean = (weights * x).sum(1, keepdim=True)
    variance = (weights * (x - mean).square()).sum(1, keepdim=True)
    return mean, variance.sqrt().clamp_min(1e-6)
