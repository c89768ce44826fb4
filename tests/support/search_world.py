"""Editors of every form, with memories and corrections, for tests of the index."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from boresight.editing import CaptionEditor, Correction, EditorConfig
from boresight.editing.memory import Memory
from boresight.embeddings import Embeddings
from editing_world import world, world_sae

NNN = Correction(method="nnn", reach=3.0, share=0.5)
CONFIGS = {
    "gated": EditorConfig(form="gated"),
    "gated, both memories": EditorConfig(form="gated", memory="both", image_correction=NNN, text_correction=NNN),
    "gated, divided": EditorConfig(form="gated", length_exponent=1.0, memory="text"),
    "gated, taught": EditorConfig(form="gated", teacher="presence", memory="both", image_correction=NNN),
    "gated, taught, divided": EditorConfig(form="gated", teacher="presence", length_exponent=0.5),
    "residual, taught": EditorConfig(form="residual", teacher="presence", memory="text", text_correction=NNN),
    "reconstruct": EditorConfig(form="reconstruct", memory="both"),
    "raw, divided": EditorConfig(form="raw", length_exponent=1.0),
    "plain": EditorConfig(form="plain", memory="text"),
}


def editor_of(name: str, seed: int = 0) -> CaptionEditor:
    """An editor of this form with random weights: all of its parts do something."""
    config = CONFIGS[name]
    sae = world_sae()
    editor = CaptionEditor(sae, config, {"encoder": "world"})
    draw = torch.Generator().manual_seed(seed)
    if editor.memory is not None:
        pairs = world(sae, 30, 9)
        texts = torch.stack([pairs.texts[pairs.owners == row].mean(0) for row in range(30)])
        editor.memory = Memory(F.normalize(pairs.images, dim=1), texts, pairs.ids)
    with torch.no_grad():
        for parameter in editor.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn(parameter.shape, generator=draw)
        editor.dials.copy_(torch.tensor([0.5, -0.5]))
        editor.usual.copy_(torch.rand(sae.n_latents, generator=draw))
    return editor.requires_grad_(False)


def stretched(embeddings: Embeddings, seed: int = 0) -> Embeddings:
    """The same images, of lengths other than one."""
    lengths = 0.5 + 2 * torch.rand(len(embeddings), 1, generator=torch.Generator().manual_seed(seed))
    return Embeddings.from_arrays(
        embeddings.images * lengths,
        embeddings.texts,
        embeddings.owners,
        ids=embeddings.ids,
        captions=embeddings.captions,
        splits=["test" if row % 3 else "train" for row in range(len(embeddings))],
        encoder="world",
    )
