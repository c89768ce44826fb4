"""Does the default edit keep what a caption tells and drop the rest, where that is known? Planted worlds, in Markdown.

    python studies/planted_worlds.py

A world has C random unit concepts in d dimensions. An image is the sum of some of them, with amplitudes in 0.5 to 1.5;
a caption is the sum of two of these, turned by a near-identity and moved into a corner of its own (the modality gap).
Both have noise. The autoencoder is fitted as on any data (2 C latents, twice as many active as an image has concepts),
and so is the default editor. Reported on 1,000 held-out pairs: R@1, mean of both directions, of the best alternative
without an edit (plain and fine-tuned text side, each as it is and less its hubness by either correction), of the
default editor and of its form that shows; and how much of the told and of the untold concepts their edits keep, of what
a linear reading finds in the plain images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
import tyro
from torch import Tensor
from torch.nn import functional as F

from boresight.editing import CaptionEditor, CorrectedScorer, PlainScorer, Scorer
from boresight.editing.config import CorrectionMethod
from boresight.embeddings import Embeddings
from boresight.evaluation import evaluate_retrieval
from boresight.progress import say
from boresight.sae import SparseAutoencoder
from boresight.seeds import generator
from boresight.storage import replace_text
from boresight.tables import Spread
from markdown_tables import markdown

TOLD = 2
HEADINGS = (
    "best alternative",
    "edited",
    "as shown",
    "edited / best",
    "told kept",
    "untold kept",
    "shown: told",
    "untold",
)


@dataclass(frozen=True)
class World:
    """`concepts` of `width` dimensions, `shown` of them in an image; `pairs` to fit on."""

    width: int
    concepts: int
    shown: int
    pairs: int


WORLDS = (World(256, 256, 8, 4000), World(512, 512, 12, 8000), World(128, 256, 6, 4000))


@dataclass(frozen=True)
class Options:
    """Where to write, and over how many seeds to go; each has its own concepts, pairs and fits."""

    out: Path = Path("runs/planted")
    seeds: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class Planted:
    """Pairs with their truth: codes (N, C) of the images, told (N, C) of the captions."""

    pairs: Embeddings
    codes: Tensor
    told: Tensor


def main(options: Options) -> None:
    rows = []
    for world in WORLDS:
        figures: dict[str, list[float]] = defaultdict(list)
        for seed in options.seeds:
            for name, value in measured(world, seed).items():
                figures[name].append(value)
            say(f"{world}, seed {seed}: " + ", ".join(f"{name} {values[-1]:.2f}" for name, values in figures.items()))
        shown = f"{world.concepts} concepts in {world.width} dimensions, {world.shown} an image"
        cells = [Spread.of(figures[name]).text(digits=1 if number < 3 else 2) for number, name in enumerate(HEADINGS)]
        rows.append([shown, f"{world.pairs:,}", *cells])
    text = markdown(["world", "pairs", *HEADINGS], rows)
    print(text)
    replace_text(options.out / "planted-worlds.md", text + "\n")


def measured(world: World, seed: int) -> dict[str, float]:
    """One world of a seed, by HEADINGS."""
    train, validation, test = planted(world, seed)
    sae = SparseAutoencoder.fit(train.pairs, n_latents=2 * world.concepts, k=2 * world.shown, seed=seed)
    editor = CaptionEditor.fit(sae, train.pairs, validation.pairs, seed=seed)
    tuned = CaptionEditor.fit(sae, train.pairs, validation.pairs, form="plain", memory="none", seed=seed)
    sides: tuple[Scorer, ...] = (PlainScorer(), tuned)
    corrected = [
        CorrectedScorer.fit(side, train.pairs, validation.pairs, method, seed)
        for side in sides
        for method in get_args(CorrectionMethod)
    ]
    best = max(first_place(test.pairs, rival) for rival in (*sides, *corrected))
    edited = first_place(test.pairs, editor)
    kept, shown = (kept_of(test, one.edit) for one in (editor, editor.shown))
    values = (best, edited, first_place(test.pairs, editor.shown), edited / best, *kept, *shown)
    return dict(zip(HEADINGS, values, strict=True))


def planted(world: World, seed: int) -> list[Planted]:
    """Pairs to fit on, 1,000 to choose and 1,000 to report on."""
    draw = generator(seed, f"planted {world}")
    concepts = F.normalize(torch.randn(world.concepts, world.width, generator=draw), dim=1)
    turn = torch.eye(world.width) + 0.34 * world.width**-0.5 * torch.randn(world.width, world.width, generator=draw)
    gap = F.normalize(torch.randn(world.width, generator=draw), dim=0)

    def pairs(count: int, name: str) -> Planted:
        shown = torch.rand(count, world.concepts, generator=draw).topk(world.shown, dim=1).indices
        amplitudes = 0.5 + torch.rand(count, world.shown, generator=draw)
        codes = torch.zeros(count, world.concepts).scatter(1, shown, amplitudes)
        told = torch.zeros(count, world.concepts, dtype=torch.bool).scatter(1, shown[:, :TOLD], True)
        texts = F.normalize(F.normalize(told.float() @ concepts, dim=1) @ turn.t() + gap, dim=1)
        noise = [0.02 * torch.randn(count, world.width, generator=draw) for _ in range(2)]
        ids = [f"{name} {row}" for row in range(count)]
        made = Embeddings.from_arrays(codes @ concepts + noise[0], texts + noise[1], range(count), ids=ids)
        return Planted(made, codes, told)

    return [pairs(world.pairs, "train"), pairs(1000, "validation"), pairs(1000, "test")]


def first_place(pairs: Embeddings, scorer: Scorer) -> float:
    """R@1 in percent, mean of both directions."""
    scores = evaluate_retrieval(pairs, scorer)
    return (scores["T2I R@1"] + scores["I2T R@1"]) / 2


def kept_of(test: Planted, edit: Callable[[Tensor, Tensor], Tensor]) -> tuple[float, float]:
    """Of told and of untold concepts, what a least-squares reading of the codes finds after the edit, over before."""
    images = test.pairs.images.double()
    ridge = 1e-3 * len(images) / images.shape[1] * torch.eye(images.shape[1], dtype=torch.float64)
    reading = torch.linalg.solve(images.t() @ images + ridge, images.t() @ test.codes.double())
    before, after = images @ reading, edit(test.pairs.images, test.pairs.texts).double() @ reading
    untold = (test.codes > 0) & ~test.told
    told, left = (float(after[rows].sum() / before[rows].sum()) for rows in (test.told, untold))
    return told, left


if __name__ == "__main__":
    main(tyro.cli(Options))
