"""boresight sae"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Sae:
    """Fit a sparse autoencoder on the images of one split, print its measures. Stopped, the same command goes on."""

    embeddings: Annotated[Path, tyro.conf.Positional]
    """Folder written by 'boresight embed'."""
    out: Path
    """Folder for the autoencoder; until it is there, OUT.checkpoint beside it holds what was done."""
    split: str = "train"
    n_latents: int = 4096
    k: int = 32
    """Active latents of an image."""
    architecture: Literal["topk", "batchtopk", "jumprelu", "matryoshka"] = "topk"
    seed: int = 0
    device: str | None = None

    def run(self) -> None:
        import shutil

        from boresight.embeddings import Embeddings
        from boresight.sae import SparseAutoencoder, measure_sae
        from boresight.storage import check_place

        check_place(self.out, "sae")
        place = self.out.resolve()
        checkpoint = place.with_name(f"{place.name}.checkpoint")
        embeddings = Embeddings.load(self.embeddings)
        sae = SparseAutoencoder.fit(
            embeddings.split(self.split),
            n_latents=self.n_latents,
            k=self.k,
            architecture=self.architecture,
            seed=self.seed,
            device=self.device,
            checkpoint=checkpoint,
        )
        sae.save(self.out)
        shutil.rmtree(checkpoint, ignore_errors=True)
        for split in dict.fromkeys(embeddings.splits):
            measures = measure_sae(sae, embeddings.split(split)).to_dict()
            print(f"{split}: " + ", ".join(f"{name} {value:.3f}" for name, value in measures.items()))
        print(f"Autoencoder: {self.out}")
