"""A small world in which captions describe a part of each image, for tests of the caption editor."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from boresight.embeddings import Embeddings
from boresight.sae import SparseAutoencoder
from boresight.sae.config import SaeConfig

ATTRIBUTES = 48
WIDTH = 24
PRESENT = 6
SAID = 2


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """For a test file to import; it holds for all of its tests."""
    monkeypatch.setenv("BORESIGHT_QUIET", "1")


@pytest.fixture(scope="module", name="sae")
def sae_fixture():
    """For a test file to import; its tests ask for `sae`."""
    return world_sae()


def world_sae(seed: int = 0, bias: float = 0.02) -> SparseAutoencoder:
    """An autoencoder whose latents are the world's attributes: random directions, tied encoder, k = PRESENT."""
    draw = torch.Generator().manual_seed(seed)
    directions = F.normalize(torch.randn(ATTRIBUTES, WIDTH, generator=draw), dim=1)
    sae = SparseAutoencoder(SaeConfig(width=WIDTH, n_latents=ATTRIBUTES, k=PRESENT), {"encoder": "world"})
    state = sae.state_dict()
    state["directions"], state["encoder_weight"] = directions, directions
    state["bias"] = bias * torch.randn(WIDTH, generator=draw)
    sae.load_state_dict(state)
    return sae


def world(sae: SparseAutoencoder, images: int, seed: int, captions: int = 2, name: str = "w") -> Embeddings:
    """Images that hold PRESENT attributes and captions that say SAID of them; ragged, unit length."""
    draw = torch.Generator().manual_seed(1000 + seed)
    directions = sae.directions.detach()
    present = torch.stack([torch.randperm(ATTRIBUTES, generator=draw)[:PRESENT] for _ in range(images)])
    strength = 0.5 + torch.rand(images, PRESENT, generator=draw)
    pictures = F.normalize((directions[present] * strength.unsqueeze(2)).sum(1), dim=1)
    owners = torch.repeat_interleave(torch.arange(images), 1 + torch.arange(images) % captions)
    slots = torch.stack([torch.randperm(PRESENT, generator=draw)[:SAID] for _ in owners])
    said = present[owners].gather(1, slots)
    texts = F.normalize(directions[said].sum(1) + 0.1 * torch.randn(len(owners), WIDTH, generator=draw), dim=1)
    return Embeddings.from_arrays(
        pictures,
        texts,
        owners,
        ids=[f"{name}{seed}-{i}" for i in range(images)],
        captions=[" ".join(f"a{index}" for index in sorted(row)) for row in said.tolist()],
        encoder="world",
    )
