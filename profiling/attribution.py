"""M2IB per pair on a ViT-B/32 of random weights, both maps, one thread: the plain algorithm against the fast engine.

    python profiling/attribution.py [--pairs 2] [--batch 8] [--rounds 3] [--reference 64]

    naive        the layer hooked, both towers run for every sample and step, one pair at a time, from
                 tests/support/naive_m2ib.py; 10 samples a step, as published; two are timed and scaled to ten
    iid          the product's engine under the same noise, one pair at a time: equal maps, checked here
    iid, batch   the same, `--batch` pairs at once
    antithetic   4 antithetic samples, one pair at a time and `--batch` at once
    interaction  the token by patch map of one pair
    forward      one joint forward of both towers: the floor

Seconds are medians over interleaved rounds, and what counts is their ratio within one run. Then how well the maps of
few samples repeat: the rank correlation of the patches with a map of `--reference` samples, over four seeds, beside
that of the published 10 independent samples. Memory: peak of the process before and after 64 pairs.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median

import torch
from scipy.stats import spearmanr
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from boresight.attribution import M2IB
from boresight.attribution.methods.bottleneck import draw_noise
from boresight.attribution.methods.interaction import interaction
from boresight.encoders.towers.hf import hf_towers
from boresight.seeds import generator

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
from naive_m2ib import naive_m2ib

TOKENS = 12
LAYER = 10  # behind the layers 0 to 9, as published
TIMED_STEPS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2, help="pairs whose maps are compared with the naive ones")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reference", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, pixels, ids = made(arguments.batch)
    towers = hf_towers(model)
    iid = M2IB(model, layer=LAYER, noise="iid", n_samples=10, batch_size=arguments.batch)
    antithetic = M2IB(model, layer=LAYER, batch_size=arguments.batch)

    equal(model, iid, pixels[: arguments.pairs], ids[: arguments.pairs])
    work: dict[str, tuple[Callable[[], object], int]] = {
        "forward": (lambda: forward(model, pixels[:1], ids[:1]), 1),
        "naive": (lambda: [naive(model, iid, pixels[:1], ids[:1], side, TIMED_STEPS) for side in ("image", "text")], 1),
        "iid": (lambda: iid.attribute(pixels[:1], ids[:1]), 1),
        "iid, batch": (lambda: iid.attribute(pixels, ids), len(ids)),
        "antithetic": (lambda: antithetic.attribute(pixels[:1], ids[:1]), 1),
        "antithetic, batch": (lambda: antithetic.attribute(pixels, ids), len(ids)),
        "interaction": (lambda: interaction(towers, {"pixel_values": pixels[:1]}, {"input_ids": ids[:1]}), 1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(arguments.rounds):
        for name, (run, pairs) in work.items():
            start = time.perf_counter()
            run()
            taken = (time.perf_counter() - start) / pairs
            seconds[name].append(taken * iid.steps / TIMED_STEPS if name == "naive" else taken)
    naive_seconds, floor = median(seconds["naive"]), median(seconds["forward"])
    print(f"{'per pair':20} {'seconds':>9} {'naive / it':>11} {'it / forward':>13}")
    for name, values in seconds.items():
        print(f"{name:20} {median(values):9.3f} {naive_seconds / median(values):11.1f} {median(values) / floor:13.1f}")

    few = {
        "iid, 10 samples (published)": iid,
        "antithetic, 4 samples": antithetic,
        "antithetic, 2 samples": M2IB(model, layer=LAYER, n_samples=2),
    }
    many = M2IB(model, layer=LAYER, n_samples=arguments.reference, batch_size=1)
    print(f"\nrank correlation of the patches with {arguments.reference} samples, {arguments.pairs} pairs x 4 seeds")
    truth = many.attribute(pixels[: arguments.pairs], ids[: arguments.pairs], target="image", seed=99)[0]
    for name, method in few.items():
        correlations = [
            rank_correlation(
                method.attribute(pixels[row][None], ids[row][None], target="image", seed=seed)[0], truth[row]
            )
            for row in range(arguments.pairs)
            for seed in range(4)
        ]
        print(f"{name:30} {min(correlations):.3f} to {max(correlations):.3f}, mean {fmean(correlations):.3f}")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    antithetic.attribute(pixels.repeat(8, 1, 1, 1)[:64], ids.repeat(8, 1)[:64])
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory {before:.0f} MB so far, {after:.0f} MB after 64 pairs in batches of {arguments.batch}")


def made(pairs: int) -> tuple[CLIPModel, Tensor, Tensor]:
    """A `CLIPModel` of its default configuration, ViT-B/32, with noise for images and captions of TOKENS tokens."""
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig()).eval()
    draw = generator(0, "attribution benchmark")
    ids = torch.randint(1000, 40000, (pairs, TOKENS), generator=draw)
    ids[:, 0], ids[:, -1] = 49406, 49407
    return model, torch.randn(pairs, 3, 224, 224, generator=draw), ids


@torch.no_grad()
def forward(model: CLIPModel, pixels: Tensor, ids: Tensor) -> None:
    model.get_image_features(pixel_values=pixels)
    model.get_text_features(input_ids=ids)


def naive(model: CLIPModel, method: M2IB, pixels: Tensor, ids: Tensor, side: str, steps: int) -> Tensor:
    tower = getattr(hf_towers(model), side)
    width = tower.blocks[0].norm1.weight.shape[0]
    like = torch.empty(1, TOKENS if side == "text" else 50, width)
    return naive_m2ib(
        model,
        {"pixel_values": pixels},
        {"input_ids": ids},
        side,
        LAYER,
        lambda step: draw_noise(tower, like, method.noise, method.n_samples, 0, step)[:, 0],
        steps=steps,
    )


def equal(model: CLIPModel, method: M2IB, pixels: Tensor, ids: Tensor) -> None:
    """Stops unless both engines give the same maps under the same noise, to 1e-5 of the largest value."""
    images, texts = method.attribute(pixels, ids)
    for row in range(len(ids)):
        for side, fast in (("image", images[row].flatten()), ("text", texts[row])):
            slow = naive(model, method, pixels[row][None], ids[row][None], side, method.steps)[-len(fast) :]
            model.zero_grad(set_to_none=True)
            difference = float((fast - slow).abs().max() / slow.abs().max())
            print(f"pair {row}, {side}: largest difference {difference:.1e} of the largest value")
            if difference > 1e-5:
                raise SystemExit("The engines disagree.")


def rank_correlation(values: Tensor, truth: Tensor) -> float:
    return float(spearmanr(values.flatten(), truth.flatten()).statistic)


if __name__ == "__main__":
    main()
