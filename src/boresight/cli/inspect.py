"""The command `boresight inspect`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

_WHOLE = 20  # entries of a list that is printed whole


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Print what a folder written by boresight holds: kind, what made it, from what, settings."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Embeddings, an autoencoder, an editor, names or a trained model."""

    def run(self) -> None:
        """Print the manifest as yaml; of a long list, such as the ids of remembered images, how many and the first."""
        import yaml

        from boresight.storage import read_manifest

        print(yaml.safe_dump(_short(read_manifest(self.folder)), sort_keys=True, allow_unicode=True).rstrip())


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _short(each) for key, each in value.items()}
    if isinstance(value, list) and len(value) > _WHOLE:
        return f"{len(value):,} entries: {', '.join(map(str, value[:3]))}, ..."
    return [_short(each) for each in value] if isinstance(value, list) else value
