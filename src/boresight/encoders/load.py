"""From a name or a folder to an encoder."""

from __future__ import annotations

from pathlib import Path

import torch

from boresight.device import pick_device
from boresight.encoders.protocol import Encoder

OPEN_CLIP = "open_clip:"


def load_encoder(
    name_or_path: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
) -> Encoder:
    """A dual encoder, ready to embed.

    Args:
        name_or_path: a folder that `save_pretrained` wrote or a Hugging Face hub name, of a CLIP, SigLIP, SigLIP 2
            (fixed resolution or NaFlex) or VisionTextDualEncoder model; or `open_clip:MODEL/TAG`,
            `open_clip:hf-hub:OWNER/MODEL`, `open_clip:local-dir:FOLDER`.
        device: 'cpu', 'cuda', ...; the best one present by default.
        dtype: 'auto', 'float32', 'bfloat16' or 'float16', what the model computes in (see docs/guide/encoders.md).

    Only safetensors weights are read, and no code that comes with a model is run.

    Raises:
        InputError: no such model, not a dual encoder, files missing or torn, an unknown dtype or device.
    """
    name = str(name_or_path)
    chosen = pick_device(device)
    if name.startswith(OPEN_CLIP):
        from boresight.encoders.openclip import load_open_clip

        return load_open_clip(name.removeprefix(OPEN_CLIP), chosen, dtype)
    from boresight.encoders.hf import load_transformers

    return load_transformers(name, chosen, dtype)
