"""The command `boresight editor`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from boresight.editing.config import EditorOptions

FEW = 750  # see docs/results/how-many-pictures.md


@dataclass(frozen=True, kw_only=True)
class Editor:
    """Fit a caption editor: it learns which latents of an image a caption keeps."""

    embeddings: Annotated[Path, tyro.conf.Positional]
    """Folder written by 'boresight embed'."""
    sae: Path
    """Folder written by 'boresight sae'."""
    out: Path
    """Folder for the editor."""
    train: str = "train"
    """Split to fit on; its images must not be those that the encoder was fitted on."""
    validation: str = "validation"
    """Split to choose on."""
    options: Annotated[EditorOptions, tyro.conf.arg(name="")] = field(default_factory=EditorOptions)
    device: str | None = None
    """Device to compute on, such as 'cpu' or 'cuda:1'; left out: the best device of this machine."""

    def run(self) -> None:
        """Fit and save."""
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
            device=self.device,
            **vars(self.options),
        )
        editor.save(self.out)
        print(_chosen(editor.manifest["tried"], editor.manifest["history"][0]["recall_sum"]))
        if (images := len(embeddings.split(self.train))) < FEW:
            print(
                f"Warning: {images:,} images to learn from. Below some {FEW} an editor seldom beats a correction of "
                "hubness alone; 'boresight evaluate' on a test set says whether this one does."
            )
        print(f"Editor: {self.out}")


def _chosen(tried: Mapping[str, float], before: float) -> str:
    """What won on validation, and by how much."""
    (best, reached), *others = sorted(tried.items(), key=lambda item: -item[1])
    form, exponent, memory = best.split()
    words = (
        f"Chosen on validation: {form}, {'undivided' if exponent == '0' else f'length exponent {exponent}'}, memory "
        f"{memory}. Sum of six recalls there {reached:.1f}, plain cosine {before:.1f}"
    )
    return f"{words}; {reached - others[0][1]:.1f} above the next of {len(tried)} forms." if others else f"{words}."
