"""Directions of two fits: order plays no part, noise does, two shapes are refused."""

from __future__ import annotations

import pytest
import torch

from boresight.errors import InputError
from boresight.sae import SparseAutoencoder
from boresight.sae.config import SaeConfig
from sae_stability import stability


def random_sae(width: int = 6, n_latents: int = 20, k: int = 3, seed: int = 0) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(seed)
    sae = SparseAutoencoder(SaeConfig(width=width, n_latents=n_latents, k=k))
    sae.directions.copy_(torch.nn.functional.normalize(torch.randn(n_latents, width, generator=generator), dim=1))
    return sae


def test_stability_sees_through_order_and_falls_with_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = random_sae(), random_sae()
    second.directions.copy_(second.directions[torch.randperm(20, generator=torch.Generator().manual_seed(0))])
    assert stability(first, second) == pytest.approx(1.0)
    other = random_sae(seed=5)
    # The best of all one-to-one matchings cannot be worse than the given order.
    in_order = float((first.directions * other.directions).sum(1).abs().mean())
    matched = stability(first, other)
    assert in_order < matched < 0.95
    monkeypatch.setattr("sae_stability.HUNGARIAN_UP_TO", 4)
    nearest = stability(first, other)
    assert matched <= nearest < 1.0
    assert nearest == pytest.approx(stability(other, first))
    with pytest.raises(InputError, match="20 latents of width 6 and 8 of width 6"):
        stability(first, random_sae(n_latents=8))
