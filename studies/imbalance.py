"""Does editing an image by its caption help more where captions tell less of it? Small CLIPs on MAD, in Markdown.

    python studies/imbalance.py

Schrodi et al. (arXiv 2404.07983) trace modality gap and object bias to *information imbalance*: images hold what their
captions leave out. TEVI (arXiv 2606.07451) edits away what a caption leaves out. So its gain should grow with the
imbalance, and vanish where captions tell all.

The world is `worlds.mad`: a class and five attributes, of which captions tell exactly k. For every k and
seed a CLIP is trained from nothing on the split 'encoder', with captions of k attributes; the pictures, batches and
steps are the same for all. Autoencoder, editors and opponents are fitted on the split 'train' by `compare`, with
captions of k attributes too (`--learn told`) or of all five (`--learn whole`), and chosen on 'validation'. On 'test':

- R@1 in both directions, with captions of k attributes and with those of all five, each kind in a gallery of its own.
  Beside it what perfect matching gets: all pairs that agree tied, above all others. It is not 100, because many
  pictures agree with a caption of few attributes. And what probes get, which are told the truth about the split
  'train': linear probes read class and attributes off the image alone, and a caption's score is how much likelier its
  words are for the image than for any. What they have over 'plain' is there to be gained by a better reading of the
  same embeddings; what they lack of perfect matching is not.
- Modality gap and object bias of pictures with their captions of k attributes, plain, edited, and with other pictures
  edited by these captions: what the captions write into any.
- What linear probes read off images, plain and edited by their captions of k attributes, where the caption tells the
  attribute and where not; the mean over the five attributes. The probes are fitted on further pictures. A caption may
  write its own words into the edit, which passes for retention of what is told; `retention.py` takes that apart.

A word that no training caption has, as all attributes' at k = 0, means nothing to the text tower. Figures are mean ±
sample standard deviation over seeds, which change weights, batches and fits, not the world. What is done is kept, and
not done again. `scenes_by_objects.py` asks the like of the scenes: more objects, of which captions tell one.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import pyarrow as pa
import torch
import tyro
from matplotlib.figure import Figure
from torch.nn import functional as F

from attribute_retention import attribute_retention
from boresight import load_encoder
from boresight.data import Collection
from boresight.data.assemble import dataset_of
from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings, embed
from boresight.errors import InputError
from boresight.evaluation import compare
from boresight.evaluation.alignment import alignment_report
from boresight.evaluation.comparison_rows import EDITED, EDITED_MASKS, MEMORY, PLAIN, RANDOM, SHUFFLED, TUNED, Row
from boresight.evaluation.pairs import matched_pairs
from boresight.evaluation.probes import fit_probe, object_bias
from boresight.progress import say
from boresight.recall import count_image_to_text, count_text_to_image
from boresight.storage import replace_text
from boresight.tables import Spread
from boresight.training.checkpoints import CHECKPOINT, MODEL
from boresight.training.config import PretrainConfig, StreamConfig
from boresight.training.recipe import train_on
from boresight.training.shards import open_rows
from clips import small_encoder
from kept import keep, kept
from markdown_tables import markdown
from worlds.mad import FACTORS, make_mad
from worlds.small_clip import SmallClipConfig, train_tokenizer

SHAPE = SmallClipConfig(
    image_size=28,
    patch_size=4,
    image_width=96,
    image_layers=3,
    image_heads=3,
    text_width=96,
    text_layers=2,
    text_heads=3,
    projection=128,
    context=16,
    vocabulary=768,
)
ALL = len(FACTORS)
ROWS = (PLAIN, TUNED, MEMORY, EDITED, EDITED_MASKS, RANDOM, SHUFFLED)
GAINS: tuple[tuple[Row, Row], ...] = (
    (EDITED, PLAIN),
    (EDITED, TUNED),
    (EDITED, MEMORY),
    (EDITED_MASKS, TUNED),
)
DIRECTIONS = {"t2i": "T2I", "i2t": "I2T"}
PERFECT, PROBED = "perfect matching", "read by probes"
LYING = {"RMG": ("plain", "edited", "shuffled images"), "L2M": ("plain", "edited", "shuffled images")}
LYING |= {"object bias, images": ("plain", "edited"), "object bias, texts": ("plain", "edited")}
PROBES = 1000  # the seed of the pictures that probes are fitted on, beside the world's 0
Figures = Mapping[int, Sequence[Mapping[str, Any]]]  # k -> what each seed found


@dataclass(frozen=True)
class Options:
    """What to train and on how much, and where to keep what is finished."""

    out: Path = Path("runs/imbalance")
    attributes: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    """k, the attributes that training captions tell"""
    seeds: tuple[int, ...] = (0, 1, 2)
    learn: Literal["told", "whole"] = "told"
    """captions that editors and opponents learn from: of k attributes, or of all five"""
    source: Path | None = None
    """a folder of MNIST or Fashion-MNIST in IDX form; drawn digits if left out"""
    steps: int = 1500
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup: int = 100
    n_images: int = 12000
    n_train: int = 4000
    n_validation: int = 500
    n_test: int = 1000
    n_probe: int = 1500
    n_latents: int = 1024


def main(options: Options) -> None:
    torch.set_num_threads(1)
    for k in options.attributes:
        if not 0 <= k <= ALL:
            raise InputError(f"Captions tell 0 to {ALL} attributes, not {k}; change `attributes`.")
    results: dict[int, list[dict[str, Any]]] = {}
    for seed in options.seeds:
        for k in options.attributes:
            results.setdefault(k, []).append(measured(k, seed, options))
    text = report(results, options)
    print(text)
    replace_text(options.out / options.learn / "imbalance.md", text + "\n")
    draw_gains(results).savefig(options.out / options.learn / "imbalance.png", dpi=150)


def measured(k: int, seed: int, options: Options) -> dict[str, Any]:
    """Figures of one encoder: recalls, retention, what is perfect, what probes read."""
    results = compared(k, seed, options)
    for asked, recall in probed(k, seed, options).items():
        results["recall"][asked][PROBED] = recall
    return results


def compared(k: int, seed: int, options: Options) -> dict[str, Any]:
    """`measured` but for the probes, from their file where they are finished."""
    place = f"{k}-attributes-{seed}"
    settings = {**_of_encoder(options), **_of_rows(options)}
    folder = options.out / options.learn / place
    if (done := kept(folder / "found.json", settings)) is not None:
        return done
    encoder = load_encoder(trained(k, seed, options.out / "models" / place, options), dtype="float32")

    def embedded(split: str, n: int, told: Sequence[int], world_seed: int = 0) -> Embeddings:
        pictures = telling(world(split, n, world_seed, options.source), told)
        return embed(encoder, pictures, workers=0, dtype="float32")

    learnt, asked = [k if options.learn == "told" else ALL], sorted({k, ALL})
    test = embedded("test", options.n_test, asked)
    comparison = compare(
        embedded("train", options.n_train, learnt),
        embedded("validation", options.n_validation, learnt),
        {"test": test},
        seeds=(seed,),
        n_latents=options.n_latents,
        kinds={"test": [str(each) for each in asked] * len(test)},
        folder=folder,
        rows=ROWS,
    )
    editor = CaptionEditor.load(folder / f"seed-{seed}" / "edited")
    shown = world("test", options.n_test, 0, options.source)
    probing = world("validation", options.n_probe, PROBES, options.source)
    results = {
        "recall": {
            str(each): {
                row.name: {
                    side: comparison.values("test", row.name, f"{words} R@1", str(each))[0]
                    for side, words in DIRECTIONS.items()
                }
                for row in ROWS
            }
            | {PERFECT: perfect(shown, each)}
            for each in asked
        },
        "retention": retention(
            editor,
            (embedded("validation", options.n_probe, [k], PROBES), probing),
            (test, shown),
            k,
        ),
        "lying": lying(editor, embedded("test", options.n_test, [k]), shown),
    }
    keep(folder / "found.json", settings, results)
    say(f"{place}: {json.dumps(results['recall'][str(ALL)])}")
    return results


def probed(k: int, seed: int, options: Options) -> dict[str, dict[str, float]]:
    """R@1 of probes, with captions of k attributes and of all; from their file where they are finished."""
    place = f"{k}-attributes-{seed}"
    settings = {**_of_encoder(options), **_of_rows(options)}
    if (done := kept(options.out / "probes" / f"{place}.json", settings)) is not None:
        return done
    encoder = load_encoder(trained(k, seed, options.out / "models" / place, options), dtype="float32")
    fitted, shown = (
        world(split, n, 0, options.source) for split, n in (("train", options.n_train), ("test", options.n_test))
    )
    seen, read = (embed(encoder, telling(one, [k]), workers=0, dtype="float32").images for one in (fitted, shown))
    truth, values = codes(fitted, shown).split([len(fitted), len(shown)])
    results = {
        str(asked): recall_by_probes(seen, truth, read, values, told_by(shown, asked)) for asked in sorted({k, ALL})
    }
    keep(options.out / "probes" / f"{place}.json", settings, results)
    return results


def recall_by_probes(
    seen: torch.Tensor, truth: torch.Tensor, read: torch.Tensor, values: torch.Tensor, told: torch.Tensor
) -> dict[str, float]:
    """R@1 in percent, ties shared, where a caption scores sum log p(word | image) / p(word) over the words it tells.

    seen: (N, d) images that the probes are fitted on, truth: (N, 6) their `codes`; read: (M, d) images, values: (M, 6)
    the codes of their captions, told: (M, 5) as `told_by`.
    """
    scores = torch.zeros(len(read), len(read), dtype=torch.float64)  # [image, caption]
    asked = torch.cat([torch.ones(len(read), 1, dtype=torch.bool), told], dim=1)
    for at, of in enumerate(values.T):
        classes = int(torch.cat([truth[:, at], of]).max()) + 1
        likelier = fit_probe(seen, truth[:, at], classes).log_probabilities(read)
        likelier -= (torch.bincount(truth[:, at], minlength=classes) + 1).div(len(truth) + classes).log()
        scores += torch.where(asked[:, at], likelier[:, of], 0.0)
    owners = torch.arange(len(read))
    results = {"t2i": count_text_to_image(scores, owners), "i2t": count_image_to_text(scores, owners)}
    return {side: 100 * float(counts.recall(1).mean()) for side, counts in results.items()}


def trained(k: int, seed: int, out: Path, options: Options) -> Path:
    """The folder of a CLIP trained on captions of k attributes; trained now unless it is there."""
    settings = _of_encoder(options)
    if kept(out / "trained.json", settings) is None:
        data = world("encoder", options.n_images, 0, options.source)
        tokenizer = train_tokenizer(data.texts, SHAPE)  # of captions of every k, so the same for all
        encoder = small_encoder(tokenizer, SHAPE, seed)
        config = PretrainConfig(
            steps=options.steps,
            batch_size=min(options.batch_size, len(data)),
            captions="web",
            learning_rate=options.learning_rate,
            warmup=options.warmup,
            weight_decay=0.1,
            every=200,
            seed=seed,
        )
        # A crop would change the size of the digit, which captions tell; a mirror image is no digit.
        stream = StreamConfig(minimum_area=1.0, flip=False)
        done = train_on(open_rows(telling(data, [k])), encoder, out, config, stream, tensorboard=False)
        keep(out / "trained.json", settings, {"loss": done.loss})
    shutil.rmtree(out / CHECKPOINT, ignore_errors=True)
    return out / MODEL


@cache
def world(split: str, n: int, seed: int, source: Path | None) -> Collection:
    """With captions of every k, in that order."""
    return make_mad(n, split, range(ALL + 1), seed, source)


def telling(collection: Collection, told: Sequence[int]) -> Collection:
    """The pictures with only those captions that tell so many attributes."""
    table = collection.dataset.data.table
    captions = pa.array([[captions[k] for k in told] for captions in collection.captions])
    place = table.column_names.index("captions")
    return Collection(dataset_of(table.set_column(place, "captions", captions)), collection.name)


def codes(*collections: Collection) -> torch.Tensor:
    """(N, 6) int64: class and attributes of each picture, as numbers that are the same for all `collections`."""
    truths = [json.loads(text) for collection in collections for text in collection.dataset["attributes"]]
    values = {"class": sorted({truth["class"] for truth in truths}), **FACTORS}
    return torch.tensor([[list(words).index(truth[name]) for name, words in values.items()] for truth in truths])


def told_by(collection: Collection, k: int) -> torch.Tensor:
    """(N, 5) bool: which of FACTORS the caption of k attributes tells."""
    described = [json.loads(text)[k] for text in collection.dataset["described"]]
    return torch.tensor([[name in told for name in FACTORS] for told in described])


def perfect(collection: Collection, k: int) -> dict[str, float]:
    """R@1 in percent where all pairs that agree are tied, above all others; captions of k attributes.

    In T2I nothing is better. In I2T, to prefer captions that agree with few pictures can be.
    """
    values = codes(collection)
    asked = torch.cat([torch.ones(len(values), 1, dtype=torch.bool), told_by(collection, k)], dim=1)
    t2i, of_image = 0.0, torch.zeros(len(values))
    for told, mine in zip(asked, values, strict=True):
        agree = ((values == mine) | ~told).all(1)
        t2i += 1 / int(agree.sum())
        of_image += agree
    return {"t2i": 100 * t2i / len(values), "i2t": 100 * float((1 / of_image).mean())}


def lying(editor: CaptionEditor, test: Embeddings, shown: Collection) -> dict[str, dict[str, float]]:
    """Measure -> 'plain', 'edited' or 'shuffled images' -> value; of LYING."""
    values = codes(shown)
    sizes = [len(words) for words in FACTORS.values()]
    attributes = torch.cat([F.one_hot(of, size) for of, size in zip(values[:, 1:].T, sizes, strict=True)], dim=1)
    results = alignment_report(test, editor)
    for row, scorer in (("plain", None), ("edited", editor)):
        pairs = matched_pairs(test, scorer)
        shown_rows = [test.ids.index(identity) for identity in pairs.ids]
        labels = values[shown_rows, 0], attributes[shown_rows].bool()
        for side, vectors in (("images", pairs.images), ("texts", pairs.texts)):
            results[row][f"object bias, {side}"] = object_bias(vectors, *labels)
    return {measure: {row: results[row][measure] for row in rows} for measure, rows in LYING.items()}


def retention(
    editor: CaptionEditor, fit: tuple[Embeddings, Collection], test: tuple[Embeddings, Collection], k: int
) -> dict[str, dict[str, float]]:
    """'told' and 'left out' -> accuracy of probes on plain and edited images and of guessing: means over FACTORS.

    A sort that no attribute is of, as 'left out' at k = 5, is not there.
    """
    parts = []
    for embeddings, collection in (fit, test):
        each = len(embeddings.texts) // len(embeddings)
        images, texts = embeddings.images.float(), embeddings.texts[::each].float()  # k stands first
        features = {"plain": images, "edited": editor.edit(images, texts).cpu()}
        parts.append((features, codes(collection)[:, 1:], told_by(collection, k)))
    (fitted, seen, _), (read, truth, told) = parts
    results: dict[str, dict[str, list[float]]] = {}
    for row in fitted:
        for at, words in enumerate(FACTORS.values()):
            retained = attribute_retention(
                fitted[row], seen[:, at], read[row], truth[:, at], told[:, at], classes=len(words)
            )
            for sort, value in (("told", retained["described"]), ("left out", retained["undescribed"])):
                if not math.isnan(value):
                    results.setdefault(sort, {}).setdefault(row, []).append(value)
                    results[sort].setdefault("guessing", []).append(retained["guessing"])
    return {sort: {row: fmean(values) for row, values in rows.items()} for sort, rows in results.items()}


def report(results: Figures, options: Options) -> str:
    seeds = ", ".join(map(str, options.seeds))
    learnt = "captions of k attributes" if options.learn == "told" else "captions of all five attributes"
    lines = [
        f"CLIPs of {options.steps:,} steps of {options.batch_size} pictures, {options.n_images:,} in all; editors and "
        f"opponents fitted on {options.n_train:,} others with {learnt}; seeds {seeds}. R@1 in percent, "
        f"{options.n_test:,} pictures."
    ]
    for title, asked in (("of k attributes", None), ("of all five attributes", ALL)):
        for side, words in DIRECTIONS.items():
            cells = {
                k: [
                    Spread.of([run["recall"][str(k if asked is None else asked)][row][side] for run in runs]).text()
                    for row in (*(row.name for row in ROWS), PROBED, PERFECT)
                ]
                for k, runs in results.items()
            }
            lines += ["", f"### Captions {title}: {words} R@1", ""]
            lines += table([*(row.name for row in ROWS), PROBED, PERFECT], cells)
    headings = [f"{ours.name} - {other.name}" for ours, other in GAINS]
    for title, asked in (("of k attributes", None), ("of all five attributes", ALL)):
        cells = {
            k: [Spread.of(gains(runs, k if asked is None else asked, *pair)).text(sign="+") for pair in GAINS]
            for k, runs in results.items()
        }
        lines += ["", f"### Captions {title}: gain in the mean of T2I and I2T R@1", "", *table(headings, cells)]
    columns = [(measure, row) for measure, rows in LYING.items() for row in rows]
    cells = {
        k: [Spread.of([run["lying"][measure][row] for run in runs]).text(3) for measure, row in columns]
        for k, runs in results.items()
    }
    lines += ["", "### How pictures and their captions of k attributes lie", ""]
    lines += table([f"{measure}: {row}" for measure, row in columns], cells)
    sorts = [(sort, row) for sort in ("told", "left out") for row in ("guessing", "plain", "edited")]
    cells = {
        k: [
            Spread.of([run["retention"][sort][row] for run in runs]).text() if sort in runs[0]["retention"] else ""
            for sort, row in sorts
        ]
        for k, runs in results.items()
    }
    lines += ["", "### What probes read of the five attributes, accuracy in percent", ""]
    return "\n".join([*lines, *table([f"{sort}: {row}" for sort, row in sorts], cells)])


def table(headings: Sequence[str], rows: Mapping[int, Sequence[str]]) -> list[str]:
    return markdown(["k", *headings], [[str(k), *cells] for k, cells in rows.items()]).splitlines()


def gains(runs: Sequence[Mapping[str, Any]], asked: int, ours: Row, other: Row) -> list[float]:
    """How much higher the mean of both R@1 is, seed by seed, in points."""
    recalls = [run["recall"][str(asked)] for run in runs]
    return [fmean(recall[ours.name].values()) - fmean(recall[other.name].values()) for recall in recalls]


def draw_gains(results: Figures) -> Figure:
    """Gains against k, a line for each of GAINS, a panel for either kind of caption."""
    drawn = Figure(figsize=(10, 4), layout="constrained")
    titles = ("captions of k attributes", "captions of all five attributes")
    for axes, title, asked in zip(drawn.subplots(1, 2, sharey=True), titles, (None, ALL), strict=True):
        for ours, other in GAINS:
            points = [Spread.of(gains(runs, k if asked is None else asked, ours, other)) for k, runs in results.items()]
            means, errors = [point.mean for point in points], [point.deviation or 0.0 for point in points]
            axes.errorbar(list(results), means, errors, marker="o", capsize=3, label=f"{ours.name} - {other.name}")
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(title=title, xticks=list(results), xlabel="attributes that training captions tell, of five")
        axes.spines[["top", "right"]].set_visible(False)
    drawn.axes[0].set_ylabel("gain in R@1, points")
    drawn.axes[0].legend(fontsize=8)
    return drawn


@cache
def _stamp(source: Path | None) -> str:
    """Changes with what the world draws or says."""
    data = world("test", 50, 0, source).dataset
    pictures = b"".join(image["bytes"] for image in data["image"])
    return hashlib.sha256(pictures + json.dumps(data["captions"][:]).encode()).hexdigest()[:16]


def _of_encoder(options: Options) -> dict[str, Any]:
    """What decides an encoder beside its k and seed."""
    names = ("steps", "batch_size", "learning_rate", "warmup", "n_images")
    return {"shape": asdict(SHAPE), "world": _stamp(options.source), **{name: getattr(options, name) for name in names}}


def _of_rows(options: Options) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("n_train", "n_validation", "n_test", "n_probe", "n_latents")}


if __name__ == "__main__":
    main(tyro.cli(Options))
