"""Models as ordinary Hugging Face folders: opened to be trained, and saved so that any tool loads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from boresight.encoders.hf import without_bars
from boresight.seeds import generator
from boresight.storage import FORMAT, MANIFEST, fingerprint, replacing_folder, write_json

KIND = "clip model"


def save_model(
    folder: str | Path,
    model: Any,
    tokenizer: Any,
    image_processor: Any,
    *,
    card: str = "",
    made_by: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a model with its tokenizer and image processor, with `README.md` and a manifest, whole or not at all.

    The configuration asks for float32 at loading whatever `dtype` is on the disk, since half precision is slow on a
    CPU. Raises ArtefactError when the folder holds anything else or cannot be written.
    """
    weights = {name: value.detach().cpu().to(dtype).contiguous() for name, value in model.state_dict().items()}
    stamp = fingerprint(weights)
    if hasattr(tokenizer, "backend_tokenizer"):  # what the last call asked of it would be saved with it
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
    with replacing_folder(folder, KIND) as staging, without_bars():
        model.save_pretrained(staging, state_dict=weights)  # empties `weights`
        image_processor.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        if card:
            (staging / "README.md").write_text(card, encoding="utf-8")
        write_json(staging / MANIFEST, {"kind": KIND, "format": FORMAT, "fingerprint": stamp, **(made_by or {})})


def from_scratch(model: Any, seed: int) -> Any:
    """A model of the same shape with weights drawn from `seed`, float32.

    The temperature starts at CLIP's 1 / 0.07, of a model with a bias at 10 with a bias of -10 (SigLIP, section 3.2):
    nearly all pairs are negatives, and transformers' zeros would begin with one huge correction.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "from scratch").initial_seed())
        drawn = type(model)(model.config).float()
    if getattr(drawn, "logit_bias", None) is not None:
        with torch.no_grad():
            drawn.logit_scale.fill_(math.log(10))
            drawn.logit_bias.fill_(-10)
    return drawn


def pixel_statistics(image_processor: Any) -> dict[str, Any]:
    """`mean` and `std` of each channel, as the model reads pictures."""
    return {name: tuple(map(float, getattr(image_processor, f"image_{name}"))) for name in ("mean", "std")}
