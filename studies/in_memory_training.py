"""The loop that the shipped model was made by: data in memory, two threads, checkpoints that resume to the same.

`boresight.training` is what trains models now; this is kept so that the shipped weights can be made again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel

from boresight.errors import ArtefactError, InputError
from boresight.progress import progress
from boresight.seeds import generator
from boresight.storage import load_artefact, save_artefact
from boresight.training.contrastive import clamp_scale
from boresight.training.parameters import rate_share
from in_memory_pairs import Batch, Pairs, augment, mix
from shared_captions import infonce_of_shared

KIND = "contrastive training"


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """Settings of one training; together with the data and the weights at its start they decide its outcome."""

    steps: int = 1500
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    warmup: int = 100
    gradient_norm: float = 1.0
    seed: int = 0
    shards: int = 2


def train(
    model: CLIPModel,
    sources: Sequence[Pairs],
    config: ContrastiveConfig,
    *,
    checkpoint: str | Path | None = None,
    every: int = 100,
    watch: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Fit `model` in place with AdamW, a linear warm-up and a cosine down to zero.

    A batch takes an equal share of each source and one random caption of each image. It is embedded in `shards`
    slices, one thread each; the loss sees the whole batch, so the number of shards changes the gradient by rounding
    only.

    Args:
        model: float32, on the CPU.
        sources: collections to mix.
        checkpoint: folder to write every `every` steps and at the end, atomically. Where it exists already with the
            same settings and data, training goes on from it.
        watch: called as watch(step, mean loss since the last call) at each of those points.

    Returns:
        The loss of each step done by this call.

    Raises:
        InputError: the loss or a gradient is NaN or infinite; the checkpoint keeps the last good weights.
        ArtefactError: the checkpoint was made with other settings or data, or cannot be read or written.
    """
    optimiser = _optimiser(model, config)
    origin = _origin(sources, config) if checkpoint else {}
    start = _resume(checkpoint, model, optimiser, origin) if checkpoint and Path(checkpoint).exists() else 0
    losses: list[float] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // config.shards))
    bar = progress(total=config.steps, initial=start, what="train", unit="step")
    model.train()
    try:
        with bar, ThreadPoolExecutor(config.shards, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for step in range(start, config.steps):
                for group in optimiser.param_groups:
                    group["lr"] = config.learning_rate * rate_share(step, config.steps, config.warmup)
                batch = mix(sources, step, config.batch_size, config.seed)
                images = augment(batch.pixels, generator(config.seed, f"augment {step}")) * 2 - 1
                loss = _gradients(model, images, batch, config.shards, pool)
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_norm)
                if not math.isfinite(loss) or not math.isfinite(norm):
                    kept = f"; {checkpoint} keeps the last good weights" if checkpoint else ""
                    raise InputError(
                        f"The loss or its gradient is no longer finite at step {step} (loss {loss}){kept}; "
                        "lower the learning rate and start again."
                    )
                optimiser.step()
                clamp_scale(model.logit_scale)
                losses.append(loss)
                bar.update(1)
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                done = step + 1
                if done % every == 0 or done == config.steps:
                    if checkpoint:
                        _save(checkpoint, model, optimiser, origin, done)
                    if watch:
                        recent = losses[-(done % every or every) :]  # the last stretch may be shorter
                        watch(done, sum(recent) / len(recent))
                        model.train()
    finally:
        torch.set_num_threads(threads)
        model.eval()
    return losses


def _gradients(model: CLIPModel, images: Tensor, batch: Batch, shards: int, pool: ThreadPoolExecutor) -> float:
    """Set `.grad` of every parameter for one batch and return its loss.

    Each shard keeps its own graph; the loss is taken over all embeddings as leaves, and their gradients go back
    through the shards. Threads of one process share cores with others better than one operation split over threads.
    """

    def forward(part: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        image = model.get_image_features(pixel_values=part[0]).pooler_output
        return F.normalize(image, dim=-1), F.normalize(_text_features(model, part[1]), dim=-1)

    embedded = list(pool.map(forward, zip(images.chunk(shards), batch.tokens.chunk(shards), strict=True)))
    leaves = [torch.cat(side).detach().requires_grad_() for side in zip(*embedded, strict=True)]
    loss = infonce_of_shared(leaves[0], leaves[1], model.logit_scale, batch.shared())
    *back, scale_gradient = torch.autograd.grad(loss, [*leaves, model.logit_scale])

    parameters = [value for value in model.parameters() if value is not model.logit_scale]
    sizes = [len(image) for image, _ in embedded]

    def backward(part: tuple[tuple[Tensor, Tensor], Tensor, Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(part[0], parameters, part[1:])

    shares = list(pool.map(backward, zip(embedded, back[0].split(sizes), back[1].split(sizes), strict=True)))
    for parameter, *gradients in zip(parameters, *shares, strict=True):
        parameter.grad = sum(gradients[1:], start=gradients[0])
    model.logit_scale.grad = scale_gradient
    return float(loss.detach())


def _text_features(model: CLIPModel, tokens: Tensor, group: int = 16) -> Tensor:
    """(B, projection) text features of (B, T) tokens, captions of like length together to spare the fillers.

    No attention mask is needed: attention is causal and fillers come after the end token, whose state is what is
    pooled.
    """
    lengths = (tokens != tokens[:, -1:]).sum(1) + 1
    order = lengths.argsort(stable=True)
    parts = [
        model.get_text_features(input_ids=tokens[rows, : int(lengths[rows].max())]).pooler_output
        for rows in order.split(group)
    ]
    return torch.cat(parts)[order.argsort()]


def _optimiser(model: CLIPModel, config: ContrastiveConfig) -> torch.optim.AdamW:
    matrices = [value for value in model.parameters() if value.ndim >= 2]
    others = [value for value in model.parameters() if value.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)


def _origin(sources: Sequence[Pairs], config: ContrastiveConfig) -> dict[str, Any]:
    """What a checkpoint was made from, as its manifest says it."""
    return {"settings": asdict(config), "data": [[source.name, source.fingerprint] for source in sources]}


def _save(
    folder: str | Path, model: CLIPModel, optimiser: torch.optim.AdamW, origin: dict[str, Any], step: int
) -> None:
    tensors: dict[str, Tensor] = {}
    for name, value in model.named_parameters():
        state = optimiser.state[value]
        tensors |= {f"model/{name}": value, f"first/{name}": state["exp_avg"], f"second/{name}": state["exp_avg_sq"]}
    save_artefact(folder, KIND, tensors, {"step": step, **origin})


def _resume(folder: str | Path, model: CLIPModel, optimiser: torch.optim.AdamW, origin: dict[str, Any]) -> int:
    """Put a checkpoint's weights and moments back; returns the number of steps done."""
    tensors, manifest = load_artefact(folder, KIND)
    for what, value in origin.items():
        if manifest.get(what) != value:
            raise ArtefactError(f"{folder} was made with other {what}; use the same or another folder.")
    step = int(manifest["step"])
    with torch.no_grad():
        for name, value in model.named_parameters():
            if f"model/{name}" not in tensors or tensors[f"model/{name}"].shape != value.shape:
                raise ArtefactError(f"{folder} was made with another model (see '{name}'); use another folder.")
            value.copy_(tensors[f"model/{name}"])
            optimiser.state[value] = {
                "step": torch.tensor(float(step)),
                "exp_avg": tensors[f"first/{name}"].clone(),
                "exp_avg_sq": tensors[f"second/{name}"].clone(),
            }
    return step
