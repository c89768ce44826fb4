"""An autoencoder that was fitted elsewhere, from its tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.editing import CaptionEditor
from boresight.errors import ArtefactError, InputError
from boresight.sae import SparseAutoencoder
from retrieval_world import noisy

N, D = 12, 5


def drawn(seed: int, *, unit: bool) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    sizes = {"encoder_weight": (N, D), "encoder_bias": (N,), "directions": (N, D), "bias": (D,)}
    tensors = {name: torch.randn(*size, generator=draw, dtype=torch.float64) for name, size in sizes.items()}
    length = tensors["directions"].norm(dim=1, keepdim=True)
    tensors["directions"] = 3 * tensors["directions"] / length if unit else tensors["directions"]
    return tensors


@given(st.integers(0, 2**31), st.sampled_from(["topk", "matryoshka", "jumprelu", "batchtopk"]), st.integers(1, N))
@settings(max_examples=60, deadline=None)
def test_every_reconstruction_stays(seed: int, architecture: str, k: int) -> None:
    """Against the rule as it is written, in float64, with directions that are not of unit length."""
    thresholded = architecture in ("jumprelu", "batchtopk")
    tensors = drawn(seed, unit=not thresholded)
    draw = torch.Generator().manual_seed(seed + 1)
    threshold = torch.rand(N, generator=draw, dtype=torch.float64) if thresholded else None
    x = torch.randn(20, D, generator=draw, dtype=torch.float64)
    pre = (x - tensors["bias"]) @ tensors["encoder_weight"].T + tensors["encoder_bias"]
    z = pre.relu()
    if threshold is not None:
        z, k = z * (pre > threshold), N
    else:
        z = torch.zeros_like(z).scatter(1, z.topk(k, dim=1).indices, z.topk(k, dim=1).values)
    expected = z @ tensors["directions"] + tensors["bias"]
    sae = SparseAutoencoder.from_tensors(**tensors, k=k, architecture=architecture, threshold=threshold)
    codes = sae.encode(x.float())
    torch.testing.assert_close(sae.decode(codes), expected.float(), atol=1e-4, rtol=1e-4)
    lengths = tensors["directions"].norm(dim=1)
    torch.testing.assert_close(codes.dense(), (z * lengths).float(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(sae.directions.norm(dim=1), torch.ones(N))


def test_it_serves_an_editor_and_a_folder(tmp_path) -> None:
    tensors = {name: tensor.numpy() for name, tensor in drawn(0, unit=True).items()}
    sae = SparseAutoencoder.from_tensors(**tensors, k=3, encoder="mine")
    assert not any(parameter.requires_grad for parameter in sae.parameters())
    sae.save(tmp_path / "sae")
    assert SparseAutoencoder.load(tmp_path / "sae").fingerprint == sae.fingerprint
    embeddings = noisy(40, 1.0, width=D)
    editor = CaptionEditor.fit(sae, embeddings.select(range(30)), embeddings.select(range(30, 40)), steps=5)
    assert editor.score(embeddings.images, embeddings.texts).shape == (40, 80)
    with pytest.raises(ArtefactError, match="'mine'"):
        sae.require_same_encoder(
            type(embeddings).from_arrays(embeddings.images, embeddings.texts, [0] * 80, encoder="x")
        )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"encoder_weight": np.zeros((D, N))},
            r"encoder_weight has shape \(5, 12\); beside 12 directions of width 5 it",
        ),
        ({"bias": np.zeros(N)}, r"bias has shape \(12,\)"),
        ({"directions": np.zeros(N)}, r"directions has shape \(12,\); \(n, d\) is needed"),
        ({"directions": np.zeros((N, D))}, "Direction 0 is all zero"),
        (
            {"directions": np.diag(range(1, 13))[:, :12], "encoder_weight": np.eye(12), "bias": np.ones(12)},
            "1 to 12 long",
        ),
        ({"encoder_bias": np.full(N, np.nan)}, "encoder_bias holds NaN or infinity"),
        ({"threshold": np.zeros(N)}, "'topk' has no threshold; leave it out"),
        ({"architecture": "jumprelu"}, "'jumprelu' needs a threshold"),
        ({"architecture": "relu"}, "architecture"),
        ({"k": 13}, "k is 13"),
        ({"bias": "none"}, "bias cannot be read as numbers"),
    ],
)
def test_tensors_that_do_not_fit(change, said: str) -> None:
    with pytest.raises(InputError, match=said):
        SparseAutoencoder.from_tensors(**{**drawn(0, unit=True), "k": 3, **change})
