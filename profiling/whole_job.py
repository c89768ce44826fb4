"""What the whole job costs by the number of captioned images: seconds of one core, and sizes in memory and on disk.

    OMP_NUM_THREADS=1 python profiling/whole_job.py --images 1000 5000 20000

Embeddings are drawn (width 512, two captions an image), since fitting does the same work on any; embedding is timed on
a ViT-B/32 of random weights and pictures of 640 x 480. Seconds are of the processor, not of the clock, so another
process beside this one changes them little.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import boresight as bs
from boresight.evaluation import evaluate_editor

WIDTH, CAPTIONS, PICTURES = 512, 2, 64


def drawn(images: int, seed: int) -> bs.Embeddings:
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(images, WIDTH)).astype(np.float32)
    owners = np.repeat(np.arange(images), CAPTIONS)
    texts = rows[owners] + 3 * draw.normal(size=(len(owners), WIDTH)).astype(np.float32)
    ids = [f"{seed}-{row}" for row in range(images)]
    splits = ["validation" if row % 10 == 0 else "test" if row % 10 == 1 else "train" for row in range(images)]
    return bs.Embeddings.from_arrays(rows.astype(np.float16), texts.astype(np.float16), owners, ids=ids, splits=splits)


def timed(job: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    return job(), time.process_time() - start


def size_of(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def embedding() -> str:
    """Pictures and captions a second of one core."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    from boresight.models import default_model_path

    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((640, 480)).save(buffer, "JPEG", quality=90)
    with tempfile.TemporaryDirectory() as scratch:
        CLIPModel(CLIPConfig()).save_pretrained(scratch)
        CLIPImageProcessor().save_pretrained(scratch)
        for file in default_model_path().glob("*"):
            if "token" in file.name:
                (Path(scratch) / file.name).write_bytes(file.read_bytes())
        encoder = bs.load_encoder(scratch, dtype="float32")
        _, pictures = timed(lambda: encoder.embed_images([Image.open(io.BytesIO(buffer.getvalue()))] * PICTURES))
        _, texts = timed(lambda: encoder.embed_texts(["a dog on a beach beside a red boat"] * PICTURES))
    return f"embedding: {PICTURES / pictures:.1f} pictures and {PICTURES / texts:.0f} captions a second"


def whole_job(images: int) -> list[str]:
    embeddings = drawn(images, seed=1)
    with tempfile.TemporaryDirectory() as scratch:
        embeddings.save(Path(scratch) / "embeddings")
        sae, of_sae = timed(lambda: bs.SparseAutoencoder.fit(embeddings.train))
        editor, of_editor = timed(lambda: bs.CaptionEditor.fit(sae, embeddings.train, embeddings.validation))
        _, of_verdict = timed(lambda: evaluate_editor(embeddings, editor))
        editor.save(Path(scratch) / "editor")
        sizes = [f"{size_of(Path(scratch) / name):.0f}" for name in ("embeddings", "editor")]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    times = [f"{seconds:,.0f}" for seconds in (of_sae, of_editor, of_verdict)]
    return [f"{images:,}", f"{sae.n_latents:,}", *times, *sizes, f"{peak:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 5000, 20000])
    os.environ.setdefault("BORESIGHT_QUIET", "1")
    print(embedding(), flush=True)
    print("| images | latents | autoencoder, s | editor, s | verdict, s | embeddings, MB | editor, MB | peak, GB |")
    for images in parser.parse_args().images:
        print(f"| {' | '.join(whole_job(images))} |", flush=True)


if __name__ == "__main__":
    main()
