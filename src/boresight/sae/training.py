"""The fit of a sparse autoencoder: where it starts, its steps, its checkpoints."""

from __future__ import annotations

import functools
import math
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from boresight.errors import InputError
from boresight.progress import progress
from boresight.sae import objective
from boresight.sae.activations import top_of_batch
from boresight.sae.config import Plan, SaeConfig
from boresight.sae.matmul import pre_activations
from boresight.sae.model import SaeModel
from boresight.sae.rows import SAMPLE, Rows, data_scale
from boresight.seeds import generator
from boresight.storage import MANIFEST, load_artefact, save_artefact

_THRESHOLD_MEMORY = 0.99  # of BatchTopK's running threshold, over steps
_THRESHOLD_HASTE = 10.0  # learning rate of JumpReLU's thresholds, logarithms that have far to go, over the others'
_WINDOW = 0.25  # width of JumpReLU's window as a share of the starting threshold


def train_sae(sae: SaeModel, rows: Rows, plan: Plan, checkpoint: Path | None, every: int) -> None:
    """Fit `sae` in place, on its device.

    The data is divided by the root of its mean squared norm while training and the weights multiplied back at the
    end, so that one learning rate serves embeddings of every length.
    """
    scale, variance = data_scale(rows)
    state = start_state(sae, rows, plan, scale)
    settings = {"config": asdict(sae.config), "options": asdict(plan), "data": rows.fingerprint()}
    weights = state.weights
    if checkpoint is not None:
        _resume(checkpoint, state, settings)
    out = torch.empty(min(plan.batch_size, len(rows)), sae.n_latents, device=sae.bias.device)
    with progress(total=plan.steps, initial=state.step, what="sparse autoencoder", unit="step") as bar:
        while state.step < plan.steps:
            x = (rows[batch_rows(len(rows), plan.batch_size, plan.seed, state.step)] / scale).to(sae.bias.device)
            loss = train_step(state, sae.config, plan, x, variance / scale**2, out[: len(x)])
            bar.update(1)
            if state.step % 100 == 0:
                bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
            if checkpoint is not None and (state.step % every == 0 or state.step == plan.steps):
                save_artefact(checkpoint, "sae-checkpoint", state.tensors(), {"step": state.step, **settings})
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.tensors().values()):
        raise InputError("Training diverged (a weight is not finite); choose a smaller learning_rate.")
    with torch.no_grad():
        sae.encoder_weight.copy_(weights.encoder_weight)
        sae.encoder_bias.copy_(weights.encoder_bias * scale)
        sae.directions.copy_(weights.directions)
        sae.bias.copy_(weights.bias * scale)
        threshold = state.threshold if weights.log_threshold is None else weights.log_threshold.exp()
        sae.threshold.copy_(threshold * scale)


def geometric_median(rows: Tensor, iterations: int = 100, tolerance: float = 1e-6) -> Tensor:
    """The point with the least sum of distances to the rows, by Weiszfeld's iteration: (N, d) -> (d,).

    A row closer to the point than 1e-6 of the mean distance is weighted as if it lay at that distance, so that a
    start or a step that lands on a row does not stop there.
    """
    points = rows.double()
    median = points.mean(0)
    for _ in range(iterations):
        distances = (points - median).norm(dim=1)
        weights = 1 / distances.clamp_min(1e-6 * float(distances.mean()) + 1e-300)
        moved = (weights @ points) / weights.sum()
        done = float((moved - median).norm()) <= tolerance * float(distances.mean())
        median = moved
        if done:
            break
    return median.to(rows.dtype)


class State:
    """All that changes while training, and so all that a checkpoint holds."""

    def __init__(self, weights: objective.Weights, learning_rate: float, bandwidth: float) -> None:
        self.weights = weights
        self.step = 0
        self.idle = torch.zeros(len(weights.encoder_bias), dtype=torch.int64, device=weights.bias.device)
        self.threshold = torch.zeros((), device=weights.bias.device)
        self.bandwidth = bandwidth
        self.parameters = {name: tensor for name, tensor in vars(weights).items() if tensor is not None}
        for tensor in self.parameters.values():
            tensor.requires_grad_(True)
        groups = [
            {"params": [tensor], "times": _THRESHOLD_HASTE if name == "log_threshold" else 1.0}
            for name, tensor in self.parameters.items()
        ]
        self.optimizer = torch.optim.Adam(groups, lr=learning_rate, fused=True)
        for tensor in self.parameters.values():
            self.optimizer.state[tensor] = {
                "step": torch.zeros((), device=tensor.device),
                "exp_avg": torch.zeros_like(tensor),
                "exp_avg_sq": torch.zeros_like(tensor),
            }

    def tensors(self) -> dict[str, Tensor]:
        """Views of the whole state by name; copying into them restores it."""
        held = {"idle": self.idle, "threshold": self.threshold}
        for name, tensor in self.parameters.items():
            held[name] = tensor.detach()
            held |= {f"{name}.{key}": value for key, value in self.optimizer.state[tensor].items()}
        return held


def start_state(sae: SaeModel, rows: Rows, plan: Plan, scale: float) -> State:
    """The state before the first step, for rows that are divided by `scale`; directions are uniform on the sphere."""
    config, device = sae.config, sae.bias.device
    sample = rows.sample(SAMPLE, plan.seed) / scale
    bias = geometric_median(sample).to(device)
    drawn = torch.randn(config.n_latents, config.width, generator=generator(plan.seed, "sae directions"))
    directions = torch.nn.functional.normalize(drawn, dim=1).to(device)
    log_threshold, bandwidth = None, 0.0
    encoder_bias = torch.zeros(config.n_latents, device=device)
    if config.architecture == "jumprelu":
        # The threshold at which the untrained code already has k active latents a row.
        some = sample[: max(1, 2**22 // config.n_latents)].to(device)
        _, smallest = top_of_batch(pre_activations(some - bias, directions, encoder_bias), config.k * len(some))
        log_threshold = torch.full((config.n_latents,), math.log(max(smallest, 1e-4)), device=device)
        bandwidth = _WINDOW * max(smallest, 1e-4)
    weights = objective.Weights(directions.clone(), encoder_bias, directions.clone(), bias.clone(), log_threshold)
    return State(weights, plan.learning_rate, bandwidth)


def train_step(state: State, config: SaeConfig, plan: Plan, x: Tensor, variance: float, out: Tensor) -> Tensor:
    """One step on x (B, d), with `out` (B, n) to hold the pre-activations; returns the loss, detached."""
    weights = state.weights
    for group in state.optimizer.param_groups:
        group["lr"] = group["times"] * plan.rate(state.step)
    done = objective.run(
        x,
        weights,
        config,
        bandwidth=state.bandwidth,
        dead=(state.idle > plan.dead_after).nonzero()[:, 0],
        aux_k=plan.aux_k if plan.aux_coefficient > 0 else 0,
        guess=0.8 * float(state.threshold),
        out=out,
    )
    total = objective.loss(x, done, variance, plan.aux_coefficient)
    if weights.log_threshold is not None:
        total = total + objective.sparsity_loss(done, config.k)
    state.optimizer.zero_grad(set_to_none=True)
    total.backward()
    _update(state, plan)
    _remember(state, done, len(x))
    state.step += 1
    return total.detach()


def _update(state: State, plan: Plan) -> None:
    """One step of Adam that keeps the directions at unit length."""
    torch.nn.utils.clip_grad_norm_(state.parameters.values(), plan.clip)
    directions = state.weights.directions
    with torch.no_grad():
        gradient = directions.grad
        assert gradient is not None
        # The part along the direction would only change its length, which is fixed.
        along = torch.bmm(gradient[:, None, :], directions[:, :, None])[:, 0]
        gradient.addcmul_(directions, along, value=-1)
        state.optimizer.step()
        directions /= directions.norm(dim=1, keepdim=True).clamp_min(1e-12)


@torch.no_grad()
def _remember(state: State, done: objective.Pass, batch: int) -> None:
    state.idle += batch
    state.idle[done.latents[done.values > 0]] = 0
    if state.weights.log_threshold is None and done.smallest > 0:
        memory = _THRESHOLD_MEMORY if float(state.threshold) > 0 else 0.0
        state.threshold.mul_(memory).add_((1 - memory) * done.smallest)


def batch_rows(count: int, batch_size: int, seed: int, step: int) -> Tensor:
    """(B,) int64 ascending: the rows of batch `step`. Every epoch is a new order, cut into equal batches.

    A function of the step alone, so that a resumed fit reads what the first would have read.
    """
    batches = math.ceil(count / batch_size)
    return _order(count, seed, step // batches).tensor_split(batches)[step % batches].sort().values


@functools.lru_cache(maxsize=1)
def _order(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, f"sae epoch {epoch}"))


def _resume(folder: Path, state: State, settings: dict) -> None:
    """Continue from the checkpoint in `folder`, if there is one. Raises InputError when it is of another fit."""
    if not (folder / MANIFEST).exists():
        return
    tensors, manifest = load_artefact(folder, "sae-checkpoint")
    different = [key for key in settings if manifest.get(key) != settings[key]]
    if different:
        raise InputError(
            f"The checkpoint in {folder} is of a fit with other {' and '.join(different)}; choose an empty folder."
        )
    for name, tensor in state.tensors().items():
        tensor.copy_(tensors[name])
    state.step = manifest["step"]
