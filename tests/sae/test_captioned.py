"""What captions say as rows beside the images: against plain ridge regression, and what the latents gain by it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.sae import SparseAutoencoder
from boresight.sae.captioned import RIDGE, captioned_rows


def pairs(images: int, captions: int, width: int = 6, seed: int = 0) -> Embeddings:
    draw = torch.Generator().manual_seed(seed)
    x, t = torch.randn(images, width, generator=draw), torch.randn(captions, width, generator=draw)
    owners = torch.randint(images, (captions,), generator=draw)
    return Embeddings.from_arrays(x, t + 2 * x[owners], owners)


@pytest.mark.parametrize("block", [4, 1000])
def test_guesses_are_ridge_regression_that_spreads_as_far_as_the_images(block):
    embeddings = pairs(9, 30)
    rows = captioned_rows(embeddings, block=block)
    t = F.normalize(embeddings.texts.double(), dim=1)
    x = embeddings.images.double()[embeddings.owners]
    centred, wanted = t - t.mean(0), x - x.mean(0)
    gram = centred.T @ centred
    weights = torch.linalg.inv(gram + RIDGE * gram.diagonal().mean() * torch.eye(6).double()) @ centred.T @ wanted
    guessed = centred @ weights
    guessed = x.mean(0) + guessed * wanted.norm() / guessed.norm()
    assert len(rows) == 39
    torch.testing.assert_close(rows[:9], embeddings.images.float())
    torch.testing.assert_close(rows[9:], guessed.float(), atol=1e-4, rtol=1e-4)
    mixed = torch.tensor([30, 2, 11, 0])
    torch.testing.assert_close(rows[mixed], rows[:][mixed])


def test_latents_fitted_on_captions_too_mix_less():
    """A picture has one value of each of three attributes, and a caption tells one of them."""
    draw = torch.Generator().manual_seed(1)
    values = F.normalize(torch.randn(12, 16, generator=draw), dim=1)
    shown = torch.stack([4 * kind + torch.randint(4, (600,), generator=draw) for kind in range(3)], dim=1)
    x = values[shown].sum(1) + 0.01 * torch.randn(600, 16, generator=draw)
    told = shown[torch.arange(600), torch.randint(3, (600,), generator=draw)]
    embeddings = Embeddings.from_arrays(x, F.normalize(torch.randn(12, 16, generator=draw), dim=1)[told], range(600))
    centred = values - values.view(3, 4, 16).mean(1).repeat_interleave(4, 0)
    purity = {}
    for captions in (False, True):
        sae = SparseAutoencoder.fit(embeddings, n_latents=32, k=3, steps=600, captions=captions)
        assert sae.manifest["rows"] == 600
        purity[captions] = float((sae.directions @ F.normalize(centred, dim=1).T).max(0).values.mean())
    assert purity[True] > 0.95 > purity[False] + 0.05


def test_bad_input_is_named():
    embeddings = pairs(9, 30)
    with pytest.raises(InputError, match="read off `Embeddings` alone; pass them, or leave `captions` out"):
        SparseAutoencoder.fit(embeddings.images, n_latents=8, k=2, captions=True)
    none = Embeddings.from_arrays(embeddings.images, torch.zeros(0, 6), [])
    with pytest.raises(InputError, match="have no captions; leave `captions` out"):
        SparseAutoencoder.fit(none, n_latents=8, k=2, captions=True)
    same = Embeddings.from_arrays(embeddings.images, embeddings.texts[:1].expand(9, 6), range(9))
    with pytest.raises(InputError, match="The captions tell nothing of these images"):
        SparseAutoencoder.fit(same, n_latents=8, k=2, captions=True)
