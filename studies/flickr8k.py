"""Editing on real photographs: Flickr8k, small heads on frozen features as the encoder, in Markdown.

    python studies/flickr8k.py --data DIR

DIR holds `train.safetensors` and `dev.safetensors`, each with `image_features` (N, d) of a frozen image network and
`caption_features` (N, 5, d') of a frozen text network. For each seed the encoder is fitted on a random half of train,
autoencoder, editor and opponents on the other half; half of dev chooses, the other half is reported. Two encoders:

- `pca`: the image embedding is the first 256 principal components of the features, each over the root of its singular
  value; only a linear text head is trained, as in locked-image tuning;
- `heads`: linear heads on both sides, trained together.

Half of dev was looked at while the forms of the edit were compared, so read these figures as those of a validation set.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import torch
import tyro
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from boresight.embeddings import Embeddings
from boresight.evaluation import compare
from boresight.evaluation.comparison import ROWS
from boresight.progress import progress, say
from boresight.seeds import generator

WIDTH = 256
Towers = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Options:
    """Where the features are, where to keep what is finished, and over how many seeds to go."""

    data: Path
    out: Path = Path("runs/flickr8k")
    seeds: tuple[int, ...] = (0, 1, 2)


def main(options: Options) -> None:
    train, dev = (load_file(options.data / f"{split}.safetensors") for split in ("train", "dev"))
    half = torch.randperm(len(dev["image_features"]), generator=generator(0, "flickr8k dev"))
    choose, report = half[: len(half) // 2], half[len(half) // 2 :]
    for kind, fit in (("pca", pca_encoder), ("heads", heads_encoder)):
        figures: dict[str, list[dict[str, dict[str, float]]]] = {row.name: [] for row in ROWS}
        for seed in options.seeds:
            order = torch.randperm(len(train["image_features"]), generator=generator(seed, "flickr8k halves"))
            first, second = order[: len(order) // 2], order[len(order) // 2 :]
            towers = fit(train["image_features"][first].float(), train["caption_features"][first].float(), seed)
            sets = [
                embedded(towers, train, second, "train"),
                embedded(towers, dev, choose, "choose"),
                embedded(towers, dev, report, "report"),
            ]
            folder = options.out / f"{kind}-{seed}"
            found = compare(sets[0], sets[1], {"report": sets[2]}, seeds=(seed,), n_latents=1024, k=32, folder=folder)
            for row, runs in found.figures["report"].items():
                figures[row] += list(runs.values())
            say(f"{kind}, seed {seed} done")
        print(f"\n### {kind}\n\n{table(figures)}")


def embedded(towers: Towers, features: dict[str, Tensor], rows: Tensor, name: str) -> Embeddings:
    images, captions = features["image_features"][rows].float(), features["caption_features"][rows].float()
    with torch.no_grad():
        texts = towers[1](captions.flatten(0, 1))
        owners = torch.arange(len(rows)).repeat_interleave(captions.shape[1])
        ids = [f"{name} {row}" for row in rows.tolist()]
        return Embeddings.from_arrays(towers[0](images), texts, owners, ids=ids, name=name)


def pca_encoder(images: Tensor, captions: Tensor, seed: int) -> Towers:
    centre = images.mean(0)
    _, values, axes = torch.linalg.svd(images - centre, full_matrices=False)
    scaled = axes[:WIDTH].T / values[:WIDTH].sqrt()

    def image(features: Tensor) -> Tensor:
        return F.normalize((features - centre) @ scaled, dim=-1)

    head = text_head(captions, seed)
    fit_heads(image, head, [*head.parameters()], images, captions, seed, rate=2e-3, decay=0.1)
    return image, lambda features: F.normalize(head(features), dim=-1)


def heads_encoder(images: Tensor, captions: Tensor, seed: int) -> Towers:
    left, right = Standardised(images, seed, "image"), text_head(captions, seed)

    def image(features: Tensor) -> Tensor:
        return F.normalize(left(features), dim=-1)

    parameters = [*left.parameters(), *right.parameters()]
    fit_heads(image, right, parameters, images, captions, seed, rate=1e-3, decay=0.5)
    return image, lambda features: F.normalize(right(features), dim=-1)


class Standardised(nn.Module):
    """A linear head on features of mean zero and mean square one over the fitted rows."""

    centre: Tensor
    scale: Tensor

    def __init__(self, features: Tensor, seed: int, name: str) -> None:
        super().__init__()
        self.register_buffer("centre", features.mean(0))
        self.register_buffer("scale", features.std())
        self.linear = nn.Linear(features.shape[1], WIDTH)
        draw = generator(seed, f"flickr8k {name} head")
        nn.init.normal_(self.linear.weight, std=features.shape[1] ** -0.5, generator=draw)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear((features - self.centre) / self.scale)


def text_head(captions: Tensor, seed: int) -> Standardised:
    return Standardised(captions.flatten(0, 1), seed, "text")


def fit_heads(
    image: Callable[[Tensor], Tensor],
    text: nn.Module,
    parameters: list[nn.Parameter],
    images: Tensor,
    captions: Tensor,
    seed: int,
    *,
    rate: float,
    decay: float,
    steps: int = 250,
    batch: int = 256,
) -> None:
    """Symmetric InfoNCE with one random caption an image; 250 steps, before small heads overfit 3,000 photographs."""
    scale = nn.Parameter(torch.tensor(math.log(20.0)))
    groups = [{"params": parameters, "weight_decay": decay}, {"params": [scale], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    draw, target = generator(seed, "flickr8k batches"), torch.arange(batch)
    for _ in progress(range(steps), what="encoder", unit="step"):
        rows = torch.randperm(len(images), generator=draw)[:batch]
        said = captions[rows, torch.randint(captions.shape[1], (batch,), generator=draw)]
        scores = image(images[rows]) @ F.normalize(text(said), dim=-1).T * scale.exp().clamp(max=100)
        loss = (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def table(figures: dict[str, list[dict[str, dict[str, float]]]]) -> str:
    lines = ["| row | T2I R@1 | R@5 | R@10 | I2T R@1 | R@5 | R@10 | sum of six |", "|---" * 8 + "|"]
    for row, runs in figures.items():
        columns = [[run[side][f"R@{k}"] for run in runs] for side in ("t2i", "i2t") for k in (1, 5, 10)]
        columns.append([sum(values) for values in zip(*columns, strict=True)])
        cells = [f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "") for values in columns]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(Options))
