"""The command `boresight inspect`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Print what a folder written by boresight holds: kind, what made it, from what, settings."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Embeddings, an autoencoder, an editor, names or a trained model."""

    def run(self) -> None:
        """Print the manifest as yaml."""
        import yaml

        from boresight.storage import read_manifest

        print(yaml.safe_dump(read_manifest(self.folder), sort_keys=True, allow_unicode=True).rstrip())
