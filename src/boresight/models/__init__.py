"""What comes with boresight: `tiny-clip`, a small CLIP model, and an editor of it.

`tiny-clip` is a Hugging Face folder from `studies/train_default_model.py`, `tiny-editor` what the command
`boresight demo --seeds 0` fitted for it on emoji.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def default_model_path() -> Path:
    """Folder of the small `CLIPModel`, for `load_encoder`."""
    return _HERE / "tiny-clip"


def default_editor_path() -> Path:
    """Folder of its editor, fitted on emoji, for `CaptionEditor.load`."""
    return _HERE / "tiny-editor"
