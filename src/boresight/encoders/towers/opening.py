"""The towers of whatever a caller holds: an encoder, a model of a library, or towers that are open already."""

from __future__ import annotations

from typing import Any

from boresight.encoders.towers.hf import hf_towers
from boresight.encoders.towers.tower import Towers


def towers_of(model: Any) -> Towers:
    """Both towers of an encoder that opens layer by layer, of a transformers dual encoder, or `Towers` themselves.

    The model is only read: its weights are shared where they are float32, else copied to it.
    Raises InputError for a model whose parts are not known.
    """
    if isinstance(model, Towers):
        return model
    return model.towers() if hasattr(model, "towers") else hf_towers(model)
