"""What comes with boresight: `tiny-clip`, a small CLIP model, and for each built-in collection an editor of it.

`tiny-clip` is a Hugging Face folder from `studies/train_default_model.py`. `emoji/editor` is what the command
`boresight demo --seeds 0` fitted on emoji, `scenes/editor` is from `studies/fit_scenes_editor.py`, in the form that
shows what it keeps; `names` beside them are those of their latents.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

World = Literal["emoji", "scenes"]
_HERE = Path(__file__).parent


def default_model_path() -> Path:
    """Folder of the small `CLIPModel`, for `load_encoder`."""
    return _HERE / "tiny-clip"


def default_editor_path(world: World = "emoji") -> Path:
    """Folder of an editor of its embeddings, fitted on a built-in collection, for `CaptionEditor.load`."""
    return _HERE / world / "editor"


def default_names_path(world: World = "emoji") -> Path:
    """Folder of the names of that editor's latents, for `LatentNames.load`."""
    return _HERE / world / "names"
