"""One query before and after the edit: the first picture of the README.

    make demo
    python studies/one_query.py

Takes embeddings and editor of the demo. The query is drawn by chance among those of the unseen style whose right answer
was not among the first five before and is the first after; how many such there are, and how many the other way round,
is printed and stands below the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure

from boresight.data import load_emoji
from boresight.editing import CaptionEditor, PlainScorer, Scorer
from boresight.embeddings import Embeddings
from boresight.evaluation import evaluate_retrieval
from boresight.seeds import generator

SHOWN = 5
RIGHT, WRONG = "#0072b2", "#c8c8c8"


@dataclass(frozen=True)
class Options:
    """The finished demo, the split to ask, and where to write."""

    run: Path = Path("runs/demo")
    split: str = "test-style"
    out: Path = Path("runs/one-query")
    seed: int = 0


def main(options: Options) -> None:
    test = Embeddings.load(options.run / "embeddings").split(options.split)
    ways: dict[str, Scorer] = {
        "before: plain cosine": PlainScorer(),
        "after: edited": CaptionEditor.load(options.run / "seed-0" / "edited"),
    }
    before, after = (torch.from_numpy(evaluate_retrieval(test, scorer).t2i_ranks) for scorer in ways.values())
    mended = ((before > SHOWN) & (after == 1)).nonzero()[:, 0]
    harmed = int(((after > SHOWN) & (before == 1)).sum())
    row = int(mended[torch.randint(len(mended), (1,), generator=generator(options.seed, "one query"))])
    assert test.captions is not None
    first = [100 * float((ranks == 1).double().mean()) for ranks in (before, after)]
    counts = (
        f"{len(test):,} pictures, {len(before):,} captions. In first place: {first[0]:.0f} % before, {first[1]:.0f} % "
        f"after. From beyond the fifth place to the first: {len(mended):,}; the other way round: {harmed:,}."
    )
    print(f"'{test.captions[row]}'\n{counts}")
    pictures = load_emoji()
    place = {name: number for number, name in enumerate(pictures.ids)}
    figure = Figure(figsize=(8, 4.3), layout="constrained")
    for line, (title, scorer) in zip(figure.subplots(2, SHOWN), ways.items(), strict=True):
        scores = scorer.score_prepared(
            scorer.prepare_images(test.images.float()), scorer.prepare_texts(test.texts[row : row + 1].float())
        )
        for axes, found in zip(line, scores[:, 0].topk(SHOWN).indices.tolist(), strict=True):
            axes.imshow(pictures.image(place[test.ids[found]]))
            axes.set(xticks=[], yticks=[])
            right = found == int(test.owners[row])
            for spine in axes.spines.values():
                spine.set(color=RIGHT if right else WRONG, linewidth=4 if right else 1)
        line[0].set_title(title, loc="left", fontsize=10)
    figure.suptitle(f"'{test.captions[row]}'")
    figure.supxlabel(counts.replace(" From", "\nFrom"), fontsize=8)
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "one-query.png", dpi=110)


if __name__ == "__main__":
    main(tyro.cli(Options))
