"""What the search service answers under load: clients that ask one query after another, each of other words.

    python profiling/service_load.py --clients 50 --seconds 20 --images 100000

An index of drawn embeddings (width 256, the editor of the tests) is served by `boresight serve` in its own process;
the clients share the machine with it. Printed: answers a second, the time of an answer as a client sees it (p50, p99),
how many queries a batch had, errors, time of the processor. `--index FOLDER` takes an index that is there.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np

from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings
from boresight.encoders import load_encoder
from boresight.models import default_editor_path, default_model_path
from boresight.search import SearchIndex

EDITOR = default_editor_path()
COLOURS, SHAPES = ("red", "green", "blue", "orange", "purple"), ("circle", "square", "ring", "heart", "cross")


def drawn_index(folder: Path, images: int) -> Path:
    encoder = load_encoder(default_model_path(), dtype="float32")
    rows = np.random.default_rng(0).normal(size=(images, encoder.width)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    embeddings = Embeddings.from_arrays(rows, ids=[f"image-{row}" for row in range(images)])
    SearchIndex.create(folder, embeddings, editor=CaptionEditor.load(EDITOR), encoder=encoder, dtype="float16")
    return folder


async def ask(address: str, clients: int, seconds: float, ranks: bool) -> tuple[list[float], Counter[str]]:
    times: list[float] = []
    answers: Counter[str] = Counter()
    until = time.perf_counter() + seconds

    async def client(number: int) -> None:
        draw = np.random.default_rng(number)
        async with httpx.AsyncClient(base_url=address, timeout=60) as web:
            while (began := time.perf_counter()) < until:
                text = f"a {draw.choice(COLOURS)} {draw.choice(SHAPES)} beside a {draw.choice(SHAPES)}"
                try:
                    answer = await web.post("/api/search", json={"text": text, "k": 20, "ranks": ranks})
                    answers[str(answer.status_code)] += 1
                except httpx.HTTPError as error:
                    answers[type(error).__name__] += 1
                times.append(time.perf_counter() - began)

    await asyncio.gather(*map(client, range(clients)))
    return times, answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--no-ranks", action="store_true", help="without the rank by the cosine, a second scan")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        index = options.index or drawn_index(Path(scratch) / "drawn.index", options.images)
        command = [sys.executable, "-m", "boresight", "serve", str(index), "--port", "0"]
        command += [] if options.index else ["--encoder", str(default_model_path())]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        assert server.stdout is not None
        said = server.stdout.readline().strip()
        address = said.split()[-1]
        asyncio.run(ask(address, 4, 1, not options.no_ranks))  # first uses compile and map
        before, worked = figures(address), seconds_of(server.pid)
        times, answers = asyncio.run(ask(address, options.clients, options.seconds, not options.no_ranks))
        after, worked = figures(address), seconds_of(server.pid) - worked
        server.send_signal(signal.SIGTERM)
        print(said)
        p50, p99 = (1000 * float(np.quantile(times, q)) for q in (0.5, 0.99))
        name = "boresight_batch_queries"
        queries, batches = (after[f"{name}_{part}"] - before[f"{name}_{part}"] for part in ("sum", "count"))
        print(f"{options.clients} clients, {options.seconds:g} s: {len(times) / options.seconds:.0f} answers/s")
        print(f"p50 {p50:.0f} ms, p99 {p99:.0f} ms; {queries / batches:.1f} queries a batch; {dict(answers)}")
        print(f"{1000 * worked / max(1, len(times)):.1f} ms of the processor for an answer, in the service")
        print(f"ended with {server.wait(60)}")


def seconds_of(process: int) -> float:
    """Of the processor, which another process beside it changes little; Linux."""
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def figures(address: str) -> dict[str, float]:
    lines = httpx.get(f"{address}/metrics").text.splitlines()
    return {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}


if __name__ == "__main__":
    main()
