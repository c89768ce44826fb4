"""Peak memory and time of retrieval evaluation, beside the plain blocked matrix product.

    python profiling/evaluation_memory.py [--images 20000] [--texts 100000] [--width 512] [--latents 4096] [--k 32]

Each measurement runs in a process of its own, so that its peak is its own. The floor is the same blocks of
`images @ texts.T`, computed and dropped: no evaluation that scores every pair can be faster. The embeddings are
random and the editor's mask is untrained, open by about seven eighths: cost does not depend on what the weights are.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch

from boresight.editing import CaptionEditor, EditorConfig
from boresight.embeddings import Embeddings
from boresight.evaluation import evaluate_retrieval
from boresight.sae import SparseAutoencoder
from boresight.sae.config import SaeConfig
from boresight.seeds import generator

BLOCK_IMAGES, BLOCK_TEXTS = 2048, 1024
WHAT = ("inputs", "floor", "plain", "edited")


def made(arguments: argparse.Namespace) -> Embeddings:
    draw = generator(0, "benchmark")
    unit = torch.nn.functional.normalize
    images = unit(torch.randn(arguments.images, arguments.width, generator=draw), dim=1)
    owners = torch.arange(arguments.texts) * arguments.images // arguments.texts
    noise = torch.randn(arguments.texts, arguments.width, generator=draw)
    texts = unit(images[owners] + noise * arguments.width**-0.5, dim=1)
    return Embeddings.from_arrays(images, texts, owners, name="random")


def floor(embeddings: Embeddings) -> None:
    for texts in embeddings.texts.split(BLOCK_TEXTS):
        for images in embeddings.images.split(BLOCK_IMAGES):
            images @ texts.T


def one(what: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds and peak resident MB of this process for one measurement."""
    embeddings = made(arguments)
    editor = untrained_editor(embeddings, arguments) if what == "edited" else None
    start = time.perf_counter()
    if what == "floor":
        floor(embeddings)
    elif what != "inputs":
        evaluate_retrieval(embeddings, editor, block_images=BLOCK_IMAGES, block_texts=BLOCK_TEXTS)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def untrained_editor(embeddings: Embeddings, arguments: argparse.Namespace) -> CaptionEditor:
    shape = SaeConfig(width=arguments.width, n_latents=arguments.latents, k=arguments.k)
    sae, draw = SparseAutoencoder(shape), generator(0, "editor")
    sae.directions.data = torch.nn.functional.normalize(torch.randn(sae.directions.shape, generator=draw), dim=1)
    sae.encoder_weight.data = sae.directions.data.clone()
    editor = CaptionEditor(sae, EditorConfig(form="residual"))
    editor.mask_network.start(0)
    return editor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--latents", type=int, default=4096)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=WHAT, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(one(arguments.only, arguments)))
        return
    dense = arguments.images * arguments.texts * 4 / 2**20
    print(f"{arguments.images:,} images x {arguments.texts:,} captions, width {arguments.width}, "
          f"{torch.get_num_threads()} threads; the whole score matrix would be {dense:,.0f} MB")  # fmt: skip
    found: dict[str, list[dict[str, float]]] = {what: [] for what in WHAT}
    for _ in range(arguments.repeats):
        for what in WHAT:  # interleaved, so that a slow minute of the machine hits all alike
            command = [sys.executable, __file__, *sys.argv[1:], "--only", what]
            found[what].append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))

    def median(what: str, key: str) -> float:
        return sorted(run[key] for run in found[what])[len(found[what]) // 2]

    print(f"{'':<10}{'seconds':>10}{'over floor':>12}{'peak MB':>10}{'above inputs':>14}")
    for what in WHAT[1:]:
        seconds, peak = median(what, "seconds"), median(what, "peak_mb")
        print(f"{what:<10}{seconds:>10.2f}{seconds / median('floor', 'seconds'):>12.2f}{peak:>10,.0f}"
              f"{peak - median('inputs', 'peak_mb'):>14,.0f}")  # fmt: skip


if __name__ == "__main__":
    main()
