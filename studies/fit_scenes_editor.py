"""The editor of scenes that comes with boresight, for `boresight demo --open`; it shows what a caption keeps.

    python studies/fit_scenes_editor.py

Fitted and chosen on scenes that the shipped encoder was not fitted on. It prints what the edit is worth on others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from boresight.data import load_scenes
from boresight.editing import CaptionEditor
from boresight.embeddings import embed
from boresight.encoders import load_encoder
from boresight.evaluation import evaluate_retrieval
from boresight.models import default_model_path
from boresight.sae import SparseAutoencoder, name_latents


@dataclass(frozen=True)
class Options:
    """Where to write, and how much to fit on."""

    out: Path = Path("src/boresight/models/scenes")
    work: Path = Path("runs/scenes-editor")
    n_train: int = 2000
    n_validation: int = 400
    n_latents: int = 256
    k: int = 16
    seed: int = 0


def run(options: Options) -> None:
    encoder = load_encoder(str(default_model_path()), dtype="float32")
    scenes = load_scenes(1, options.n_train, options.n_validation, 400)
    embeddings = embed(encoder, scenes, options.work / "scenes.embeddings", dtype="float32")
    train, validation, test = (embeddings.split(name) for name in ("train", "validation", "test"))
    sae = SparseAutoencoder.fit(train, n_latents=options.n_latents, k=options.k, seed=options.seed)
    editor = CaptionEditor.fit(sae, train, validation, teacher="presence", form="gated", seed=options.seed)
    names = name_latents(sae, embeddings=train)
    print(names, [name for name in names.names if name])
    for name, scorer in (("plain", None), ("edited", editor)):
        print(name, evaluate_retrieval(test, scorer))
    editor.save(options.out / "editor")
    names.save(options.out / "names")


if __name__ == "__main__":
    run(tyro.cli(Options))
