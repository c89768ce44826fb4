"""Code, reconstructions and loss of one training batch, never building a dense (B, n) code.

All four architectures share one path: select entries, take their pre-activations with gradient, make them values,
sum directions. They differ in the rule of selection, in the activation (JumpReLU's threshold is learnt), and in
how many nested reconstructions are asked for (Matryoshka).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import mse_loss

from boresight.sae import activations
from boresight.sae.config import SaeConfig
from boresight.sae.matmul import pre_activations
from boresight.sae.sparse_ops import Pattern, decode_at, pre_activations_at


@dataclass(frozen=True)
class Weights:
    """encoder_weight (n, d), encoder_bias (n,), directions (n, d), bias (d,), log_threshold (n,), JumpReLU's only."""

    encoder_weight: Tensor
    encoder_bias: Tensor
    directions: Tensor
    bias: Tensor
    log_threshold: Tensor | None = None


@dataclass(frozen=True)
class Pass:
    """What a batch of B embeddings became.

    Attributes:
        reconstructions: P of (B, d), one for each nested code, the whole code last.
        auxiliary: (B, d), the residual as the dead latents would say it, without the pre-bias, or None.
        rows, latents, values: (E,), the active entries of the whole code.
        active: mean active latents a row; carries JumpReLU's gradient.
        smallest: smallest active pre-activation of the batch, for BatchTopK's threshold.
    """

    reconstructions: Sequence[Tensor]
    auxiliary: Tensor | None
    rows: Tensor
    latents: Tensor
    values: Tensor
    active: Tensor
    smallest: float


def run(
    x: Tensor,
    weights: Weights,
    config: SaeConfig,
    *,
    bandwidth: float = 0.0,
    dead: Tensor | None = None,
    aux_k: int = 0,
    guess: float = 0.0,
    out: Tensor | None = None,
) -> Pass:
    """One forward pass.

    Args:
        x: (B, d) float32.
        bandwidth: width of the window in which JumpReLU's threshold receives a gradient.
        dead: (D,) int64, latents that may serve the auxiliary reconstruction, or None.
        aux_k: how many of them a row.
        guess: a value believed to be below the batch's threshold (see `top_of_batch`).
        out: (B, n) to hold the pre-activations.
    """
    batch, n = len(x), config.n_latents
    pre = pre_activations(
        x - weights.bias.detach(), weights.encoder_weight.detach(), weights.encoder_bias.detach(), out
    )
    places, smallest = _select(pre, weights, config, bandwidth, guess)
    rows, latents = places // n, places % n
    levels = _levels(latents, config)
    bags = levels * batch + rows
    if config.depth > 1:
        order = bags.argsort(stable=True)
        rows, latents, bags = rows[order], latents[order], bags[order]
    main, depth = len(rows), config.depth
    if dead is not None and len(dead) and aux_k:
        extra = activations.top_of_rows(pre.index_select(1, dead), min(aux_k, len(dead)))
        aux_rows = extra // len(dead)
        rows = torch.cat([rows, aux_rows])
        latents = torch.cat([latents, dead[extra % len(dead)]])
        bags = torch.cat([bags, aux_rows + depth * batch])
        depth += 1
    pattern = Pattern(rows, latents, bags, depth * batch, n)
    at = pre_activations_at(x, weights.encoder_weight, weights.encoder_bias, weights.bias, pattern, pre)
    values, gates = at[:main], None
    if weights.log_threshold is None:
        values = values.relu()
    else:
        threshold = weights.log_threshold.exp().index_select(0, latents[:main])
        values, gates = jump_relu(values, threshold, bandwidth)
    at = torch.cat([values, at[main:].relu()])
    parts = decode_at(at, weights.directions, pattern).view(depth, batch, -1).unbind(0)
    reconstructions = [parts[0] + weights.bias]
    for part in parts[1 : config.depth]:
        reconstructions.append(reconstructions[-1] + part)
    return Pass(
        reconstructions=reconstructions,
        auxiliary=parts[-1] if depth > config.depth else None,
        rows=rows[:main],
        latents=latents[:main],
        values=values,
        active=(gates.sum() if gates is not None else (values.detach() > 0).sum()) / batch,
        smallest=smallest,
    )


def loss(x: Tensor, done: Pass, variance: float, aux_coefficient: float) -> Tensor:
    """Mean over the nested reconstructions of |x - x^|^2 over `variance`, plus the auxiliary loss against dead latents.

    `variance` is the mean of |x - mean|^2 over the training set, so the first term is the share of variance left
    unexplained. The auxiliary loss (AuxK, Gao et al. 2024, appendix A.2) asks the dead latents for the residual:
    |e - e^|^2 / |e|^2, e fixed. e^ has no pre-bias: the residual has none left.
    """
    errors = [mse_loss(reconstruction, x, reduction="sum") for reconstruction in done.reconstructions]
    total = torch.stack(errors).sum() / (len(errors) * len(x) * variance)
    if done.auxiliary is not None:
        residual = (x - done.reconstructions[-1]).detach()
        unexplained = mse_loss(done.auxiliary, residual, reduction="sum") / residual.square().sum().clamp_min(1e-12)
        total = total + aux_coefficient * unexplained
    return total


def sparsity_loss(done: Pass, k: int, coefficient: float) -> Tensor:
    """Coefficient * (L0 / k - 1)^2: pulls the mean number of active latents to k (JumpReLU).

    A target in place of a plain L0 penalty is a variant named by Rajamanoharan et al. 2024 (arXiv 2407.14435); the
    coefficient is our choice.
    """
    return coefficient * (done.active / k - 1).square()


def _select(pre: Tensor, weights: Weights, config: SaeConfig, bandwidth: float, guess: float) -> tuple[Tensor, float]:
    if weights.log_threshold is not None:
        # Entries just below the threshold have value 0 and yet a gradient for the threshold.
        return activations.above(pre, weights.log_threshold.detach().exp() - bandwidth / 2), 0.0
    if config.thresholded:
        return activations.top_of_batch(pre, config.k * len(pre), guess)
    return activations.top_of_rows(pre, config.k), 0.0


def _levels(latents: Tensor, config: SaeConfig) -> Tensor:
    """(E,) the first nested reconstruction that each entry belongs to."""
    if config.matryoshka_sizes:
        return torch.searchsorted(torch.tensor(config.matryoshka_sizes, device=latents.device), latents, right=True)
    return torch.zeros_like(latents)


def jump_relu(values: Tensor, threshold: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
    """Values where they exceed the threshold, else 0; and 1 or 0 saying which. (E,), (E,) -> (E,), (E,).

    The thresholds get pseudo-gradients through a rectangle of width `bandwidth` around them (Rajamanoharan et al.
    2024, arXiv 2407.14435, eq. 11 and 12); the values get the plain gradient where they pass.
    """
    return _JumpReLU.apply(values, threshold, bandwidth)


class _JumpReLU(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, threshold: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(values, threshold)
        ctx.bandwidth = bandwidth
        gates = (values > threshold).to(values.dtype)
        return values * gates, gates

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor, grad_gates: Tensor) -> tuple[Tensor | None, ...]:
        values, threshold = ctx.saved_tensors
        window = ((values - threshold).abs() < ctx.bandwidth / 2).to(values.dtype) / ctx.bandwidth
        grad_threshold = -window * (threshold * grad_out + grad_gates)
        return grad_out * (values > threshold), grad_threshold, None
