"""Models that come with boresight: ordinary Hugging Face folders trained by this repository's own commands."""

from __future__ import annotations

from pathlib import Path


def default_model_path() -> Path:
    """Folder of the small `CLIPModel` that the demo uses (`studies/train_default_model.py` made it)."""
    return Path(__file__).parent / "tiny-clip"
