"""The model that comes with boresight: `tiny-clip`, a Hugging Face folder from `studies/train_default_model.py`."""

from __future__ import annotations

from pathlib import Path


def default_model_path() -> Path:
    """Folder of the small `CLIPModel`, for `load_encoder`."""
    return Path(__file__).parent / "tiny-clip"
