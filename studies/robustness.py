"""Captions with one wrong word: does editing keep the true caption first? Markdown, after RoCOCO (arXiv 2304.10727).

    python studies/robustness.py

For each collection and seed an autoencoder and three editors are fitted on train and chosen on validation: text
fine-tuning alone, the same with a memory of training pairs, and the default editor. Every test split is then measured
with each kind of swap; the swaps of one seed are the same for all rows. Figures in percent, mean ± sample standard
deviation over seeds, so the spread of the plain row is that of the swaps alone.

Swapped captions are false of their own image and may be true of another, so the false rate is no error rate; compare it
between rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

from boresight import load_encoder
from boresight.data import Collection
from boresight.data.worlds.emoji.load import load_emoji
from boresight.data.worlds.scenes import load_scenes
from boresight.demo import caption_kinds
from boresight.editing import CaptionEditor, Scorer
from boresight.embeddings import Embeddings, embed
from boresight.encoders import Encoder
from boresight.errors import InputError
from boresight.evaluation.attacks import evaluate_attack
from boresight.evaluation.word_swaps import KINDS, Kind, swap_words
from boresight.models import default_model_path
from boresight.progress import say
from boresight.sae import SparseAutoencoder
from boresight.tables import Spread
from markdown_tables import markdown

COLLECTIONS: dict[str, Callable[[], Collection]] = {"emoji": load_emoji, "scenes": load_scenes}
COLUMNS = ("accuracy", "false rate")
Figures = dict[str, dict[Kind, dict[str, float]]]
"""Row of the table -> kind of swap -> what `evaluate_attack` found."""


@dataclass(frozen=True)
class Options:
    """Where to keep what is finished, over how many seeds to go, and on what."""

    out: Path = Path("runs/robustness")
    seeds: tuple[int, ...] = (0, 1, 2)
    collections: tuple[str, ...] = ("emoji", "scenes")


def main(options: Options) -> None:
    unknown = sorted(set(options.collections) - set(COLLECTIONS))
    if unknown:
        raise InputError(f"There is no collection '{unknown[0]}'; choose from {', '.join(COLLECTIONS)}.")
    encoder = load_encoder(str(default_model_path()))
    parts = []
    for name in options.collections:
        whole = COLLECTIONS[name]()
        collection = whole.select(np.flatnonzero([split != "encoder" for split in whole.splits]))
        embeddings = embed(encoder, collection, options.out / name / "embeddings")
        tests = {split: embeddings.split(split) for split in sorted(set(embeddings.splits)) if split.startswith("test")}
        runs: dict[str, list[Figures]] = {split: [] for split in tests}
        for seed in options.seeds:
            scorers = fit(embeddings.train, embeddings.validation, seed)
            for split, test in tests.items():
                rows = long_captions(caption_kinds(collection, test))
                runs[split].append(measure(test, partial(in_batches, encoder), scorers, rows=rows, seed=seed))
            say(f"{name}, seed {seed} done")
        parts += [f"### {name}, {split}\n\n{table(of_split)}\n" for split, of_split in runs.items()]
        print("\n".join(["", *parts[-len(runs) :]]), flush=True)
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "robustness.md").write_text("\n".join(parts), encoding="utf-8")


def fit(train: Embeddings, validation: Embeddings, seed: int) -> dict[str, Scorer | None]:
    """The rows of the table: the plain cosine, two opponents and the default editor."""
    sae = SparseAutoencoder.fit(train, n_latents=1024, k=32, seed=seed)
    return {
        "plain": None,
        "text fine-tuning": CaptionEditor.fit(sae, train, validation, form="plain", seed=seed),
        "text fine-tuning, memory": CaptionEditor.fit(sae, train, validation, form="plain", memory="text", seed=seed),
        "edited": CaptionEditor.fit(sae, train, validation, seed=seed),
    }


def in_batches(encoder: Encoder, texts: list[str], size: int = 64) -> Tensor:
    """(S, d); captions of like length together, so that little padding is computed."""
    order = torch.tensor(sorted(range(len(texts)), key=lambda row: len(texts[row])))
    parts = [encoder.embed_texts([texts[row] for row in rows.tolist()]) for rows in order.split(size)]
    return torch.cat(parts)[order.argsort()]


def long_captions(kinds: Sequence[str] | None) -> list[int] | None:
    """Captions of more than one word or so; None, for all, where the collection does not tell."""
    return None if kinds is None else [row for row, kind in enumerate(kinds) if kind != "short"]


def measure(
    test: Embeddings,
    texts_of: Callable[[list[str]], Tensor],
    scorers: Mapping[str, Scorer | None],
    kinds: Sequence[Kind] = KINDS,
    *,
    rows: Sequence[int] | None = None,
    seed: int = 0,
) -> Figures:
    """Robustness of each scorer to each kind of swap.

    Args:
        test: N images with M captions, their strings included; all of them stand in the gallery.
        texts_of: S captions -> (S, d), in the space of `test.texts`.
        scorers: name -> scorer, None for the plain cosine.
        rows: the captions that may be swapped; left out, all.

    Raises InputError where `test` has no strings, and as `swap_words` and `evaluate_attack` do.
    """
    if test.captions is None:
        raise InputError(f"{test.name or 'These embeddings'} came without captions; swaps need their strings.")
    captions, wanted = list(test.captions), set(range(len(test.owners)) if rows is None else rows)
    figures: Figures = {name: {} for name in scorers}
    for kind in kinds:
        swapped = swap_words(captions, kind, owners=test.owners, seed=seed)
        chosen = [row for row in swapped.rows if row in wanted]
        say(f"{test.name}, {kind}: {len(chosen)} of {len(wanted)} captions swapped")
        if not chosen:
            raise InputError(f"No caption of {test.name or 'these'} could be swapped ({kind}); pass more captions.")
        texts = texts_of([swapped.captions[row] for row in chosen]).to(test.texts.dtype)  # rounded as the true ones are
        for name, scorer in scorers.items():
            figures[name][kind] = dict(evaluate_attack(test, texts, chosen, scorer, side="texts").values)
    return figures


def table(runs: Sequence[Figures]) -> str:
    """Markdown of several seeds' figures, of the same rows and kinds."""
    kinds = list(next(iter(runs[0].values())))
    lines = []
    for row in runs[0]:
        columns = [[run[row][kind][column] for run in runs] for column in COLUMNS for kind in kinds]
        lines.append([row, *(Spread.of(values).text() for values in columns)])
    return markdown(["row", *(f"{label}, {kind}" for label in COLUMNS for kind in kinds)], lines)


if __name__ == "__main__":
    main(tyro.cli(Options))
