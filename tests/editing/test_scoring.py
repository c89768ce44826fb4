"""Exact blocked scores against a slow float64 reference that builds every edited embedding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.editing import scoring
from boresight.editing.scoring import MIN_LENGTH, in_threads


def problem(seed: int, images: int, texts: int, width: int, latents: int, k: int, bias: float):
    draw = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(latents, width, generator=draw), dim=1)
    indices = torch.stack([torch.randperm(latents, generator=draw)[:k] for _ in range(max(images, 1))])[:images]
    values = torch.rand(images, k, generator=draw)
    # Ragged: padded slots have value 0 and an index that means nothing.
    values = values * (torch.rand(images, k, generator=draw) > 0.2)
    x = torch.randn(images, width, generator=draw) * (0.1 + 3 * torch.rand(images, 1, generator=draw))
    b = bias * torch.randn(width, generator=draw)
    u = torch.nn.functional.normalize(torch.randn(texts, width, generator=draw), dim=1)
    mask = torch.rand(texts, latents, generator=draw)
    mask[::3] = (mask[::3] > 0.5).float()
    mask[1::4] = 0.0
    return directions, indices, values, x, b, u, mask


def reference(form: str, directions, indices, values, x, b, u, mask, exponent: float) -> torch.Tensor:
    """(N, T) float64, one edited embedding at a time."""
    directions, values, x, b, u, mask = (value.double() for value in (directions, values, x, b, u, mask))
    out = torch.empty(len(x), len(u), dtype=torch.float64)
    codes = torch.zeros(len(x), len(directions), dtype=torch.float64).scatter_add_(1, indices, values)
    for i in range(len(x)):
        for t in range(len(u)):
            if form == "residual":
                edited = x[i] - ((1 - mask[t]) * codes[i]) @ directions
            else:
                edited = (mask[t] * codes[i]) @ directions + b
            relative = (edited.norm() / x[i].norm()).clamp_min(MIN_LENGTH)
            out[i, t] = edited @ u[t] / (x[i].norm() * relative**exponent)
    return out


def exact(form: str, directions, indices, values, x, b, u, mask, exponent: float) -> torch.Tensor:
    inverse = 1 / x.norm(dim=1, keepdim=True)
    base, scaled = (x if form == "residual" else b.expand_as(x)) * inverse, values * inverse
    weights = (mask - 1 if form == "residual" else mask).t().contiguous()
    scores = scoring.numerators(base, indices, scaled, u, weights * (directions @ u.t()))
    terms = scoring.length_terms(base, indices, scaled, directions)
    return scores / scoring.relative_lengths(terms, indices, weights) ** exponent


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 5),
    texts=st.integers(1, 6),
    width=st.integers(2, 24),
    latents=st.integers(1, 40),
    k=st.integers(1, 12),
    bias=st.sampled_from([0.0, 0.3]),
    form=st.sampled_from(["residual", "reconstruct"]),
    exponent=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_equals_the_materialised_reference(seed, images, texts, width, latents, k, bias, form, exponent):
    parts = problem(seed, images, texts, width, latents, min(k, latents), bias)
    expected = reference(form, *parts, exponent)
    torch.testing.assert_close(exact(form, *parts, exponent).double(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("form", ["residual", "reconstruct"])
def test_blocks_do_not_change_the_scores(form, monkeypatch):
    parts = problem(3, 21, 17, 16, 50, 6, 0.2)
    whole = exact(form, *parts, 1.0)
    monkeypatch.setattr(scoring, "_BLOCK_IMAGES", 4)
    monkeypatch.setattr(scoring, "_BLOCK_TEXTS", 5)
    torch.testing.assert_close(exact(form, *parts, 1.0), whole, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(whole.double(), reference(form, *parts, 1.0), atol=1e-6, rtol=1e-6)
    differentiable = exact(form, *parts[:-1], parts[-1].requires_grad_(), 1.0)
    torch.testing.assert_close(differentiable.detach(), whole, atol=1e-6, rtol=1e-6)


def test_realistic_width_stays_within_a_millionth():
    parts = problem(5, 40, 30, 512, 2048, 32, 0.05)
    expected = reference("residual", *parts, 1.0)
    assert (exact("residual", *parts, 1.0) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("images", [0, 3])
@pytest.mark.parametrize("texts", [0, 2])
@pytest.mark.parametrize("k", [0, 1])
def test_empty_blocks_and_single_slots(images, texts, k):
    parts = problem(1, images, texts, 8, 5, k, 0.1)
    scores = exact("residual", *parts, 1.0)
    assert scores.shape == (images, texts)
    torch.testing.assert_close(scores.double(), reference("residual", *parts, 1.0), atol=1e-6, rtol=1e-6)


def test_an_emptied_image_scores_zero_and_not_nan():
    directions, indices, values, x, b, u, mask = problem(2, 4, 3, 8, 20, 4, 0.0)
    scores = exact("reconstruct", directions, indices, values, x, b, u, torch.zeros_like(mask), 1.0)
    assert torch.equal(scores, torch.zeros_like(scores))


def test_repeated_directions_and_empty_codes_are_no_trouble():
    directions, indices, values, x, b, u, mask = problem(4, 6, 5, 8, 10, 4, 0.3)
    directions[:] = directions[0]
    values[0] = 0
    parts = (directions, indices, values, x, b, u, mask)
    torch.testing.assert_close(
        exact("reconstruct", *parts, 1.0).double(), reference("reconstruct", *parts, 1.0), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("form", ["residual", "reconstruct"])
@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("floats", [2**24, 40])
def test_gradients_equal_those_of_materialised_edits(form, exponent, floats, monkeypatch):
    monkeypatch.setattr(scoring, "_GRADIENT_FLOATS", floats)
    directions, indices, values, x, b, u, mask = problem(7, 5, 6, 12, 20, 4, 0.3)
    mask = mask.clamp(0.05, 0.95)
    weight = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))

    fast_mask, fast_u = mask.clone().requires_grad_(), u.clone().requires_grad_()
    (exact(form, directions, indices, values, x, b, fast_u, fast_mask, exponent) * weight).sum().backward()

    slow_mask, slow_u = mask.double().requires_grad_(), u.double().requires_grad_()
    codes = torch.zeros(5, 20, dtype=torch.float64).scatter_add_(1, indices, values.double())
    base, kept = (x.double(), slow_mask - 1) if form == "residual" else (b.double().expand(5, -1), slow_mask)
    edited = base.unsqueeze(1) + (codes.unsqueeze(1) * kept) @ directions.double()
    lengths = x.double().norm(dim=1, keepdim=True)
    relative = edited.norm(dim=2) / lengths
    scores = (edited * slow_u).sum(2) / lengths / relative**exponent
    (scores * weight).sum().backward()

    torch.testing.assert_close(fast_mask.grad.double(), slow_mask.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fast_u.grad.double(), slow_u.grad, atol=1e-5, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), images=st.integers(1, 4), texts=st.integers(1, 4), width=st.integers(1, 16))
def test_gated_lengths(seed, images, texts, width):
    draw = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.normalize(torch.randn(images, width, generator=draw), dim=1)
    gate = torch.rand(texts, width, generator=draw)
    expected = (x.double().unsqueeze(1) * gate.double()).norm(dim=2).clamp_min(MIN_LENGTH)
    torch.testing.assert_close(scoring.gated_lengths(x, gate).double(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("inference", [False, True])
def test_threads_change_neither_scores_nor_settings(inference):
    parts = problem(8, 30, 300, 16, 50, 6, 0.2)
    whole = exact("residual", *parts, 1.0)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with torch.inference_mode(inference):
            assert torch.equal(exact("residual", *parts, 1.0), whole)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_an_error_in_a_thread_is_raised():
    def refuse(share: int) -> None:
        raise ValueError(f"share {share}")

    with pytest.raises(ValueError, match="share"):
        in_threads(refuse, [0, 1])
