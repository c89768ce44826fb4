"""The peers of M2IB on towers so plain that every map can be written down."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from attribution_world import planted, shapley
from boresight.attribution.methods.attention import AttentionRollout, Chefer, LeGrad
from boresight.attribution.methods.gradients import GradCam, GradientXInput, IntegratedGradients
from boresight.attribution.methods.perturbation import KernelShap, Occlusion
from boresight.encoders.towers.tower import Towers


def closed_form(towers: Towers, images: dict, texts: dict) -> tuple:
    """In float64: (u (2, d), what each token adds to it (2, N, d), unit embedding of the caption (2, d), bias (d,))."""
    hidden = towers.image.lower(images, 0)
    head, tokens = towers.image.head, hidden.states.shape[1]
    bias = head(torch.zeros(hidden.states.shape[-1]))
    parts = (head(hidden.states) - bias) / tokens
    parts[:, 0] += head(hidden.states[:, 0]) - bias
    other = F.normalize(towers.text.upper(towers.text.lower(texts, 0)), dim=-1)
    return (bias + parts.sum(1)).double(), parts.double(), other.double(), bias.double()


def parts_by_head(towers: Towers, images: dict) -> torch.Tensor:
    """(2, patches, heads, d), what each of two attention heads adds to u."""
    states = towers.image.lower(images, 0).states
    head, width = towers.image.head, states.shape[-1]
    own = torch.eye(2).repeat_interleave(width // 2, dim=1)
    split = head(states[:, 1:, None] * own) - head(torch.zeros(width))
    return split.double() / states.shape[1]


def slope(u: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """d cos(u, other) / d u."""
    length = u.norm(dim=-1, keepdim=True)
    return (other - (u * other).sum(-1, keepdim=True) / length * u / length) / length


def test_closed_forms() -> None:
    towers, images, texts = planted()
    u, parts, other, bias = closed_form(towers, images, texts)
    patches = parts[:, 1:]

    def of(method) -> torch.Tensor:
        return method.attribute(**images, **texts, target="image")[0].flatten(1).double()

    def cos(x: torch.Tensor) -> torch.Tensor:
        return F.cosine_similarity(x, other, dim=-1)

    grads = torch.einsum("bd,bnd->bn", slope(u, other), parts)
    torch.testing.assert_close(of(GradientXInput(towers)), grads[:, 1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(of(GradCam(towers)), grads[:, 1:].relu(), atol=1e-5, rtol=0)
    halves = torch.einsum("bd,bnhd->bnh", slope(u, other), parts_by_head(towers, images))
    torch.testing.assert_close(halves.sum(-1), grads[:, 1:], atol=1e-6, rtol=0)
    for method in (LeGrad(towers), Chefer(towers)):  # the same where attention is uniform
        torch.testing.assert_close(of(method), halves.relu().mean(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(of(AttentionRollout(towers)), torch.full((2, 6), 1 / 14).double(), atol=1e-6, rtol=0)
    drops = torch.stack([cos(u) - cos(u - patches[:, n]) for n in range(6)], 1)
    torch.testing.assert_close(of(Occlusion(towers)), drops, atol=1e-5, rtol=0)

    points = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    path = torch.stack([slope(bias + share * (u - bias), other) for share in points]).mean(0)
    integrated = torch.einsum("bd,bnd->bn", path, parts)
    torch.testing.assert_close(of(IntegratedGradients(towers, steps=64)), integrated[:, 1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(integrated.sum(1), cos(u) - cos(bias.expand(2, -1)), atol=1e-6, rtol=0)

    for row in range(2):
        rest = u[row] - patches[row].sum(0)
        exact = shapley(6, lambda kept, row=row, rest=rest: cos(rest + patches[row, list(kept)].sum(0))[row])
        torch.testing.assert_close(of(KernelShap(towers, n_samples=62))[row], exact, atol=1e-5, rtol=0)


def test_methods_agree_where_the_cosine_is_nearly_linear() -> None:
    towers, images, texts = planted()
    faint = {"pixel_values": images["pixel_values"] * 1e-2}
    by_gradient, *others = (
        method.attribute(**faint, **texts, target="image")[0]
        for method in (GradientXInput(towers), Occlusion(towers), KernelShap(towers))
    )
    for found in others:
        assert float((found - by_gradient).abs().max()) < 0.03 * float(by_gradient.abs().max())
