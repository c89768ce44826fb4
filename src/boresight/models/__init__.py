"""Models that come with boresight, all made by this repository's own commands.

`tiny-clip` is an ordinary Hugging Face folder (`studies/train_default_model.py` made it); `tiny-sae` and `tiny-editor`
are the autoencoder and the caption editor that `boresight demo --seeds 0` fits for it on emoji.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def default_model_path() -> Path:
    """Folder of the small `CLIPModel`, for `load_encoder`."""
    return _HERE / "tiny-clip"


def default_sae_path() -> Path:
    """Folder of its sparse autoencoder, for `SparseAutoencoder.load`."""
    return _HERE / "tiny-sae"


def default_editor_path() -> Path:
    """Folder of its caption editor, for `CaptionEditor.load`."""
    return _HERE / "tiny-editor"
