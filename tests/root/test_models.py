"""The shipped autoencoder and editor belong to the shipped model and edit its embeddings."""

from __future__ import annotations

import torch

from boresight import CaptionEditor, SparseAutoencoder, embed, load_encoder
from boresight.data import make_scenes
from boresight.models import default_editor_path, default_model_path, default_sae_path


def test_the_shipped_artefacts_fit_together() -> None:
    encoder = load_encoder(str(default_model_path()), dtype="float32")
    embeddings = embed(encoder, make_scenes(6, seed=9), dtype="float32")
    sae, editor = SparseAutoencoder.load(default_sae_path()), CaptionEditor.load(default_editor_path())
    sae.require_same_encoder(embeddings)
    editor.require_same_encoder(embeddings)
    assert torch.equal(sae.directions, editor.sae.directions)
    masks = editor.mask(embeddings.texts)
    assert masks.shape == (len(embeddings.texts), sae.n_latents)
    assert float(masks.std(0).max()) > 0.01, "the mask does not depend on the caption"
    edited = editor.edit(embeddings.images[embeddings.owners], embeddings.texts)
    assert not torch.allclose(edited, embeddings.images[embeddings.owners].float())
