"""Editing on scenes of one, two, three and four objects apart, in Markdown.

    boresight demo scenes --out runs/demo-scenes
    python studies/scenes_by_objects.py --run runs/demo-scenes

The editors are those of the run; the opponents are fitted on the same embeddings. The scenes are new ones: no split of
the run shows them. Captions of all three kinds are asked for together; a second table asks for long captions alone,
which are the only ones that tell a scene from all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from boresight import load_encoder
from boresight.data.worlds.scenes import make_scenes
from boresight.demo import caption_kinds
from boresight.editing import CaptionEditor, Scorer
from boresight.embeddings import Embeddings, embed
from boresight.errors import InputError
from boresight.evaluation import RetrievalScores, evaluate_retrieval
from boresight.models import default_model_path
from boresight.progress import say
from boresight.sae import SparseAutoencoder
from boresight.tables import Spread
from markdown_tables import markdown

OBJECTS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Options:
    """The run whose editors are measured, where to keep what is finished, and how many scenes of each kind to draw."""

    run: Path = Path("runs/demo-scenes")
    out: Path = Path("runs/scenes-by-objects")
    n_test: int = 500


def main(options: Options) -> None:
    encoder = load_encoder(str(default_model_path()))
    collections = {n: make_scenes(options.n_test, objects=(n, n), split="test", seed=3000 + n) for n in OBJECTS}
    tests = {n: embed(encoder, held, options.out / f"{n}.embeddings") for n, held in collections.items()}
    kinds = {n: caption_kinds(collections[n], tests[n]) for n in OBJECTS}
    folders = sorted(options.run.glob("seed-*"))
    if not folders:
        raise InputError(f"{options.run} holds no finished seed; run: boresight demo scenes --out {options.run}")
    results: dict[str, dict[int, list[RetrievalScores]]] = {}
    for folder in folders:
        for row, scorer in scorers(folder, Embeddings.load(options.run / "embeddings")).items():
            for n, test in tests.items():
                found = evaluate_retrieval(test, scorer, kinds=kinds[n])
                results.setdefault(row, {}).setdefault(n, []).append(found)
        say(f"{folder.name} done")
    text = "\n\n".join(
        (
            "### Scenes by number of objects: sum of six recalls\n\n" + table(results, long=False),
            "### Scenes by number of objects: long captions alone\n\n" + table(results, long=True),
        )
    )
    (options.out / "scenes-by-objects.md").write_text(text + "\n", encoding="utf-8")
    print(text)


def scorers(folder: Path, embeddings: Embeddings) -> dict[str, Scorer | None]:
    sae, seed = SparseAutoencoder.load(folder / "sae"), int(folder.name.removeprefix("seed-"))
    train, validation = embeddings.train, embeddings.validation
    return {
        "plain": None,
        "text fine-tuning": CaptionEditor.fit(sae, train, validation, form="plain", seed=seed),
        "text fine-tuning, memory": CaptionEditor.fit(sae, train, validation, form="plain", memory="text", seed=seed),
        "edited": CaptionEditor.load(folder / "edited"),
    }


def table(results: dict[str, dict[int, list[RetrievalScores]]], long: bool) -> str:
    lines = []
    for row, of_objects in results.items():
        cells = [row]
        for n in OBJECTS:
            sums = [(run.kinds["long"] if long else run).recall_sum for run in of_objects[n]]
            cells.append(Spread.of(sums[:1] if row == "plain" else sums).text())  # no seed changes the plain row
        lines.append(cells)
    return markdown(["row", *(f"{n} object{'s' * (n > 1)}" for n in OBJECTS)], lines)


if __name__ == "__main__":
    main(tyro.cli(Options))
