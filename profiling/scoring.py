"""Exact edited scores of every image against every caption, beside the plain cosine matrix and a decode per pair.

    python profiling/scoring.py [--images 5000] [--texts 25000] [--width 512] [--latents 8192] [--k 32]

Each measurement runs in a process of its own, so that its peak memory is its own, and the rounds are interleaved, so
that a slow minute of the machine hits all alike. Scores are computed block by block and dropped, in every row alike:

    cosine      images @ texts.T: the floor, no score of every pair can be faster
    captions    preparing the captions of an editor, masks included (the image side is prepared before the clock)
    undivided   scores of prepared captions, one inner product over [x ; z]
    divided     scores of prepared captions, divided by the exact length of each pair
    decode      (mask * codes) @ directions for each caption, on a few captions, scaled up

The embeddings are random and the mask is untrained, set to keep most: cost does not depend on what the weights are.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from torch import Tensor

from boresight.editing import CaptionEditor, EditorConfig
from boresight.sae import SparseAutoencoder
from boresight.sae.config import SaeConfig
from boresight.seeds import generator

BLOCK = 512
DECODED = 4
WHAT = ("inputs", "cosine", "captions", "undivided", "divided", "decode")


def made(arguments: argparse.Namespace, exponent: float) -> tuple[CaptionEditor, Tensor, Tensor]:
    draw = generator(0, "benchmark")
    unit = torch.nn.functional.normalize
    sae = SparseAutoencoder(SaeConfig(width=arguments.width, n_latents=arguments.latents, k=arguments.k))
    sae.directions.data = unit(torch.randn(sae.directions.shape, generator=draw), dim=1)
    sae.encoder_weight.data = sae.directions.data.clone()
    editor = CaptionEditor(sae, EditorConfig(form="residual", length_exponent=exponent))
    editor.mask_network.start(0)
    images = unit(torch.randn(arguments.images, arguments.width, generator=draw), dim=1)
    texts = unit(torch.randn(arguments.texts, arguments.width, generator=draw), dim=1)
    return editor, images, texts


@torch.inference_mode()
def one(what: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds and peak resident MB of this process for one measurement."""
    editor, images, texts = made(arguments, 1.0 if what == "divided" else 0.0)
    prepared = editor.prepare_images(images) if what not in ("inputs", "cosine") else None
    seconds = 0.0
    if what == "decode":
        codes = editor.sae.encode(images).dense()
        masks, queries = editor.mask(texts[:DECODED]), editor.text(texts[:DECODED])
        start = time.perf_counter()
        for mask, query in zip(masks, queries, strict=True):
            edited = images - (codes * (1 - mask)) @ editor.sae.directions
            edited @ query / edited.norm(dim=1)
        seconds = (time.perf_counter() - start) * arguments.texts / DECODED
    elif what != "inputs":
        for block in texts.split(BLOCK):
            start = time.perf_counter()
            captions = editor.prepare_texts(block) if what != "cosine" else None
            if what in ("undivided", "divided"):
                start = time.perf_counter()
            if what == "cosine":
                images @ block.t()
            elif what != "captions":
                editor.score_prepared(prepared, captions)
            seconds += time.perf_counter() - start
    return {"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--texts", type=int, default=25_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--latents", type=int, default=8192)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=WHAT, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(one(arguments.only, arguments)))
        return
    pairs = arguments.images * arguments.texts
    print(
        f"{arguments.images:,} images x {arguments.texts:,} captions = {pairs / 1e6:,.0f} M pairs, "
        f"width {arguments.width}, {arguments.latents:,} latents, k {arguments.k}, {torch.get_num_threads()} threads"
    )
    found: dict[str, list[dict[str, float]]] = {what: [] for what in WHAT}
    for _ in range(arguments.repeats):
        for what in WHAT:
            command = [sys.executable, __file__, *sys.argv[1:], "--only", what]
            found[what].append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))

    def median(what: str, key: str) -> float:
        return sorted(run[key] for run in found[what])[len(found[what]) // 2]

    print(f"{'':<11}{'seconds':>10}{'M pairs/s':>11}{'over cosine':>13}{'peak MB':>9}")
    for what in WHAT[1:]:
        seconds = median(what, "seconds")
        rate, over = pairs / seconds / 1e6, seconds / median("cosine", "seconds")
        print(f"{what:<11}{seconds:>10.2f}{rate:>11.3f}{over:>13.2f}{median(what, 'peak_mb'):>9,.0f}")
    print(f"peak MB of the inputs alone: {median('inputs', 'peak_mb'):,.0f}")


if __name__ == "__main__":
    main()
