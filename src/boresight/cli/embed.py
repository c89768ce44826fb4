"""The command `boresight embed`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Embed a captioned collection with a dual encoder. After a stop, the same command continues."""

    collection: Annotated[str, tyro.conf.Positional]
    """Folder, captions json/csv/tsv/jsonl, tar shards, parquet, or the name of a Hugging Face dataset;
    'emoji' and 'scenes' are built in."""
    out: Path
    """Folder for the embeddings."""
    encoder: str | None = None
    """Hub name or folder of a CLIP or SigLIP model, 'open_clip:...'; left out: the one that ships with
    boresight, which knows only emoji and simple scenes."""
    format: str | None = None
    """Format of the collection, such as 'coco' or 'parquet'; left out: it is found from the files."""
    images: Path | None = None
    """Folder of the pictures of a captions file; left out: they are looked for beside the file."""
    image_column: str | None = None
    """Column or key of a table that names the picture; left out: the usual names, such as image and file_name."""
    caption_columns: tuple[str, ...] | None = None
    """Columns that hold captions; all of them are read; left out: the usual names, such as caption and text."""
    id_column: str | None = None
    """Column of the image's id; left out: the usual names, such as image_id, else the picture's path."""
    split_column: str | None = None
    """Column that says train, validation or test; left out: 'split', if there is one."""
    split_anew: bool = False
    """Forget the splits of the source: 80 % train, 10 % validation, 10 % test, by a hash of each id."""
    long_text: Literal["truncate", "windows"] = "truncate"
    """Captions longer than the model reads: 'truncate' cuts them, 'windows' reads them piece by piece and averages."""
    batch_size: int = 64
    """Pictures, and captions, per batch."""
    workers: int = 2
    """Threads that decode and preprocess pictures."""
    device: str | None = None
    """Device to compute on, such as 'cpu' or 'cuda:1'; left out: the best device of this machine."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the model; 'auto' is half precision on a GPU and float32 elsewhere."""
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
            split_anew=self.split_anew,
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
