"""boresight: make image-text models line up with what people wrote, and show why."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boresight.attribution import explain as explain
    from boresight.collections import Collection as Collection
    from boresight.collections import load_collection as load_collection
    from boresight.collections import train_validation_test as train_validation_test
    from boresight.editing import CaptionEditor as CaptionEditor
    from boresight.embeddings import Embeddings as Embeddings
    from boresight.embeddings import embed as embed
    from boresight.encoders import load_encoder as load_encoder
    from boresight.errors import ArtefactError as ArtefactError
    from boresight.errors import BoresightError as BoresightError
    from boresight.errors import InputError as InputError
    from boresight.evaluation import evaluate_retrieval as evaluate_retrieval
    from boresight.sae import SparseAutoencoder as SparseAutoencoder
    from boresight.sae import SparseCodes as SparseCodes

_HOME = {
    "explain": "boresight.attribution",
    "Collection": "boresight.collections",
    "load_collection": "boresight.collections",
    "train_validation_test": "boresight.collections",
    "load_encoder": "boresight.encoders",
    "Embeddings": "boresight.embeddings",
    "embed": "boresight.embeddings",
    "SparseAutoencoder": "boresight.sae",
    "SparseCodes": "boresight.sae",
    "CaptionEditor": "boresight.editing",
    "evaluate_retrieval": "boresight.evaluation",
    "BoresightError": "boresight.errors",
    "InputError": "boresight.errors",
    "ArtefactError": "boresight.errors",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    # torch takes two seconds to import; the command line's --help must not pay for it.
    if name not in _HOME:
        raise AttributeError(f"module 'boresight' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
