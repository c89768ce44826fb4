"""The editor that other tests use belongs to the shipped model and edits its embeddings."""

from __future__ import annotations

import torch

from boresight import CaptionEditor, embed, load_encoder
from boresight.data import make_scenes
from boresight.models import default_model_path
from tiny_editor import TINY_EDITOR


def test_the_editor_fits_the_shipped_model() -> None:
    encoder = load_encoder(str(default_model_path()), dtype="float32")
    embeddings = embed(encoder, make_scenes(6, seed=9), dtype="float32")
    editor = CaptionEditor.load(TINY_EDITOR)
    editor.require_same_encoder(embeddings)
    editor.require_same_encoder(encoder)
    masks = editor.mask(embeddings.texts)
    assert masks.shape == (len(embeddings.texts), editor.sae.n_latents)
    assert float(masks.std(0).max()) > 0.01, "the mask does not depend on the caption"
    edited = editor.edit(embeddings.images[embeddings.owners], embeddings.texts)
    assert not torch.allclose(edited, embeddings.images[embeddings.owners].float())
