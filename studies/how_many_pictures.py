"""How many captioned pictures does a caption editor need? Sums of recalls by training pairs, in Markdown.

    python studies/how_many_pictures.py --data DIR

Everything is fitted anew on the first n of the same training pictures: autoencoder, rivals, banks and memories. Two
worlds:

- `scenes`: the generated world through the small model that comes along. Scene i depends on seed, split and i alone, so
  the first n of one drawing are the n scenes. Each has its three captions. The split 'encoder' is left out: the model
  was fitted on it.
- Flickr8k in DIR (`photographs.py`), where `flickr8k.py`'s two small encoders are fitted on half of train, and n are
  taken of the other half; half of dev chooses, the other half is reported. Without `--data` it is left out.

Rows are those of the comparison that a user would choose between, and masks alone: in the paper's form, and in ours by
either teacher. What is done is kept, and not done again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import tyro
from matplotlib.figure import Figure

from boresight import load_encoder
from boresight.data.worlds.scenes import make_scenes
from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings, embed
from boresight.errors import InputError
from boresight.evaluation import compare, evaluate_retrieval
from boresight.evaluation.comparison_rows import (
    ALTERNATIVES,
    EDITED,
    EDITED_REBUILT,
    MEMORY,
    PLAIN,
    TUNED,
)
from boresight.evaluation.retrieval import RECALLS
from boresight.models import default_model_path
from boresight.progress import say
from boresight.sae import SparseAutoencoder
from boresight.storage import MANIFEST, replace_text
from boresight.tables import Spread, signed
from flickr8k import Data, fitted_on_halves
from kept import keep, kept
from markdown_tables import markdown
from photographs import ENCODERS, halves, load_photographs

COMPARED = (*ALTERNATIVES, MEMORY, EDITED_REBUILT, EDITED)
TAUGHT = "masks alone, taught"
OURS: Mapping[str, Mapping[str, Any]] = {
    "masks alone, contrast": {"form": "residual", "memory": "none", "teacher": "contrast"},
    TAUGHT: {"form": "residual", "memory": "none", "teacher": "presence", "length_exponent": 0.0},
}
"""Masks alone in our form, by what differs from the default."""
STRENGTH, EXPLAINED = "strength of the taught edit", "variance the autoencoder explains"
NAMES = {EDITED_REBUILT.name: "masks alone, paper's form", MEMORY.name: "memory alone", EDITED.name: "edited"}
BEST = "best rival"
DRAWN = (PLAIN.name, TUNED.name, BEST, MEMORY.name, EDITED_REBUILT.name, *OURS, EDITED.name)
Sets = tuple[Embeddings, Embeddings, Embeddings]  # to fit, to choose and to report on
Figures = Mapping[str, Mapping[int, Sequence[Mapping[str, float]]]]  # world -> n -> of each seed: row -> sum of six


@dataclass(frozen=True)
class Options:
    """Where photographs are, where to keep what is finished, and how many pairs to fit on."""

    data: Path | None = None
    """photographs, see `photographs.py`; left out, scenes alone"""
    out: Path = Path("runs/how-many-pictures")
    seeds: tuple[int, ...] = (0, 1, 2)
    scenes: tuple[int, ...] = (1000, 4000, 16000, 64000)
    photographs: tuple[int, ...] = (250, 750, 1500, 3000)
    once_from: int = 64000
    """from this many pairs on, the first seed alone"""
    n_validation: int = 500
    n_test: int = 1000
    n_latents: int = 1024


def main(options: Options) -> None:
    torch.set_num_threads(1)
    if options.data is None and not options.scenes:
        raise InputError("There is nothing to measure; pass `data`, or numbers of `scenes`.")
    results: dict[str, dict[int, list[dict[str, float]]]] = {}
    for seed in options.seeds:
        for world, sizes, sets in worlds(options, seed):
            for n in sizes:
                if n < options.once_from or seed == options.seeds[0]:
                    results.setdefault(world, {}).setdefault(n, []).append(measured(world, sets, n, seed, options))
    text = "\n\n".join(f"### {world}\n\n{table(of_world)}" for world, of_world in results.items())
    print(text)
    replace_text(options.out / "how-many-pictures.md", text + "\n")
    draw(results).savefig(options.out / "how-many-pictures.png", dpi=110)


def worlds(options: Options, seed: int) -> Iterator[tuple[str, Sequence[int], Sets]]:
    """Name, numbers of pairs and sets of each."""
    if options.data is not None:
        train, dev = (load_photographs(options.data, split) for split in ("train", "dev"))
        data = Data(train, dev, *halves(len(dev), 0, "flickr8k dev"))
        for kind in ENCODERS:
            fit, choose, report = fitted_on_halves(data, kind, train.texts, seed)[1]
            yield f"Flickr8k, {kind}", options.photographs, (fit, choose, report)
    if options.scenes:
        yield "scenes", options.scenes, scenes(options)


def scenes(options: Options) -> Sets:
    """Embedded once, the most that are fitted on."""
    sizes = {"train": max(options.scenes), "validation": options.n_validation, "test": options.n_test}
    folders = {split: options.out / "scenes" / f"{split}-{n}.embeddings" for split, n in sizes.items()}
    if missing := [split for split, folder in folders.items() if not (folder / MANIFEST).is_file()]:
        encoder = load_encoder(str(default_model_path()))
        for split in missing:
            embed(encoder, make_scenes(sizes[split], split=split), folders[split])
    train, validation, test = (Embeddings.load(folder) for folder in folders.values())
    return train, validation, test


def measured(world: str, sets: Sets, n: int, seed: int, options: Options) -> dict[str, float]:
    """Row -> sum of six recalls, STRENGTH and EXPLAINED, all of it fitted on the first n pictures.

    Raises InputError where there are fewer.
    """
    whole, validation, test = sets
    if n > len(whole):
        raise InputError(f"{world} has {len(whole):,} pictures to fit on and {n:,} are asked for; ask for fewer.")
    folder = options.out / world / f"{n}-{seed}"
    settings = {"n_latents": options.n_latents, "choose": len(validation), "report": len(test)}
    if (found := kept(folder / "found.json", settings)) is not None:
        return found
    train = whole.select(range(n))
    compared = compare(
        train, validation, {"test": test}, seeds=(seed,), n_latents=options.n_latents, folder=folder, rows=COMPARED
    )
    sums = {row.name: sum(compared.values("test", row.name, recall)[0] for recall in RECALLS) for row in COMPARED}
    sums[EXPLAINED] = compared.measures[str(seed)]["explained_variance"]
    sae = SparseAutoencoder.load(folder / f"seed-{seed}" / "sae")
    for row, changes in OURS.items():
        editor = CaptionEditor.fit(sae, train, validation, seed=seed, **changes)
        sums[row] = evaluate_retrieval(test, editor).recall_sum
        if editor.config.taught:
            sums[STRENGTH] = float(editor.strength_and_level[0].detach())
    keep(folder / "found.json", settings, sums)
    say(f"{world}, {n:,} pairs, seed {seed} done")
    return sums


def best_rival(runs: Sequence[Mapping[str, float]]) -> str:
    """The highest without an edit, by the mean over seeds."""
    return max((row.name for row in ALTERNATIVES), key=lambda name: fmean(run[name] for run in runs))


def table(of_world: Mapping[int, Sequence[Mapping[str, float]]]) -> str:
    """A line a row, a column a number of pairs; last the edit over the best rival and what was learnt."""
    names = [*(row.name for row in COMPARED if row != EDITED), *OURS, EDITED.name]
    lines = [
        [NAMES.get(name, name), *(Spread.of([run[name] for run in runs]).text() for runs in of_world.values())]
        for name in names
    ]
    gains = ["edited over the best rival"]
    for runs in of_world.values():
        rival = best_rival(runs)
        gain = Spread.of([run[EDITED.name] - run[rival] for run in runs])
        share = 100 * gain.mean / fmean(run[rival] for run in runs)
        gains.append(f"{gain.text(sign='+')} ({signed(share)} %)")
    learnt = [
        [name, *(Spread.of([run[name] for run in runs]).text(2) for runs in of_world.values())]
        for name in (STRENGTH, EXPLAINED)
    ]
    return markdown(["row", *(f"{n:,}" for n in of_world)], [*lines, gains, *learnt])


def draw(results: Figures) -> Figure:
    """A panel a world: sum of six against the number of pairs, a line a row, the spread over seeds as a band.

    The best rival is that of each number.
    """
    drawn = Figure(figsize=(5 * len(results), 4.2), layout="constrained")
    panels = drawn.subplots(1, len(results), squeeze=False)[0]
    for axes, (world, of_world) in zip(panels, results.items(), strict=True):
        for name in DRAWN:
            spreads = []
            for runs in of_world.values():
                row = best_rival(runs) if name == BEST else name
                spreads.append(Spread.of([run[row] for run in runs]))
            low, high = ([each.mean + sign * (each.deviation or 0.0) for each in spreads] for sign in (-1, 1))
            axes.plot(
                list(of_world),
                [each.mean for each in spreads],
                marker="o",
                linestyle="--" if name in (PLAIN.name, TUNED.name, BEST) else "-",
                linewidth=2.5 if name == EDITED.name else 1.3,
                label=NAMES.get(name, name),
            )
            axes.fill_between(list(of_world), low, high, alpha=0.15, linewidth=0)
        axes.set(title=world, xscale="log", xlabel="captioned pictures to fit on")
        axes.set_xticks(list(of_world), [f"{n:,}" for n in of_world])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("sum of six recalls")
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    return drawn


if __name__ == "__main__":
    main(tyro.cli(Options))
