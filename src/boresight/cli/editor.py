"""boresight editor"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Editor:
    """Fit a caption editor: what a caption keeps of the latents of an image."""

    embeddings: Annotated[Path, tyro.conf.Positional]
    """Folder written by 'boresight embed'."""
    sae: Path
    """Folder written by 'boresight sae'."""
    out: Path
    """Folder for the editor."""
    train: str = "train"
    """Split to fit on; never the images that the encoder was fitted on."""
    validation: str = "validation"
    """Split to choose on."""
    form: Literal["gated", "residual", "reconstruct", "raw", "plain"] | None = None
    """Form of the edit; 'raw' and 'plain' are the opponents without an autoencoder and without an edit."""
    memory: Literal["none", "text", "both"] | None = None
    """Whether the editor keeps training pairs and moves captions ('text') or images too ('both') by them."""
    text: Literal["frozen", "finetuned"] = "finetuned"
    seed: int = 0
    device: str | None = None

    def run(self) -> None:
        from boresight.editing import CaptionEditor
        from boresight.embeddings import Embeddings
        from boresight.sae import SparseAutoencoder
        from boresight.storage import check_place

        check_place(self.out, "editor")
        embeddings = Embeddings.load(self.embeddings)
        editor = CaptionEditor.fit(
            SparseAutoencoder.load(self.sae),
            embeddings.split(self.train),
            embeddings.split(self.validation),
            form=self.form,
            memory=self.memory,
            text=self.text,
            seed=self.seed,
            device=self.device,
        )
        editor.save(self.out)
        print(f"Editor: {self.out}")
