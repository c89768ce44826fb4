"""Tiny models as open_clip saves them."""

from __future__ import annotations

import json

import torch
from safetensors.torch import save_file

VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2}


def save_open_clip(folder, text=TEXT, **model):
    """A tiny model as open_clip's own hub upload writes it."""
    import open_clip

    torch.manual_seed(0)
    config = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": text, **model}
    folder.mkdir()
    kind = open_clip.CustomTextCLIP if model else open_clip.CLIP
    weights = kind(**{key: value for key, value in config.items() if key != "custom_text"}).state_dict()
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / "open_clip_model.safetensors")
    preprocess = {
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    return folder
