"""The command `boresight sae`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from boresight.sae.config import SaeOptions


@dataclass(frozen=True, kw_only=True)
class Sae:
    """Fit a sparse autoencoder on one split and print its measures. After a stop, the same command continues."""

    embeddings: Annotated[Path, tyro.conf.Positional]
    """Folder written by 'boresight embed'."""
    out: Path
    """Folder for the autoencoder; during the fit, OUT.checkpoint beside it holds the state."""
    split: str = "train"
    """Split to fit on."""
    options: Annotated[SaeOptions, tyro.conf.arg(name="")] = field(default_factory=SaeOptions)
    device: str | None = None
    """Device to compute on, such as 'cpu' or 'cuda:1'; left out: the best device of this machine."""

    def run(self) -> None:
        """Fit, save, measure."""
        import shutil

        from boresight.embeddings import Embeddings
        from boresight.sae import SparseAutoencoder, measure_sae
        from boresight.storage import check_place

        check_place(self.out, "sae")
        folder = self.out.resolve()
        checkpoint = folder.with_name(f"{folder.name}.checkpoint")
        embeddings = Embeddings.load(self.embeddings)
        sae = SparseAutoencoder.fit(
            embeddings.split(self.split), device=self.device, checkpoint=checkpoint, **vars(self.options)
        )
        sae.save(self.out)
        shutil.rmtree(checkpoint, ignore_errors=True)
        for split in dict.fromkeys(embeddings.splits):
            measures = measure_sae(sae, embeddings.split(split)).to_dict()
            print(f"{split}: " + ", ".join(f"{name} {value:.3f}" for name, value in measures.items()))
        print(f"Autoencoder: {self.out}")
