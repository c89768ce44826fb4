"""Does training on parts of long synthetic captions beat training on the whole of them? CLIPS at a small scale.

    python studies/clips.py

Small CLIPs, each from nothing, by boresight's own training: the same pictures, batches and steps for all; only the
captions and what is added differ. They fit on the split 'encoder' of the emoji collection and of the scenes, with the
web and synthetic captions of `worlds.synthetic_captions`; the tokenizer is learnt from the same. Choose
on `--split validation`. Arms:

    web                     web captions alone: a plain CLIP
    synthetic, whole        the long captions uncut
    truncate 16, ...        the long captions reduced to 8, 16 or 32 tokens: their first ones, random ones, a block of
                            neighbours, or whole sentences from a random start on, cut at the budget
    one sentence            one sentence drawn, as the published code does, of at most 32 tokens
    two positives 32        web and sub-caption, a softmax each
    captioner               web, with a captioner that writes the long caption
    all, 32                 two positives and the captioner: CLIPS
    ..., light              these two with a tenth of the captioner's published weight: 0.2 for 2
    one softmax, 32         two positives of each picture in one softmax
    clean                   in place of web captions one of the collection's own three, drawn anew each time: what
                            the shipped model learnt from
    clean + 32, clean + whole   these and the sub-caption, or the whole long caption, a softmax each

A text tower has as many positions as its arm's captions need, and cuts longer ones when it is tested. Tests ask for R@1
in both directions with captions like the web ones (none astray, one a picture) and with the collection's own of each
kind, 'short', 'medium' and 'long', each kind in a gallery of its own; 'own' is the mean of the three.

Beside them stand what a step costs: seconds of one thread, reading the batch included, and tokens that the text tower
reads, padding included. Figures are mean ± sample standard deviation over seeds, which change weights, batches and
crops, not the captions. What is done is kept, row by row, and not done again.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import pyarrow as pa
import torch
import tyro
from matplotlib.figure import Figure

from boresight import load_encoder
from boresight.data import Collection
from boresight.data.assemble import dataset_of
from boresight.data.worlds.emoji.load import load_emoji
from boresight.data.worlds.scenes import make_scenes
from boresight.embeddings import embed
from boresight.encoders.hf import TransformersEncoder
from boresight.errors import InputError
from boresight.evaluation.retrieval import evaluate_retrieval
from boresight.progress import say
from boresight.storage import replace_text
from boresight.tables import Spread
from boresight.training.checkpoints import CHECKPOINT, MODEL
from boresight.training.config import CaptionerShape, Captions, Loss, PretrainConfig, Stage, Strategy, StreamConfig
from boresight.training.recipe import train_on
from boresight.training.shards import open_rows
from kept import keep, kept
from markdown_tables import markdown
from worlds.small_clip import SmallClipConfig, small_clip, small_processor, train_tokenizer
from worlds.synthetic_captions import SYNTHETIC, WEB, web_captions, with_training_captions

SHAPE = SmallClipConfig(
    image_size=64,
    patch_size=16,
    image_width=96,
    image_layers=3,
    image_heads=3,
    text_width=96,
    text_layers=2,
    text_heads=3,
    projection=128,
    vocabulary=2048,
)
CAPTIONER = CaptionerShape(width=64, layers=2, heads=2, queries=102)  # the longest caption and its end
ENDS = 2  # start and end tokens
CLEAN = "captions"  # the column of the collection's own
FIRST_TOKENS = {WEB: 30, CLEAN: 60}  # content of all captions but one in a hundred; of the clean ones one in thirty
WHOLE_TOKENS = 101
BUDGETS = (8, 16, 32)
REDUCTIONS: tuple[Strategy, ...] = ("truncate", "random", "block", "sub-caption")
KINDS = ("short", "medium", "long")
MEASURES = ("web T2I", "web I2T", "own T2I", "own I2T")


@dataclass(frozen=True)
class Arm:
    """What a training contrasts pictures with, and what it adds.

    `first` names the column of its short captions; `captioning` is the weight of a captioner's loss.
    """

    captions: Captions = "synthetic"
    strategy: Strategy = "sub-caption"
    budget: int = 32
    fill: bool = True
    captioner: bool = False
    captioning: float = 2.0
    loss: Loss = "softmax"
    first: str = WEB

    @property
    def text_length(self) -> int:
        """Tokens that the text tower has positions for, start and end included."""
        synthetic = WHOLE_TOKENS if self.strategy == "none" else self.budget
        first = FIRST_TOKENS[self.first]
        return ENDS + {"web": first, "synthetic": synthetic, "both": max(first, synthetic)}[self.captions]

    @property
    def texts(self) -> int:
        return 2 if self.captions == "both" else 1


ARMS: dict[str, Arm] = {
    "web": Arm(captions="web"),
    "synthetic, whole": Arm(strategy="none"),
    **{f"{name} {budget}": Arm(strategy=name, budget=budget) for name in REDUCTIONS for budget in BUDGETS},
    "one sentence": Arm(fill=False),
    "two positives 16": Arm(captions="both", budget=16),
    "two positives 32": Arm(captions="both"),
    "two positives, whole": Arm(captions="both", strategy="none"),
    "captioner": Arm(captions="web", captioner=True),
    "all, 32": Arm(captions="both", captioner=True),
    "captioner, light": Arm(captions="web", captioner=True, captioning=0.2),
    "all, 32, light": Arm(captions="both", captioner=True, captioning=0.2),
    "one softmax, 32": Arm(captions="both", loss="multi-positive"),
    "clean": Arm(captions="web", first=CLEAN),
    "clean + 32": Arm(captions="both", first=CLEAN),
    "clean + whole": Arm(captions="both", strategy="none", first=CLEAN),
}


@dataclass(frozen=True)
class Options:
    """What to train, for how long, and where to keep what is finished."""

    out: Path = Path("runs/clips")
    worlds: tuple[str, ...] = ("emoji", "scenes")
    seeds: tuple[int, ...] = (0, 1, 2)
    arms: tuple[str, ...] = tuple(ARMS)
    split: Literal["test", "validation"] = "test"
    steps: int = 600
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup: int = 50
    n_images: int | None = None
    """pictures to fit on, at most"""
    n_test: int | None = None
    """pictures of each test, at most"""


def main(options: Options) -> None:
    torch.set_num_threads(1)
    for given, known in ((options.worlds, WORLDS), (options.arms, ARMS)):
        for name in given:
            if name not in known:
                raise InputError(f"There is no '{name}'; choose from {', '.join(known)}.")
    folder, report = options.out / options.split, []
    for world in options.worlds:
        results: dict[str, list[dict[str, Any]]] = {}
        for seed in options.seeds:
            for arm in options.arms:
                results.setdefault(arm, []).append(measured(world, seed, arm, options))
        report.append(table(world, results, options))
        print(f"\n{report[-1]}", flush=True)
        replace_text(folder / "clips.md", "\n".join(report))
        if drawn := figure(world, results):
            drawn.savefig(folder / f"{world}.png", dpi=150)


def measured(world: str, seed: int, arm: str, options: Options) -> dict[str, Any]:
    """Figures of an arm, from its file where it is finished: cost, and for each test set its kinds of captions."""
    place = f"{world}-{seed}/{re.sub('[^a-z0-9]+', '-', arm)}"
    trained = options.out / "models" / place
    settings = {"arm": asdict(ARMS[arm]), **_of_outcome(world, options)}
    file = options.out / options.split / f"{place}.json"
    if (done := kept(file, settings)) is not None:
        return done
    cost = kept(trained / "cost.json", settings)
    if cost is None:
        cost = train_arm(world, seed, ARMS[arm], trained, options)
        keep(trained / "cost.json", settings, cost)
        shutil.rmtree(trained / CHECKPOINT)
    encoder = load_encoder(trained / MODEL, device="cpu", dtype="float32")
    results: dict[str, Any] = {"cost": cost, "tests": {}}
    for name, test in tests(world, options.split, options.n_test).items():
        result = evaluate_retrieval(
            embed(encoder, test, workers=0, dtype="float32"), kinds=[*KINDS, WEB] * len(test), device="cpu"
        )
        results["tests"][name] = result.to_dict()["kinds"]
    keep(file, settings, results)
    say(f"{place}: {json.dumps({name: headline(test) for name, test in results['tests'].items()})} {json.dumps(cost)}")
    return results


def train_arm(world: str, seed: int, arm: Arm, out: Path, options: Options) -> dict[str, float]:
    """Train into `out`; seconds of the processor and text tokens of a step, and tokens of its captioner."""
    data = training_set(world, options.n_images)
    shape = replace(SHAPE, context=arm.text_length)
    tokenizer = train_tokenizer([*data.dataset[WEB][:], *data.dataset[SYNTHETIC][:]], shape)  # of all arms the same
    encoder = small_encoder(tokenizer, shape, seed)
    config = PretrainConfig(
        steps=options.steps,
        batch_size=min(options.batch_size, len(data)),
        captions=arm.captions,
        loss=arm.loss,
        captioning_weight=arm.captioning,
        learning_rate=options.learning_rate,
        warmup=options.warmup,
        weight_decay=0.1,
        stages=(Stage(text_length=arm.text_length),),
        every=200,
        seed=seed,
    )
    # Left and right are words of the captions, and so is the place of a thing: no mirror images, hardly a crop.
    stream = StreamConfig(
        strategy=arm.strategy,
        budget=arm.budget,
        fill=arm.fill,
        minimum_area=0.85,
        flip=False,
    )
    rows = open_rows(data, arm.first, SYNTHETIC)
    captioner = CAPTIONER if arm.captioner else None
    began = time.perf_counter(), time.process_time()
    trained = train_on(rows, encoder, out, config, stream, captioner=captioner, tensorboard=False)
    # Other work on the machine is not this arm's cost, so its share of the time is taken off.
    share = (time.process_time() - began[1]) / (time.perf_counter() - began[0])
    speed = trained.images_per_second  # 0 where the last call had left no step to do
    return {
        "seconds": share * config.batch_size / speed if speed else math.nan,
        "text tokens": config.batch_size * arm.text_length * arm.texts,
        "captioner tokens": config.batch_size * CAPTIONER.queries * arm.captioner,
        "loss": trained.loss,
    }


def small_encoder(tokenizer: Any, shape: SmallClipConfig, seed: int) -> TransformersEncoder:
    """A CLIP with weights drawn from `seed`, to be trained; its tokenizer splits each text once."""
    return TransformersEncoder(
        small_clip(tokenizer, shape, seed),
        Remembering(tokenizer),
        small_processor(tokenizer, shape).image_processor,
        name="small clip",
        fingerprint="",
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


class Remembering:
    """A tokenizer that splits each text once: with models so small, splitting would cost more than learning."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._content: dict[str, list[int]] = {}

    def __call__(self, text: Any, **options: Any) -> Any:
        if options.get("add_special_tokens", True):
            return self._tokenizer(text, **options)
        texts = [text] if isinstance(text, str) else text
        if new := [one for one in texts if one not in self._content]:
            self._content.update(zip(new, self._tokenizer(new, **options)["input_ids"], strict=True))
        rows = [self._content[one] for one in texts]
        return {"input_ids": rows[0] if isinstance(text, str) else rows}

    def __len__(self) -> int:
        return len(self._tokenizer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


@cache
def emoji() -> Collection:
    return load_emoji(size=SHAPE.image_size)


def emoji_of(split: str, n: int | None) -> Collection:
    part = emoji().split(split)
    return part if n is None else part.select(range(min(n, len(part))))


def scenes_of(split: str, n: int | None) -> Collection:
    default = {"encoder": 4000, "validation": 500}.get(split, 1000)
    return make_scenes(n or default, size=SHAPE.image_size, split=split)


WORLDS = {"emoji": emoji_of, "scenes": scenes_of}
TEST_SPLITS = {"emoji": ("test-combination", "test-style"), "scenes": ("test", "test-combination")}


@cache
def training_set(world: str, n: int | None) -> Collection:
    """With web and synthetic captions; the pictures as bitmaps, which are read in no time."""
    data = with_training_captions(WORLDS[world]("encoder", n))
    bitmaps = []
    for row in range(len(data)):
        data.image(row).save(written := io.BytesIO(), "BMP")
        bitmaps.append({"bytes": written.getvalue(), "path": None})
    table = data.dataset.data.table
    images = pa.array(bitmaps, table.schema.field("image").type)
    return Collection(dataset_of(table.set_column(table.column_names.index("image"), "image", images)), data.name)


@cache
def tests(world: str, split: str, n: int | None) -> dict[str, Collection]:
    """Test sets whose pictures have their own three captions and a fourth like the web's."""
    names = TEST_SPLITS[world] if split == "test" else (split,)
    results = {}
    for name in names:
        part = WORLDS[world](name, n)
        like_web = web_captions(part, astray=False)
        captions = [[*own, web] for own, web in zip(part.captions, like_web, strict=True)]
        columns = part.dataset.select_columns(["id", "image", "split"])
        rows = columns.flatten_indices() if columns._indices else columns
        results[name] = Collection(dataset_of(rows.data.table.append_column("captions", pa.array(captions))), part.name)
    return results


def headline(kinds: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """R@1 by MEASURES, in percent, of a test set's figures by kind of caption."""
    sides = ("T2I R@1", "I2T R@1")
    values = [*(kinds[WEB][side] for side in sides), *(fmean(kinds[kind][side] for kind in KINDS) for side in sides)]
    return dict(zip(MEASURES, values, strict=True))


def table(world: str, results: Mapping[str, Sequence[Mapping[str, Any]]], options: Options) -> str:
    """Arms by R@1 on every test set, with the cost of a step."""
    names = list(next(iter(results.values()))[0]["tests"])
    cells = []
    for arm, runs in results.items():
        recalls = [
            Spread.of([headline(run["tests"][name])[measure] for run in runs]).text()
            for name in names
            for measure in MEASURES
        ]
        seconds = Spread.of([run["cost"]["seconds"] for run in runs]).text(2)
        cells.append([arm, *recalls, seconds, f"{runs[0]['cost']['text tokens']:,}"])
    headings = ["method", *(f"{name}: {measure}" for name in names for measure in MEASURES)]
    over = f"{options.steps} steps of {options.batch_size} pictures, seeds {', '.join(map(str, options.seeds))}"
    headings += ["CPU s a step", "text tokens a step"]
    return f"### {world}: R@1 in percent ({over})\n\n{markdown(headings, cells)}\n"


def figure(world: str, results: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure | None:
    """R@1 against tokens, a line a reduction, on the first test set; None where no reduction was run."""
    lines = {name: [budget for budget in BUDGETS if f"{name} {budget}" in results] for name in REDUCTIONS}
    if not any(lines.values()):
        return None
    test = next(iter(next(iter(results.values()))[0]["tests"]))
    drawn = Figure(figsize=(11, 6), layout="constrained")
    for axes, measure in zip(drawn.subplots(2, 2, sharex=True).flat, MEASURES, strict=True):

        def spread(arm: str, measure: str = measure) -> Spread:
            return Spread.of([headline(run["tests"][test])[measure] for run in results[arm]])

        for name, budgets in lines.items():
            points = [spread(f"{name} {budget}") for budget in budgets]
            means, errors = [point.mean for point in points], [point.deviation or 0 for point in points]
            axes.errorbar(budgets, means, errors, marker="o", capsize=3, label=name)
        for arm, style in (("synthetic, whole", "--"), ("web", ":")):
            if arm in results:
                axes.axhline(spread(arm).mean, linestyle=style, color="grey", label=arm)
        axes.set_title(measure)
        axes.set_xlabel("tokens kept of the synthetic caption")
        axes.set_ylabel("R@1, percent")
        axes.set_xticks(BUDGETS)
    drawn.axes[0].legend(fontsize=8)
    drawn.suptitle(f"{world}, {test}")
    return drawn


def _of_outcome(world: str, options: Options) -> dict[str, Any]:
    """What decides a row beside its seed, arm and split."""
    names = ("steps", "batch_size", "learning_rate", "warmup", "n_images", "n_test")
    settings = {name: getattr(options, name) for name in names}
    data = training_set(world, options.n_images).dataset
    texts = "\n".join(text for column in ("id", WEB, SYNTHETIC) for text in data[column][:])
    stamp = hashlib.sha256(texts.encode()).hexdigest()[:16]
    return {"shape": asdict(SHAPE), "captioner": asdict(CAPTIONER), "data": stamp, **settings}


if __name__ == "__main__":
    main(tyro.cli(Options))
