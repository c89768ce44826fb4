"""`boresight compare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Test whether an edit helps: fit editors and alternatives over seeds, print all rows and a verdict.

    Fits on the split 'train', chooses on 'validation', reports on the test splits. After a stop, the same command
    continues.
    """

    embeddings: Annotated[Path, tyro.conf.Positional]
    """Folder written by 'boresight embed'."""
    out: Path = Path("runs/compare")
    """Folder for autoencoders, editors and figures."""
    html: Path | None = None
    """The page to write; left out: comparison.html in that folder."""
    test: tuple[str, ...] = ()
    """Splits to report on; left out: all whose names begin with 'test'."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """The job runs once per seed; figures are means with their spread."""
    n_latents: int | None = None
    """Latents of the autoencoder; left out: a third of the images as a power of two, between 128 and 4,096."""
    k: int = 32
    """Active latents of an image."""
    device: str | None = None
    """Device to compute on, such as 'cpu' or 'cuda:1'; left out: the best device of this machine."""

    def run(self) -> None:
        """Compare, and say where figures and page are."""
        from boresight.demo import compare_embeddings
        from boresight.embeddings import Embeddings
        from boresight.progress import say

        page = self.html or self.out / "comparison.html"
        job = compare_embeddings(
            Embeddings.load(self.embeddings),
            self.out,
            page,
            tests=self.test,
            seeds=self.seeds,
            n_latents=self.n_latents,
            k=self.k,
            device=self.device,
        )
        if job.names is not None:
            print(job.names)
        print(job.comparison)
        say(f"Figures and models in {self.out}, the page in {page}")
