"""Measures against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boresight.embeddings import Embeddings
from boresight.sae import SaeMeasures, SparseAutoencoder, measure_sae, retrieval_kept
from boresight.sae.config import SaeConfig


def random_sae(width: int = 6, n_latents: int = 20, k: int = 3, seed: int = 0) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(seed)
    sae = SparseAutoencoder(SaeConfig(width=width, n_latents=n_latents, k=k))
    sae.encoder_weight.copy_(torch.randn(n_latents, width, generator=generator))
    sae.encoder_bias.copy_(0.3 * torch.randn(n_latents, generator=generator))
    sae.directions.copy_(torch.nn.functional.normalize(torch.randn(n_latents, width, generator=generator), dim=1))
    sae.bias.copy_(0.3 * torch.randn(width, generator=generator))
    return sae


def rows(count: int, width: int = 6, seed: int = 1, offset: float = 0.0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + offset


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 40), st.integers(0, 99), st.sampled_from([0.0, 100.0]), st.sampled_from([3, 16384]))
def test_measures_are_their_definitions(count: int, seed: int, offset: float, block: int) -> None:
    sae, x = random_sae(), rows(count, seed=seed, offset=offset)
    found = measure_sae(sae, x, block=block)
    dense = sae.encode(x).dense()
    decoded = (dense @ sae.directions + sae.bias).double()
    wide = x.double()
    unexplained = (wide - decoded).square().sum() / (wide - wide.mean(0)).square().sum()
    assert found.explained_variance == pytest.approx(1 - float(unexplained), rel=1e-4, abs=1e-4)
    assert found.l0 == pytest.approx(float((dense > 0).sum(1).double().mean()))
    assert found.dead_share == pytest.approx(float(((dense > 0).sum(0) == 0).double().mean()))
    assert found.cosine == pytest.approx(float(torch.cosine_similarity(wide, decoded).mean()), abs=1e-4)
    assert set(found.to_dict()) == {"explained_variance", "l0", "dead_share", "cosine"}


def test_the_constant_mean_explains_nothing() -> None:
    # Features of very different means: a variance taken over features would call this a good reconstruction.
    x = rows(200) + torch.tensor([50.0, -30.0, 10.0, 0.0, 5.0, -7.0])
    sae = SparseAutoencoder(SaeConfig(width=6, n_latents=20, k=3))
    sae.bias.copy_(x.mean(0))
    assert abs(measure_sae(sae, x).explained_variance) < 1e-5


def test_unknown_measures_stay_out_of_the_dictionary() -> None:
    assert "retrieval_kept_r1" not in SaeMeasures(0.5, 3.0, 0.0, 0.9, math.nan, 1.0).to_dict()
    same = measure_sae(random_sae(), torch.ones(4, 6))
    assert "explained_variance" not in same.to_dict()


def test_retrieval_kept_is_one_for_a_perfect_autoencoder_and_falls_for_a_blind_one() -> None:
    x = rows(60)
    embeddings = Embeddings.from_arrays(x, x + 0.1 * rows(60, seed=3), np.arange(60))
    perfect = SparseAutoencoder(SaeConfig(width=6, n_latents=12, k=6))
    perfect.encoder_weight.copy_(torch.cat([torch.eye(6), -torch.eye(6)]))
    perfect.directions.copy_(perfect.encoder_weight)
    assert retrieval_kept(perfect, embeddings) == pytest.approx({1: 1.0, 10: 1.0})
    blind = SparseAutoencoder(SaeConfig(width=6, n_latents=12, k=6))
    blind.bias.fill_(1.0)
    kept = retrieval_kept(blind, embeddings)
    assert kept[1] == pytest.approx(1 / 60)  # all images tied: chance
    measures = measure_sae(perfect, embeddings)
    assert measures.retrieval_kept_r1 == pytest.approx(1.0)
    assert measures.explained_variance == pytest.approx(1.0)
    fewer = retrieval_kept(perfect, embeddings, at_most=10)
    assert fewer == pytest.approx({1: 1.0, 10: 1.0})
    few = Embeddings.from_arrays(x, x[:2], [17, 3])  # the captions of images that an even sample would miss
    assert retrieval_kept(perfect, few, at_most=10) == pytest.approx({1: 1.0, 10: 1.0})
    assert all(math.isnan(value) for value in retrieval_kept(perfect, Embeddings.from_arrays(x, x[:0], [])).values())
