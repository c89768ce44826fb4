"""The command `boresight tune`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Tune:
    """Find how many candidates 'boresight search' needs for a wished recall, measured against the exact search.

    Example: boresight tune INDEX queries.txt --recall 0.99 --keep
    """

    index: Annotated[Path, tyro.conf.Positional]
    """Folder written by 'boresight index --graph'."""
    queries: Annotated[Path | None, tyro.conf.Positional] = None
    """Text file of sentences as users ask them, a line each; left out: captions of the index, drawn by --seed."""
    recall: float = 0.95
    """Share of the best answers that approximate searches are to find on average."""
    k: int = 10
    """Number of best answers that count."""
    sample: int = 200
    """Number of captions drawn where no queries are named."""
    seed: int = 0
    """Seed of that draw."""
    keep: bool = False
    """Write the setting into the index, for 'boresight search --candidates tuned'."""
    encoder: str | None = None
    """Encoder that made the embeddings; left out: the one that the index names."""
    device: str | None = None
    """Device to compute on, such as 'cpu' or 'cuda:1'; left out: the best device of this machine."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """Precision of the model; 'auto' is half precision on a GPU and float32 elsewhere."""

    def run(self) -> None:
        """Try, print, keep."""
        from boresight.cli.sources import open_index
        from boresight.errors import InputError
        from boresight.search.tuning import sampled_captions

        index = open_index(self.index, self.encoder, device=self.device, dtype=self.dtype)
        if self.queries is None:
            sentences = sampled_captions(index.snapshot(), self.sample, self.seed)
        else:
            try:
                lines = self.queries.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"{self.queries} cannot be read as text ({error}); check the path.") from error
            sentences = [line.strip() for line in lines if line.strip()]
        tuning = index.tune(sentences, self.recall, self.k, keep=self.keep)
        print(tuning)
        if self.keep:
            print(f"Kept: boresight search {self.index} --candidates tuned")
