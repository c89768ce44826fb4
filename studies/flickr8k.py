"""Editing on real photographs: Flickr8k, small heads on frozen features as the encoder, in Markdown.

    python studies/flickr8k.py --data DIR

DIR is described in `photographs.py`. For each seed the encoder is fitted on a random half of train, autoencoder, editor
and opponents on the other half; half of dev chooses, the other half is reported. Four parts:

- `whole`: every row of the comparison, two encoders;
- `imbalance`: the encoder is fitted on captions cut to a random run of a half or a quarter of their words, the rest on
  whole ones;
- `richness`: one, two, three and all five captions of a photograph joined to one text; everything but the encoder
  learns from all of these lengths together;
- `swaps`: captions with one wrong word, as in `robustness.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
import tyro
from torch import Tensor

import robustness
from boresight.embeddings import Embeddings
from boresight.evaluation import compare
from boresight.evaluation.comparison_rows import EDITED, EDITED_MASKS, PLAIN, ROWS, TUNED, TUNED_MEMORY, Row
from boresight.evaluation.retrieval import RECALLS
from boresight.progress import say
from boresight.seeds import generator
from boresight.tables import Spread
from markdown_tables import markdown
from photographs import ENCODERS, Photographs, Towers, cut, embedded, halves, load_photographs, minilm

PARTS: tuple[Literal["whole", "imbalance", "richness", "swaps"], ...] = ("whole", "imbalance", "richness", "swaps")
MAIN_ROWS = (PLAIN, TUNED, TUNED_MEMORY, EDITED, EDITED_MASKS)
SHARES = (1.0, 0.25, 0.5)
JOINED = {1: 2, 2: 2, 3: 1, 5: 1}
"""How many captions are joined, and how many such texts each training photograph gets."""
Figures = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Options:
    """Where the features are, where to keep what is finished, over how many seeds to go, and which parts to do."""

    data: Path
    out: Path = Path("runs/flickr8k")
    seeds: tuple[int, ...] = (0, 1, 2)
    parts: tuple[Literal["whole", "imbalance", "richness", "swaps"], ...] = PARTS


@dataclass(frozen=True)
class Data:
    """Both splits, and what is drawn of them once for all seeds."""

    train: Photographs
    dev: Photographs
    choose: Tensor
    report: Tensor


def main(options: Options) -> None:
    train, dev = (load_photographs(options.data, split) for split in ("train", "dev"))
    data = Data(train, dev, *halves(len(dev), 0, "flickr8k dev"))
    written = []
    for part in options.parts:
        written += {"whole": whole, "imbalance": imbalance, "richness": richness, "swaps": swaps}[part](data, options)
        (options.out / f"{part}.md").write_text("\n".join(written) + "\n", encoding="utf-8")
        print("\n".join(written))
        written = []


def whole(data: Data, options: Options) -> list[str]:
    lines = []
    for kind in ENCODERS:
        figures = gather(data, options, kind, data.train.texts, ROWS, f"{kind}")
        lines += [f"\n### Flickr8k, {kind}\n", *table(figures)]
    return lines


def imbalance(data: Data, options: Options) -> list[str]:
    lines = {}
    for share in SHARES:
        texts = data.train.texts if share == 1 else cut_texts(data.train, share, options.out / "texts")
        for kind in ENCODERS:
            name = kind if share == 1 else f"{kind}-cut-{share:g}"
            figures = gather(data, options, kind, texts, MAIN_ROWS, name)
            lines[kind, -share] = summary(f"{kind}, {share:g}", figures)
    title = "\n### The encoder's captions cut to a share of their words\n"
    return [title, *heading("encoder, share of words"), *(lines[key] for key in sorted(lines))]


def richness(data: Data, options: Options) -> list[str]:
    cache = options.out / "texts"
    rich = {name: joined_texts(part, name, cache) for name, part in (("train", data.train), ("dev", data.dev))}
    fitted = torch.cat(list(rich["train"].values()), dim=1)
    held = torch.cat([texts[:, :1] for texts in rich["dev"].values()], dim=1)
    lines, curves = [], {}
    for kind in ENCODERS:
        figures = gather(
            data, options, kind, data.train.texts, MAIN_ROWS, f"{kind}-rich", fitted, held, [str(n) for n in JOINED]
        )
        lines += [f"\n### Flickr8k, {kind}: captions joined\n", *heading("captions joined")]
        of_count = {n: {row: [run["kinds"][str(n)] for run in runs] for row, runs in figures.items()} for n in JOINED}
        lines += [summary(str(count), one) for count, one in of_count.items()]
        curves[kind] = {count: gains(one, EDITED) for count, one in of_count.items()}
    draw_curves(curves, options.out / "richness.png")
    return lines


def draw_curves(curves: Mapping[str, Mapping[int, Sequence[float]]], path: Path) -> None:
    """Gain over the fine-tuning against the captions joined, a line an encoder, mean and spread over the seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for kind, of_count in curves.items():
        spreads = [Spread.of(values) for values in of_count.values()]
        deviations = [each.deviation or 0.0 for each in spreads]
        axes.errorbar(list(of_count), [each.mean for each in spreads], deviations, marker="o", capsize=3, label=kind)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xticks=list(JOINED), xlabel="captions joined to one text", ylabel="gain in the sum of six recalls")
    axes.set_title("edited over the same text fine-tuning, Flickr8k")
    axes.legend(title="encoder")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def swaps(data: Data, options: Options) -> list[str]:
    lines = []
    for kind in ENCODERS:
        runs = []
        for seed in options.seeds:
            towers, sets = fitted_on_halves(data, kind, data.train.texts, seed)
            captions = [caption for row in data.report.tolist() for caption in data.dev.captions[row]]

            def texts_of(texts: list[str], towers: Towers = towers) -> Tensor:
                with torch.no_grad():
                    return towers[1](minilm(texts, options.out / "texts"))

            scorers = robustness.fit(sets[0], sets[1], seed)
            runs.append(robustness.measure(replace(sets[2], captions=captions), texts_of, scorers, seed=seed))
            say(f"{kind}, swaps, seed {seed} done")
        lines += [f"\n### Flickr8k, {kind}: one word wrong\n", robustness.table(runs)]
    return lines


def fitted_on_halves(
    data: Data,
    kind: str,
    encoder_texts: Tensor,
    seed: int,
    fitted: Tensor | None = None,
    held: Tensor | None = None,
) -> tuple[Towers, list[Embeddings]]:
    """An encoder of the first half of train, and its embeddings of the second, of what chooses and of what reports."""
    first, second = halves(len(data.train), seed, "flickr8k halves")
    towers = ENCODERS[kind](data.train.images[first], encoder_texts[first], seed)
    return towers, [
        embedded(towers, data.train, second, "train", fitted),
        embedded(towers, data.dev, data.choose, "choose", held),
        embedded(towers, data.dev, data.report, "report", held),
    ]


def gather(
    data: Data,
    options: Options,
    kind: str,
    encoder_texts: Tensor,
    rows: Sequence[Row],
    name: str,
    fitted: Tensor | None = None,
    held: Tensor | None = None,
    kinds: Sequence[str] = (),
) -> Figures:
    """Row -> one result a seed, of an encoder fitted on `encoder_texts` (N, 5, d') of the first half of train.

    fitted (N, c, d'), held (D, c, d'): texts of train and dev to fit and report on, instead of the five captions;
    kinds: the c kinds of `held`.
    """
    figures: Figures = {row.name: [] for row in rows}
    for seed in options.seeds:
        _, sets = fitted_on_halves(data, kind, encoder_texts, seed, fitted, held)
        found = compare(
            sets[0],
            sets[1],
            {"report": sets[2]},
            seeds=(seed,),
            n_latents=1024,
            k=32,
            kinds={"report": list(kinds) * len(data.report)} if kinds else None,
            folder=options.out / f"{name}-{seed}",
            rows=rows,
        )
        for row in figures:
            figures[row] += list(found.figures["report"][row].values())
        say(f"{name}, seed {seed} done")
    return figures


def cut_texts(photographs: Photographs, share: float, cache: Path) -> Tensor:
    """(N, 5, d') features of the captions, each cut to a random run of a share of its words."""
    draw = generator(0, f"cut {share} train")
    texts = [cut(caption, share, draw) for captions in photographs.captions for caption in captions]
    return minilm(texts, cache).view(len(photographs), -1, photographs.texts.shape[2])


def joined_texts(photographs: Photographs, name: str, cache: Path) -> dict[int, Tensor]:
    """Number of captions joined -> (N, texts, d') features; single captions are those of the data."""
    found = {1: photographs.texts[:, : JOINED[1]]}
    for count, texts in list(JOINED.items())[1:]:
        draw = generator(0, f"join {count} {name}")
        joined = []
        for captions in photographs.captions:
            for _ in range(texts):
                order = torch.randperm(len(captions), generator=draw)[:count]
                joined.append(" ".join(captions[row] for row in order.tolist()))
        found[count] = minilm(joined, cache).view(len(photographs), texts, -1)
    return found


def recall_sums(runs: Sequence[Mapping[str, Any]]) -> list[float]:
    return [sum(run[measure] for measure in RECALLS) for run in runs]


def gains(figures: Figures, row: Row) -> list[float]:
    """What a row's sum of recalls is above that of the text fine-tuning, seed by seed."""
    sums, opponent = recall_sums(figures[row.name]), recall_sums(figures[TUNED.name])
    return [a - b for a, b in zip(sums, opponent, strict=True)]


def spread(values: Sequence[float], sign: str = "") -> str:
    return Spread.of(values).text(sign=sign)


def table(figures: Figures) -> list[str]:
    headings = ["row", "T2I R@1", "R@5", "R@10", "I2T R@1", "R@5", "R@10", "sum of six", "over fine-tuning"]
    lines = []
    for row in ROWS:
        if row.name not in figures:
            continue
        runs = figures[row.name]
        columns = [[run[measure] for run in runs] for measure in RECALLS]
        over = "" if row == TUNED else spread(gains(figures, row), "+")
        lines.append([row.name, *map(spread, columns), spread(recall_sums(runs)), over])
    return markdown(headings, lines).splitlines()


def heading(first: str) -> list[str]:
    rows = " | ".join(row.name for row in MAIN_ROWS)
    return [f"| {first} | {rows} | gain over fine-tuning | of its sum |", "|---" * (len(MAIN_ROWS) + 3) + "|"]


def summary(label: str, figures: Figures) -> str:
    """One line: sums of the six recalls, and the gain of the edit over the fine-tuning, seed by seed."""
    sums = {row.name: recall_sums(figures[row.name]) for row in MAIN_ROWS}
    gained = gains(figures, EDITED)
    share = 100 * fmean(gained) / fmean(sums[TUNED.name])
    return f"| {label} | " + " | ".join(map(spread, sums.values())) + f" | {spread(gained, '+')} | {share:+.1f} % |"


if __name__ == "__main__":
    main(tyro.cli(Options))
