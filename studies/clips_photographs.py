"""Parts of long captions on photographs: heads on Flickr8k's frozen features, trained the CLIPS way, as Markdown.

    python studies/clips_photographs.py --data DIR

DIR is described in `photographs.py`. Of the five captions of a photograph of train, the first is degraded to a *web
caption* (each word dropped with probability 0.35; with 0.06 another photograph's, with 0.04 saying nothing), and the
other four, joined, are the *synthetic* one: it is written by people, and long, about 50 tokens. Arms are those of
`clips.py`; a captioner needs tokens, and there are none. Reduced texts pass through the frozen text network anew,
`DRAWS` of each caption, of which every step takes one.

Two linear heads are trained, for 256 dimensions. How many steps was chosen on half of dev (`--half choose`); the other
half is reported, in two galleries: its five captions each, and all five joined. Figures are mean ± sample standard
deviation over seeds, which draw weights and batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F

from boresight.evaluation.retrieval import evaluate_retrieval
from boresight.progress import say
from boresight.seeds import generator
from boresight.storage import replace_json, replace_text
from boresight.tables import Spread
from boresight.training.contrastive import clamp_scale, clips_loss, infonce_loss, multi_positive_loss
from boresight.training.parameters import rate_share
from boresight.training.subcaptions import reduce
from clips import ARMS, Arm
from markdown_tables import markdown
from photographs import (
    Photographs,
    Standardised,
    embedded,
    halves,
    load_photographs,
    minilm,
    minilm_tokenizer,
    text_head,
)
from worlds.synthetic_captions import DROPPED, EMPTY, NOTHING, STRAY

DRAWS = 2
CHOSEN = tuple(name for name, arm in ARMS.items() if not arm.captioner and not name.startswith("clean"))
MEASURES = ("a caption T2I", "a caption I2T", "five joined T2I", "five joined I2T")


@dataclass(frozen=True)
class Options:
    """Where the features are, and how to train."""

    data: Path
    out: Path = Path("runs/clips-photographs")
    seeds: tuple[int, ...] = (0, 1, 2)
    arms: tuple[str, ...] = CHOSEN
    half: str = "report"
    """of dev, 'choose' or 'report'"""
    steps: int = 250
    batch_size: int = 256
    learning_rate: float = 1e-3


def main(options: Options) -> None:
    train, dev = (load_photographs(options.data, split) for split in ("train", "dev"))
    held = halves(len(dev), 0, "flickr8k dev")[("choose", "report").index(options.half)]
    joined = minilm([" ".join(captions) for captions in dev.captions], options.out / "texts")[:, None]
    texts = {name: training_texts(train, ARMS[name], options.out / "texts") for name in options.arms}
    found: dict[str, list[list[float]]] = {}
    for name in options.arms:
        for seed in options.seeds:
            towers = fit(train.images, texts[name], ARMS[name], seed, options)
            measured = []
            for gallery in (None, joined):
                result = evaluate_retrieval(embedded(towers, dev, held, "dev", gallery), device="cpu")
                measured += [result["T2I R@1"], result["I2T R@1"]]
            found.setdefault(name, []).append(measured)
        say(f"{name}: {found[name]}")
    cells = {name: [Spread.of(column).text() for column in zip(*runs, strict=True)] for name, runs in found.items()}
    told = f"{options.steps} steps of {options.batch_size}, half '{options.half}' of dev, {len(held)} photographs"
    table = markdown(["method", *MEASURES], [[name, *row] for name, row in cells.items()])
    report = f"### Flickr8k, heads on frozen features: R@1 in percent ({told})\n\n{table}\n"
    print(report)
    replace_text(options.out / f"clips-{options.half}.md", report)
    replace_json(options.out / f"clips-{options.half}.json", {"steps": options.steps, "found": found})


def training_texts(train: Photographs, arm: Arm, cache: Path) -> list[Tensor]:
    """What the arm contrasts photographs with: (N, draws, d') unit length each of web and synthetic captions."""
    sets = []
    if arm.captions != "synthetic":
        sets.append(minilm(web_captions(train.captions), cache)[:, None])
    if arm.captions != "web":
        long = [". ".join(text.rstrip(" .") for text in captions[1:]) + "." for captions in train.captions]
        draws = 1 if arm.strategy in ("none", "truncate") else DRAWS
        sets.append(torch.stack([minilm(reduced(long, arm, draw), cache) for draw in range(draws)], dim=1))
    return sets


def web_captions(captions: Sequence[Sequence[str]]) -> list[str]:
    """The first caption of each photograph with words missing, or astray."""
    texts = []
    for row, (first, *_) in enumerate(captions):
        numbers = torch.rand(64, generator=generator(0, f"web caption {row}"), dtype=torch.float64).tolist()
        fate, which, *each = numbers
        if fate < STRAY:
            first = captions[int(which * len(captions))][0]
        elif fate < STRAY + EMPTY:
            texts.append(NOTHING[int(which * len(NOTHING))])
            continue
        words = first.split()
        kept = [word for word, number in zip(words, each, strict=False) if number >= DROPPED]
        texts.append(" ".join(kept or words[:1]))
    return texts


def reduced(long: Sequence[str], arm: Arm, draw: int) -> list[str]:
    tokenizer = minilm_tokenizer()
    texts = []
    for row, text in enumerate(long):
        random = generator(0, f"reduced {arm.strategy} {arm.budget} {draw} {row}")
        ids = reduce(text, arm.strategy, arm.budget, tokenizer, random, fill=arm.fill)
        texts.append(tokenizer.decode(ids))
    return texts


def fit(images: Tensor, texts: Sequence[Tensor], arm: Arm, seed: int, options: Options) -> Any:
    """Linear heads on both sides, AdamW with a cosine to zero."""
    left, right = Standardised(images, seed, "image"), text_head(texts[0], seed)
    scale = nn.Parameter(torch.tensor(math.log(20.0)))
    parameters = [*left.parameters(), *right.parameters()]
    groups = [{"params": parameters, "weight_decay": 0.5}, {"params": [scale], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=options.learning_rate)
    draw = generator(seed, "clips photographs batches")
    for step in range(options.steps):
        for group in optimiser.param_groups:
            group["lr"] = options.learning_rate * rate_share(step, options.steps, 0)
        rows = torch.randperm(len(images), generator=draw)[: options.batch_size]
        which = torch.rand(len(rows), generator=draw)
        seen = F.normalize(left(images[rows]), dim=-1)
        said = [F.normalize(right(each[rows, (which * each.shape[1]).long()]), dim=-1) for each in texts]
        if len(said) == 1:
            loss = infonce_loss(seen, said[0], scale)
        elif arm.loss == "softmax":
            loss = clips_loss(seen, said[0], said[1], scale)
        else:
            loss = multi_positive_loss(seen, torch.cat(said), torch.arange(len(seen)).repeat(2), scale)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        clamp_scale(scale)
    return lambda features: F.normalize(left(features), dim=-1), lambda features: F.normalize(right(features), dim=-1)


if __name__ == "__main__":
    main(tyro.cli(Options))
