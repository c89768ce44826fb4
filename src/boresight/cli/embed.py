"""The command `boresight embed`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Embed a captioned collection with a dual encoder. Stopped at any moment, the same command goes on."""

    collection: Annotated[str, tyro.conf.Positional]
    """Folder, captions json/csv/tsv/jsonl, tar shards, parquet, or the name of a Hugging Face dataset;
    'emoji' and 'scenes' are built in."""
    out: Path
    """Folder for the embeddings."""
    encoder: str | None = None
    """Hub name or folder of a CLIP or SigLIP model, 'open_clip:...'; left out: the one that ships with boresight."""
    format: str | None = None
    """Format of the collection, where it cannot be told from what is there."""
    images: Path | None = None
    """Folder of the pictures, where a captions file does not lie beside them."""
    image_column: str | None = None
    caption_columns: tuple[str, ...] | None = None
    id_column: str | None = None
    split_column: str | None = None
    long_text: Literal["truncate", "windows"] = "truncate"
    """Captions longer than the model reads: 'truncate' cuts them, 'windows' reads them piece by piece and averages."""
    batch_size: int = 64
    workers: int = 2
    """Threads that decode and preprocess."""
    device: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the model."""
    on_error: Literal["skip", "refuse"] = "skip"
    """What to do with a corrupt picture, a missing file, an empty caption or a duplicate id."""

    def run(self) -> None:
        """Embed, and say how much."""
        from boresight.cli.sources import open_collection, open_encoder, shipped_warning
        from boresight.embeddings import embed

        collection = open_collection(
            self.collection,
            on_error=self.on_error,
            format=self.format,
            images=self.images,
            image_column=self.image_column,
            caption_columns=self.caption_columns,
            id_column=self.id_column,
            split_column=self.split_column,
        )
        encoder = open_encoder(self.encoder, device=self.device, dtype=self.dtype, of=self.collection)
        embeddings = embed(
            encoder,
            collection,
            self.out,
            batch_size=self.batch_size,
            on_error=self.on_error,
            workers=self.workers,
            long_text=self.long_text,
        )
        print(f"{len(embeddings)} images and {len(embeddings.owners)} captions, {embeddings.width} wide: {self.out}")
        if self.encoder is None and (warning := shipped_warning(embeddings, "")):
            print(f"Warning: {warning}")
