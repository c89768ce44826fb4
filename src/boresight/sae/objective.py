"""Code, reconstructions and loss of one training batch, never building a dense (B, n) code.

All four architectures share one path: select entries, take their pre-activations with gradient, make them values,
sum directions. They differ in the rule of selection, in the activation (JumpReLU's threshold is learnt), and in
how many nested reconstructions are asked for (Matryoshka).

Shape suffixes: B rows of the batch, D width, L latents, E active entries, of nested codes and the auxiliary one too.
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
    x_BD: Tensor,
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
        x_BD: float32.
        bandwidth: width of the window in which JumpReLU's threshold receives a gradient.
        dead: (J,) int64, latents that may serve the auxiliary reconstruction, or None.
        aux_k: how many of them a row.
        guess: a value believed to be below the batch's threshold (see `top_of_batch`).
        out: (B, n) to hold the pre-activations.
    """
    batch, n = len(x_BD), config.n_latents
    pre_BL = pre_activations(
        x_BD - weights.bias.detach(), weights.encoder_weight.detach(), weights.encoder_bias.detach(), out
    )
    entries_E, smallest = _select(pre_BL, weights, config, bandwidth, guess)
    rows_E, latents_E = entries_E // n, entries_E % n
    # The first nested reconstruction that an entry belongs to is that of the shortest prefix with its latent.
    prefixes, nested = torch.tensor(config.prefixes, device=x_BD.device), len(config.prefixes)
    bags_E = torch.searchsorted(prefixes, latents_E, right=True) * batch + rows_E
    if nested > 1:
        order = bags_E.argsort(stable=True)
        rows_E, latents_E, bags_E = rows_E[order], latents_E[order], bags_E[order]
    main, depth = len(rows_E), nested
    if dead is not None and len(dead) and aux_k:
        extra_E = activations.top_of_rows(pre_BL.index_select(1, dead), min(aux_k, len(dead)))
        aux_rows_E = extra_E // len(dead)
        rows_E = torch.cat([rows_E, aux_rows_E])
        latents_E = torch.cat([latents_E, dead[extra_E % len(dead)]])
        bags_E = torch.cat([bags_E, aux_rows_E + depth * batch])
        depth += 1
    pattern = Pattern(rows_E, latents_E, bags_E, depth * batch, n)
    at_E = pre_activations_at(x_BD, weights.encoder_weight, weights.encoder_bias, weights.bias, pattern, pre_BL)
    values_E, gates_E = at_E[:main], None
    if weights.log_threshold is None:
        values_E = values_E.relu()
    else:
        threshold_E = weights.log_threshold.exp().index_select(0, latents_E[:main])
        values_E, gates_E = _JumpReLU.apply(values_E, threshold_E, bandwidth)
    at_E = torch.cat([values_E, at_E[main:].relu()])
    parts = decode_at(at_E, weights.directions, pattern).view(depth, batch, -1).unbind(0)
    reconstructions = [parts[0] + weights.bias]
    for part in parts[1:nested]:
        reconstructions.append(reconstructions[-1] + part)
    return Pass(
        reconstructions=reconstructions,
        auxiliary=parts[-1] if depth > nested else None,
        rows=rows_E[:main],
        latents=latents_E[:main],
        values=values_E,
        active=(gates_E.sum() if gates_E is not None else (values_E.detach() > 0).sum()) / batch,
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


def sparsity_loss(done: Pass, k: int, coefficient: float = 3.0) -> Tensor:
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


class _JumpReLU(Function):
    """Values where they exceed the threshold, else 0; and 1 or 0 saying which. (E,), (E,), window -> (E,), (E,).

    The thresholds get pseudo-gradients through a rectangle as wide as the window around them (Rajamanoharan et al.
    2024, arXiv 2407.14435, eq. 11 and 12); the values get the plain gradient where they pass.
    """

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
