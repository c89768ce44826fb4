"""The sparse training pass against a dense one in plain autograd: values and every gradient, with biases."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boresight.sae import objective
from boresight.sae.config import SaeConfig
from boresight.sae.objective import Weights
from boresight.sae.sparse_ops import (
    Pattern,
    decode_at,
    plain_decode_at,
    plain_pre_activations_at,
    pre_activations_at,
)

BANDWIDTH = 0.3
CONFIGS = {
    "topk": {"architecture": "topk"},
    "batchtopk": {"architecture": "batchtopk"},
    "jumprelu": {"architecture": "jumprelu"},
    "matryoshka": {"architecture": "matryoshka"},
}


def weights_for(config: SaeConfig, seed: int) -> Weights:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    n, d = config.n_latents, config.width
    weights = Weights(
        encoder_weight=draw(n, d),
        encoder_bias=0.5 * draw(n),
        directions=torch.nn.functional.normalize(draw(n, d), dim=1),
        bias=0.5 * draw(d),
        log_threshold=0.3 * draw(n) if config.architecture == "jumprelu" else None,
    )
    for tensor in vars(weights).values():
        if tensor is not None:
            tensor.requires_grad_(True)
    return weights


def dense_loss(
    x: Tensor, weights: Weights, config: SaeConfig, dead: Tensor, aux_k: int, aux_coefficient: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, nested reconstructions and mean L0, with dense codes and no custom backward."""
    pre = (x - weights.bias) @ weights.encoder_weight.T + weights.encoder_bias
    positive = pre.relu()
    codes = []
    if config.architecture == "jumprelu":
        threshold = weights.log_threshold.exp()
        fixed = threshold.detach()
        gate = (pre > fixed).double()
        slope = ((pre - fixed).abs() < BANDWIDTH / 2) / BANDWIDTH
        moved = (threshold - fixed) * slope.detach()
        codes = [pre * gate - fixed * moved]
        active = (gate - moved).sum() / len(x)
    elif config.thresholded:
        kept = torch.zeros_like(positive).flatten()
        best = positive.flatten().topk(config.k * len(x)).indices
        code = (positive.flatten() * kept.index_fill(0, best, 1.0)).view_as(positive)
    else:
        code = positive * torch.zeros_like(positive).scatter(1, positive.topk(config.k, dim=1).indices, 1.0)
        codes = [code]
    if config.architecture == "matryoshka":
        codes = [code * (torch.arange(config.n_latents) < size) for size in (3, 6, 12, 24)]
    elif config.architecture == "batchtopk":
        codes = [code]
    if config.architecture != "jumprelu":
        active = (codes[-1] > 0).double().sum() / len(x)
    reconstructions = torch.stack([code @ weights.directions + weights.bias for code in codes])
    total = ((x - reconstructions) ** 2).sum(2).mean() / 1.7
    if len(dead):
        residual = (x - reconstructions[-1]).detach()
        mask = torch.zeros(len(x), len(dead), dtype=x.dtype)
        mask = mask.scatter(1, pre[:, dead].topk(min(aux_k, len(dead)), dim=1).indices, 1.0)
        said = (positive[:, dead] * mask) @ weights.directions[dead]
        total = total + aux_coefficient * ((residual - said) ** 2).sum() / (residual**2).sum()
    if config.architecture == "jumprelu":
        total = total + 0.7 * (active / config.k - 1) ** 2
    return total, reconstructions, active


def sparse_loss(
    x: Tensor, weights: Weights, config: SaeConfig, dead: Tensor, aux_k: int, aux_coefficient: float
) -> tuple[Tensor, objective.Pass]:
    done = objective.run(x, weights, config, bandwidth=BANDWIDTH, dead=dead, aux_k=aux_k, guess=0.1)
    total = objective.loss(x, done, 1.7, aux_coefficient)
    if config.architecture == "jumprelu":
        total = total + objective.sparsity_loss(done, config.k, 0.7)
    return total, done


@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 9), seed=st.integers(0, 10_000), n_dead=st.integers(0, 9), aux_k=st.integers(1, 4))
def test_sparse_pass_equals_dense_pass(name: str, rows: int, seed: int, n_dead: int, aux_k: int) -> None:
    config = SaeConfig(width=6, n_latents=24, k=5, **CONFIGS[name])
    weights = weights_for(config, seed)
    x = torch.randn(rows, 6, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    dead = torch.randperm(24, generator=torch.Generator().manual_seed(seed + 2))[:n_dead].sort().values
    held = [tensor for tensor in vars(weights).values() if tensor is not None]

    expected, reconstructions, active = dense_loss(x, weights, config, dead, aux_k, 0.4)
    expected_gradients = torch.autograd.grad(expected, held)
    found, done = sparse_loss(x, weights, config, dead, aux_k, 0.4)
    gradients = torch.autograd.grad(found, held)

    torch.testing.assert_close(torch.stack(list(done.reconstructions)), reconstructions)
    torch.testing.assert_close(done.active.double(), active)
    torch.testing.assert_close(found, expected)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_receives_a_gradient(name: str) -> None:
    config = SaeConfig(width=6, n_latents=24, k=5, **CONFIGS[name])
    weights = weights_for(config, 3)
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    total, _ = sparse_loss(x, weights, config, torch.empty(0, dtype=torch.int64), 0, 0.0)
    total.backward()
    for label, tensor in vars(weights).items():
        if tensor is not None:
            assert tensor.grad.abs().max() > 1e-6, label


def test_auxiliary_loss_reaches_the_encoder_and_ignores_the_pre_bias() -> None:
    config = SaeConfig(width=6, n_latents=24, k=2)
    weights = weights_for(config, 5)
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    dead = torch.tensor([20, 21, 22, 23])
    # Latents that are dead because their bias is low still have positive entries to learn from here.
    done = objective.run(x, weights, config, dead=dead, aux_k=2)
    assert done.auxiliary is not None
    only_auxiliary = objective.loss(x, done, 1.7, 1.0) - objective.loss(x, replace(done, auxiliary=None), 1.7, 1.0)
    gradients = torch.autograd.grad(only_auxiliary, [weights.encoder_weight, weights.encoder_bias, weights.directions])
    live = torch.ones(24, dtype=torch.bool)
    live[dead] = False
    for gradient in gradients:
        assert gradient[dead].abs().max() > 1e-6
        assert gradient[live].abs().max() < 1e-12
    # The auxiliary reconstruction is a sum of dead directions alone.
    basis = weights.directions.detach()[dead]
    coefficients = torch.linalg.lstsq(basis.T, done.auxiliary.detach().T).solution
    torch.testing.assert_close(basis.T @ coefficients, done.auxiliary.detach().T)


@settings(max_examples=25, deadline=None)
@given(entries=st.integers(0, 40), seed=st.integers(0, 1000))
def test_sparse_maps_equal_their_plain_twins(entries: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows, n, d, bags = 5, 11, 4, 7
    flat = torch.randperm(bags * n, generator=generator)[:entries].sort().values
    pattern = Pattern(flat // n % rows, flat % n, flat // n, bags, n)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(True)

    x, weight, weight_bias, bias, values, directions = (
        draw(rows, d).detach(),
        draw(n, d),
        draw(n),
        draw(d),
        draw(entries),
        draw(n, d),
    )
    pre = ((x - bias) @ weight.T + weight_bias).detach()
    upstream, upstream_out = draw(entries).detach(), draw(bags, d).detach()
    for found, wanted, held in (
        (
            pre_activations_at(x, weight, weight_bias, bias, pattern, pre) @ upstream,
            plain_pre_activations_at(x, weight, weight_bias, bias, pattern) @ upstream,
            [weight, weight_bias, bias],
        ),
        (
            (decode_at(values, directions, pattern) * upstream_out).sum(),
            (plain_decode_at(values, directions, pattern) * upstream_out).sum(),
            [values, directions],
        ),
    ):
        torch.testing.assert_close(found, wanted)
        for gradient, other in zip(torch.autograd.grad(found, held), torch.autograd.grad(wanted, held), strict=True):
            torch.testing.assert_close(gradient, other)
