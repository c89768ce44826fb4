"""boresight demo"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The whole job: embed, fit an autoencoder and an editor, measure plain against edited, write a report."""

    collection: Annotated[str, tyro.conf.Positional] = "emoji"
    """Folder, captions file, shards, parquet or Hugging Face dataset; 'emoji' and 'scenes' are built in."""
    encoder: str | None = None
    """Hub name or folder of a CLIP or SigLIP model; the one that ships with boresight if left out."""
    out: Path = Path("runs/demo")
    """Folder for embeddings, autoencoder, editor and figures."""
    report: Path = Path("report.html")
    """The page to write."""
    seeds: tuple[int, ...] = (0, 1, 2)
    n_latents: int = 1024
    k: int = 32
    device: str | None = None
    on_error: Literal["skip", "refuse"] = "skip"
    """What to do with a corrupt picture, a missing file, an empty caption or a duplicate id."""

    def run(self) -> None:
        print("")
