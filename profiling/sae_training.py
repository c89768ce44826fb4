"""Training speed of the sparse autoencoder, beside its floor and beside a loop with a dense code.

    python profiling/sae_training.py [--latents 4096 8192] [--architectures topk batchtopk] [--json FILE]

For each size, in turns within one run, so that whatever else the machine does falls on all of them alike:

- `boresight`: `train_step`, the step that `SparseAutoencoder.fit` repeats.
- `dense`: the same TopK autoencoder, loss, clipping, Adam and unit directions in plain autograd: a (B, n) code,
  dense decoder, dense backward.
- `floor`: the arithmetic that no training can avoid, at the rate of the machine's own matrix product: the encoder
  once forward, 2 d n per row, and 8 d k for decoder and backward at the active entries. No selection, no optimiser.

Figures are embeddings a second, medians over rounds; ratios are medians of the ratios within a round. The data is
synthetic, sparse mixtures of random directions; no latent is dead, so the auxiliary loss is idle.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from boresight.sae import SparseAutoencoder
from boresight.sae.config import Plan, SaeConfig, SaeFit
from boresight.sae.matmul import pre_activations
from boresight.sae.rows import Rows
from boresight.sae.training import start_state, train_step
from boresight.seeds import generator

ATOMS, ACTIVE = 2048, 20


def mixtures(rows: int, width: int) -> Tensor:
    """(rows, width) unit rows, each a positive sum of 20 of 2,048 directions and a little noise."""
    draw = generator(0, "benchmark")
    atoms = torch.nn.functional.normalize(torch.randn(ATOMS, width, generator=draw), dim=1)
    picks = torch.randint(ATOMS, (rows, ACTIVE), generator=draw)
    amounts = torch.rand(rows, ACTIVE, generator=draw)
    summed = torch.nn.functional.embedding_bag(picks, atoms, per_sample_weights=amounts, mode="sum")
    return torch.nn.functional.normalize(summed + 0.02 * torch.randn(rows, width, generator=draw), dim=1)


def our_step(rows: Tensor, architecture: str, latents: int, k: int, batch: int) -> Callable[[Tensor], None]:
    config = SaeConfig(width=rows.shape[1], n_latents=latents, k=k, architecture=architecture)
    fit = SaeFit(n_latents=latents, k=k, batch_size=batch, dead_after=10**9, steps=10**6)
    plan = Plan.of(fit, len(rows))
    state = start_state(SparseAutoencoder(config), Rows(rows), plan, 1.0)
    out = torch.empty(batch, latents)

    def step(x: Tensor) -> None:
        train_step(state, config, plan, x, 1.0, out)

    return step


def dense_step(width: int, latents: int, k: int) -> Callable[[Tensor], None]:
    draw = generator(0, "dense")
    directions = torch.nn.functional.normalize(torch.randn(latents, width, generator=draw), dim=1)
    weight, bias_e = directions.clone(), torch.zeros(latents)
    bias = torch.zeros(width)
    parameters = [tensor.requires_grad_(True) for tensor in (weight, bias_e, directions, bias)]
    optimizer = torch.optim.Adam(parameters, lr=1e-4, fused=True)

    def step(x: Tensor) -> None:
        pre = (x - bias) @ weight.T + bias_e
        top = pre.topk(k, dim=1)
        code = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
        loss = (code @ directions + bias - x).square().sum(1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        with torch.no_grad():
            gradient = directions.grad
            gradient -= (gradient * directions).sum(1, keepdim=True) * directions
            optimizer.step()
            directions.div_(directions.norm(dim=1, keepdim=True))

    return step


def floor_step(width: int, latents: int, k: int, batch: int) -> Callable[[Tensor], None]:
    weight, bias_e = torch.randn(latents, width), torch.zeros(latents)
    out = torch.empty(batch, latents)
    # The 8 d k of the active entries as further rows of the same product.
    more = round(batch * 4 * k / latents)
    extra = torch.empty(more, latents)

    def step(x: Tensor) -> None:
        pre_activations(x, weight, bias_e, out)
        pre_activations(x[:more], weight, bias_e, extra)

    return step


def measure(
    rows: Tensor, latents: int, k: int, batch: int, rounds: int, architectures: list[str]
) -> dict[str, dict[str, float]]:
    width = rows.shape[1]
    steps = {name: our_step(rows, name, latents, k, batch) for name in architectures}
    steps |= {"dense": dense_step(width, latents, k), "floor": floor_step(width, latents, k, batch)}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        x = rows[(turn * batch) % (len(rows) - batch + 1) :][:batch]
        for name, step in steps.items():
            start = time.perf_counter()
            step(x)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    found = {}
    for name in steps:
        found[name] = {
            "embeddings_per_second": batch / statistics.median(seconds[name]),
            "times_dense": statistics.median(d / s for d, s in zip(seconds["dense"], seconds[name], strict=True)),
            "share_of_floor": statistics.median(f / s for f, s in zip(seconds["floor"], seconds[name], strict=True)),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latents", type=int, nargs="+", default=[4096, 8192])
    parser.add_argument("--architectures", nargs="+", default=["topk", "batchtopk", "jumprelu", "matryoshka"])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = mixtures(4 * arguments.batch, arguments.width)
    result = {}
    print(
        f"width {arguments.width}, k {arguments.k}, batch {arguments.batch}, {arguments.rounds} rounds, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(f"{'latents':>8} {'what':12} {'embeddings/s':>13} {'x dense':>8} {'of floor':>9}")
    for latents in arguments.latents:
        result[latents] = measure(
            rows, latents, arguments.k, arguments.batch, arguments.rounds, arguments.architectures
        )
        for name, found in result[latents].items():
            print(
                f"{latents:8d} {name:12} {found['embeddings_per_second']:13,.0f} "
                f"{found['times_dense']:8.2f} {found['share_of_floor']:8.0%}"
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
