"""`boresight demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from boresight.data import Collection


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The whole job: embed, fit an autoencoder and an editor, compare plain with edited, write a report."""

    collection: Annotated[str, tyro.conf.Positional] = "emoji"
    """Folder, captions file, shards, parquet or Hugging Face dataset; 'emoji' and 'scenes' are built in."""
    encoder: str | None = None
    """Hub name or folder of a CLIP or SigLIP model; left out: the one that ships with boresight."""
    out: Path = Path("runs/demo")
    """Folder for embeddings, autoencoder, editor and figures."""
    report: Path = Path("report.html")
    """The page to write."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """The job runs once per seed; figures are means with their spread."""
    n_latents: int | None = None
    """Latents of the autoencoder; left out: a third of the images as a power of two, between 128 and 4,096."""
    k: int = 32
    """Active latents of an image."""
    device: str | None = None
    """Device to compute on, such as 'cpu' or 'cuda:1'; left out: the best device of this machine."""
    on_error: Literal["skip", "refuse"] = "skip"
    """What to do with a corrupt picture, a missing file, an empty caption or a duplicate id."""

    def run(self) -> None:
        """Run the main job and say where its figures and page are."""
        import time

        from boresight.cli.sources import open_encoder
        from boresight.demo import run_job
        from boresight.progress import say

        started = time.monotonic()
        encoder = open_encoder(self.encoder, device=self.device, dtype="auto", of=self.collection)
        collection = self._collection()
        job = run_job(
            encoder,
            collection,
            self.out,
            self.report,
            seeds=self.seeds,
            n_latents=self.n_latents,
            k=self.k,
            device=self.device,
            on_error=self.on_error,
        )
        print(job.names)
        print(job.comparison)
        say(f"{time.monotonic() - started:.0f} s; figures and models in {self.out}, the page in {self.report}")

    def _collection(self) -> Collection:
        from boresight.cli.sources import open_collection
        from boresight.errors import BoresightError
        from boresight.progress import say

        try:
            return open_collection(self.collection, on_error=self.on_error)
        except BoresightError as error:
            if self.collection != "emoji":
                raise
            say(f"No emoji here: {error} The demo runs on the generated world 'scenes' instead.")
            return open_collection("scenes")
