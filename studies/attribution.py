"""Which explanations of a match can be trusted? Methods beside their controls, as Markdown.

    python studies/attribution.py

Pairs are scenes and collages of emoji that the shipped model was not fitted on; every seed draws other pairs and other
noise. Parts: 'image', maps against masks and against the model's scores; 'text', words; 'randomisation', how much of a
map survives when the model is scrambled; 'roar', the contrastive loss after fine-tuning without the patches that a map
ranks first. Figures are mean ± sample standard deviation over seeds. What is done is kept, row by row, and
not done again. Choose settings on `--split validation`.

`--photographs DIR` adds photographs that the model was not made for, and of which no masks are known: DIR holds
`captions.jsonl`, one {"file_name", "captions"} a photograph, and their files in `images`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import tyro
from torch import Tensor

from attribution_figures import TEXTUAL_AND_PHRASES, AttributionRuns, phrase_figures
from attribution_measures.comparison import checked_rows, evaluate_attribution, maps_of
from attribution_measures.figures import FAITHFUL, GROUNDED
from attribution_measures.randomisation import randomisation
from boresight import load_encoder
from boresight.attribution import METHODS
from boresight.data import Collection
from boresight.data.images import open_picture
from boresight.data.worlds.emoji.load import load_emoji
from boresight.encoders import Encoder
from boresight.errors import InputError
from boresight.models import default_model_path
from boresight.progress import say
from boresight.seeds import generator
from boresight.storage import replace_text
from boresight.tables import Spread
from kept import keep, kept
from markdown_tables import markdown
from remove_and_retrain import remove_and_retrain
from worlds.collages import emoji_pairs
from worlds.grounded import CaptionedImages, GroundedPairs, scene_pairs
from worlds.phrases import GroundedTexts, emoji_texts, scene_texts

Part = Literal["image", "text", "randomisation", "roar"]
PARTS: tuple[Part, ...] = get_args(Part)
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in METHODS},
    "m2ib, as published": ("m2ib", {"noise": "iid", "n_samples": 10}),
    "m2ib, layer 0": ("m2ib", {"layer": 0}),
    "m2ib, gate a token": ("m2ib", {"gate": "token"}),
    "nib": ("integrated-gradients", {"layer": -3, "steps": 10}),
}
"""Row of the tables -> (method, options)."""
PHOTOGRAPHS = "photographs"
TITLES = {
    "image": "image maps against masks",
    "model": "image maps against the model",
    "text": "words",
    "randomisation": "rank correlation with the map of the whole model, scrambled from the top down",
    "roar": "contrastive loss without the patches that the map ranks first",
}


@dataclass(frozen=True)
class Options:
    """What to measure, on how much, and where to keep what is finished."""

    out: Path = Path("runs/attribution")
    seeds: tuple[int, ...] = (0, 1, 2)
    n_pairs: int = 100
    parts: tuple[Part, ...] = PARTS
    worlds: tuple[str, ...] = ("scenes", "emoji")
    methods: tuple[str, ...] = tuple(ROWS)
    split: Literal["test", "validation"] = "test"
    photographs: Path | None = None
    n_randomised: int = 30
    """pairs of 'randomisation', which makes every map eight times more"""
    n_train: int = 400
    """pairs that 'roar' fine-tunes on"""
    roar_steps: int = 40
    roar_rate: float = 1e-5
    """its learning rate; at ten times that the model learns its few pairs by heart and is lost on others"""
    roar_share: float = 0.03
    """of the patches, about an object's; with half of them gone nothing is left to match by, whatever the map"""


@dataclass(frozen=True)
class World:
    """Pairs and texts of `n` rows from a split under a seed."""

    pairs: Callable[[int, int, str], GroundedPairs]
    texts: Callable[[int, int, str], GroundedTexts]


def main(options: Options) -> None:
    worlds = (*options.worlds, *([PHOTOGRAPHS] if options.photographs else []))
    for given, known in ((options.worlds, WORLDS), (options.methods, ROWS), (options.parts, PARTS)):
        for name in given:
            if name not in known:
                raise InputError(f"There is no '{name}'; choose from {', '.join(known)}.")
    encoder = load_encoder(str(default_model_path()), dtype="float32")
    report: list[str] = []
    for world in worlds:
        results: dict[str, dict[str, list[Any]]] = {}
        for seed in options.seeds:
            for part in options.parts:
                if world != PHOTOGRAPHS or part in ("image", "text"):
                    by_row = {row: measured(encoder, world, seed, part, row, options) for row in options.methods}
                    for row, values in by_row.items():
                        results.setdefault(part, {}).setdefault(row, []).append(values)
            say(f"{world}, seed {seed} done")
        made = tables(world, results, options)
        report += made
        print("\n".join(["", *made]), flush=True)
        replace_text(options.out / options.split / "attribution.md", "\n".join(report))


def measured(encoder: Encoder, world: str, seed: int, part: Part, row: str, options: Options) -> Any:
    """What a part found of a row, from its file where it is finished. Raises ArtefactError for other settings' file."""
    settings: dict[str, Any] = {
        "encoder": encoder.fingerprint,
        "n_pairs": options.n_randomised if part == "randomisation" else options.n_pairs,
        "method": list(ROWS[row]),
        "photographs": str(options.photographs) if world == PHOTOGRAPHS else None,
        "roar": [options.n_train, options.roar_steps, options.roar_rate, options.roar_share]
        if part == "roar"
        else None,
    }
    name = re.sub(r"[^a-z0-9]+", "-", row)
    file = options.out / options.split / f"{world}-{seed}" / part / f"{name}.json"
    if (done := kept(file, settings)) is not None:
        return done
    values = RUNS[part](encoder, world, seed, {row: ROWS[row]}, options)
    keep(file, settings, values)
    say(f"{world}, seed {seed}, {part}: {row}")
    return values


def run_image(encoder: Encoder, world: str, seed: int, method: Any, options: Options) -> Any:
    pairs = pairs_of(world, options.n_pairs, seed, options.split, options.photographs)
    return plain(evaluate_attribution(encoder, pairs, method, target="image", seed=seed).values)


def run_text(encoder: Encoder, world: str, seed: int, method: Any, options: Options) -> Any:
    pairs = pairs_of(world, options.n_pairs, seed, options.split, options.photographs)
    texts = texts_of(world, options.n_pairs, seed, options.split)
    values = plain(evaluate_attribution(encoder, pairs, method, target="text", seed=seed).values)
    if texts is not None:
        for row, measured_so in plain(phrase_figures(encoder, texts, method, seed=seed)).items():
            values[row] |= measured_so
    return values


def plain(values: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, list[float]]]:
    """For json."""
    return {row: {measure: of_pairs.tolist() for measure, of_pairs in by.items()} for row, by in values.items()}


def run_randomisation(encoder: Encoder, world: str, seed: int, method: Any, options: Options) -> Any:
    pairs = pairs_of(world, options.n_randomised, seed, options.split, options.photographs)
    [stages] = randomisation(encoder, pairs, method, seed=seed).values()
    return stages


def run_roar(encoder: Encoder, world: str, seed: int, method: Any, options: Options) -> Any:
    sides, maps = [], []
    for count, split in ((options.n_train, "train"), (options.n_pairs, options.split)):
        pairs = pairs_of(world, count, seed, split, None)
        [row] = checked_rows(method, batch_size=16).values()
        maps.append(maps_of(encoder, row, pairs.images, pairs.captions, "image", seed))
        sides.append({**encoder.collate(pairs.images), **encoder.tokenized(pairs.captions).inputs})
    before, after = remove_and_retrain(
        encoder.model,
        *sides,
        *maps,
        share=options.roar_share,
        steps=options.roar_steps,
        learning_rate=options.roar_rate,
        seed=seed,
    )
    return {"before": before, "after": after}


RUNS: dict[Part, Callable[[Encoder, str, int, Any, Options], Any]] = {
    "image": run_image,
    "text": run_text,
    "randomisation": run_randomisation,
    "roar": run_roar,
}


@cache
def emoji_of(split: str) -> Collection:
    """The splits whose names begin so: 'test' are unseen combinations and an unseen style together."""
    whole = load_emoji()
    return whole.select(np.flatnonzero([name.startswith(split) for name in whole.splits]))


WORLDS = {
    "scenes": World(
        pairs=lambda n, seed, split: scene_pairs(n, seed=seed, split=split),
        texts=lambda n, seed, split: scene_texts(n, seed=seed, split=split),
    ),
    "emoji": World(
        pairs=lambda n, seed, split: emoji_pairs(n, seed=seed, collection=emoji_of(split)),
        texts=lambda n, seed, split: emoji_texts(n, seed=seed, collection=emoji_of(split)),
    ),
}


@cache
def pairs_of(world: str, n: int, seed: int, split: str, folder: Path | None) -> GroundedPairs | CaptionedImages:
    return photographs(folder, n, seed) if world == PHOTOGRAPHS else WORLDS[world].pairs(n, seed, split)


@cache
def texts_of(world: str, n: int, seed: int, split: str) -> GroundedTexts | None:
    return None if world == PHOTOGRAPHS else WORLDS[world].texts(n, seed, split)


def photographs(folder: Path, n: int, seed: int) -> CaptionedImages:
    """Up to `n` photographs of a folder, drawn by the seed, each with one of its captions. InputError without any."""
    file = folder / "captions.jsonl"
    if not file.is_file():
        raise InputError(f"There is no {file}; pass a folder with captions.jsonl and images.")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    draw = generator(seed, "photographs")
    chosen = [rows[row] for row in torch.randperm(len(rows), generator=draw)[:n].tolist()]
    images = [open_picture(folder / "images" / row["file_name"]) for row in chosen]
    captions = [row["captions"][int(torch.randint(len(row["captions"]), (), generator=draw))] for row in chosen]
    return CaptionedImages(images, captions, PHOTOGRAPHS)


def tables(world: str, results: Mapping[str, Mapping[str, Sequence[Any]]], options: Options) -> list[str]:
    """A table for each kind of figures: part -> row -> one finding a seed."""
    parts: dict[str, str] = {}
    for part in ("image", "text"):
        if part in results:
            runs = AttributionRuns([joined(of_seed) for of_seed in zip(*results[part].values(), strict=True)])
            there = runs.measures()
            for title, group in (("image", GROUNDED), ("model", FAITHFUL), ("text", TEXTUAL_AND_PHRASES)):
                if measures := [measure for measure in group if measure in there]:
                    parts[title] = runs.table(measures)
    for part in ("randomisation", "roar"):
        if part in results:
            columns = list(next(iter(results[part].values()))[0])
            rows = [
                [row, *(Spread.of([values[column] for values in by_seed]).text(3) for column in columns)]
                for row, by_seed in results[part].items()
            ]
            parts[part] = markdown(["method", *columns], rows)
    counts = {title: options.n_randomised if title == "randomisation" else options.n_pairs for title in TITLES}
    over = f"pairs of {options.split} a seed, seeds {', '.join(map(str, options.seeds))}"
    if world == PHOTOGRAPHS:
        over = f"pairs at most a seed, seeds {', '.join(map(str, options.seeds))}"
    return [
        f"### {world}: {TITLES[title]} ({counts[title]} {over})\n\n{parts[title]}\n"
        for title in TITLES
        if title in parts
    ]


def joined(of_rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of one seed, whose rows were measured one by one."""
    return {row: values for measured_row in of_rows for row, values in measured_row.items()}


if __name__ == "__main__":
    main(tyro.cli(Options))
