"""The exact scan of an image index beside plain exact search: seconds, ratios and memory.

    python profiling/search.py [--images 200000] [--width 512] [--latents 8192] [--active 32] [--k 100] [--rounds 7]
    python profiling/search.py --graph [--images 200000] [--width 512] [--latents 8192] [--active 32]

The index is written to a temporary folder in blocks, mapped, and read once before the clock. Rounds are interleaved, so
that a slow minute of the machine hits all alike; a ratio is the median over rounds of the ratio within the round, to
the faster of its baselines, by the clock and by the processor time of all threads, which other programs disturb less.
Every scan keeps the best k:

    plain       the inner product with the embedding
    undivided   embedding and codes
    divided     embedding and codes, divided by the gated length
    counts      as undivided, counting the rows above 10 thresholds a query instead

With --graph an HNSW graph is built over as many images in clusters, one for 200 of them, and one query at a time is
asked near an image: its candidates by the graph, and their exact scores over embedding and codes. Recall is of the 10
best by the embedding, for what random codes add is not to be found by a graph.

Memory is what the process allots beyond the mapped files while it scans. Embeddings and codes are random: cost does not
depend on what they are. Do not set OMP_NUM_THREADS, or the baselines and the scan will use fewer cores.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from boresight.progress import progress
from boresight.search import scan_kernels
from boresight.search.graph import GraphOptions, open_graph, write_graph
from boresight.search.scan import Columns, LinearQueries, Rows, counts_above, scores_at, top_k

BLOCK = 20_000
MANY = 32
Job = Callable[[], object]


def written(folder: Path, arguments: argparse.Namespace) -> None:
    draw = np.random.default_rng(0)
    n, active = arguments.images, arguments.active
    shapes = {
        "float32": (np.float32, arguments.width),
        "float16": (np.float16, arguments.width),
        "indices": (np.uint16, active),
        "values": (np.float16, active),
    }
    files = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (n, width))
        for name, (dtype, width) in shapes.items()
    }
    for first in range(0, n, BLOCK):
        rows = slice(first, min(first + BLOCK, n))
        size = rows.stop - first
        block = draw.standard_normal((size, arguments.width), dtype=np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        files["float32"][rows] = files["float16"][rows] = block
        files["indices"][rows] = draw.integers(0, arguments.latents, (size, active))
        files["values"][rows] = draw.random((size, active), dtype=np.float32)


def mapped(folder: Path, floats: str, codes: bool) -> Rows:
    names = (floats, "indices", "values")
    dense, indices, values = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in names)
    return Rows((dense,), indices, (values,)) if codes else Rows((dense,))


def queries(arguments: argparse.Namespace, count: int, codes: bool, divided: bool) -> LinearQueries:
    draw = np.random.default_rng(1)
    dense = draw.standard_normal((count, arguments.width), dtype=np.float32)
    latent = draw.standard_normal((arguments.latents, count), dtype=np.float32) / 50
    gate = draw.random((count, arguments.width), dtype=np.float32) if divided else None
    columns = Columns(0, dense, (latent,) if codes else (), gate, 1.0, np.eye(count, dtype=np.float32))
    return LinearQueries((columns,), np.zeros(count, np.float32), np.zeros(count, np.float32))


def without_loops(job: Job) -> Job:
    def run() -> None:
        before, scan_kernels.loops = scan_kernels.loops, None
        try:
            job()
        finally:
            scan_kernels.loops = before

    return run


def faiss_jobs(vectors: np.ndarray, one: np.ndarray, k: int) -> dict[str, Job]:
    try:
        import faiss
    except ImportError:
        print("faiss-cpu is not installed; its rows are left out")
        return {}
    flat = faiss.IndexFlatIP(vectors.shape[1])
    half = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    half.train(vectors[:BLOCK])
    for first in range(0, len(vectors), BLOCK):
        flat.add(vectors[first : first + BLOCK])
        half.add(vectors[first : first + BLOCK])
    return {"FAISS IndexFlatIP": lambda: flat.search(one, k), "FAISS SQfp16": lambda: half.search(one, k)}


def numpy_search(vectors: np.ndarray, query: np.ndarray, k: int) -> np.ndarray:
    scores = vectors @ query
    best = np.argpartition(scores, -k)[-k:]
    return best[np.argsort(-scores[best])]


def groups(folder: Path, arguments: argparse.Namespace) -> dict[str, tuple[dict[str, Job], dict[str, Job]]]:
    """Title -> baselines and scans."""
    k = arguments.k
    wide = np.load(folder / "float32.npy", mmap_mode="r").view(np.ndarray)
    with_copy = torch.from_numpy(np.load(folder / "float16.npy", mmap_mode="c").view(np.ndarray))
    one = queries(arguments, 1, False, False).columns[0].dense
    many = queries(arguments, MANY, False, False).columns[0].dense
    half = torch.from_numpy(one[0]).half()
    faiss = faiss_jobs(wide, one, k)

    def scans(floats: str, count: int) -> dict[str, Job]:
        jobs: dict[str, Job] = {}
        for name, codes, divided in (("plain", False, False), ("undivided", True, False), ("divided", True, True)):
            rows, asked = [mapped(folder, floats, codes)], queries(arguments, count, codes, divided)
            jobs[name] = lambda rows=rows, asked=asked: top_k(rows, asked, k)
            if count == 1 and scan_kernels.loops is not None:
                jobs[f"{name}, without numba"] = without_loops(jobs[name])
        rows, asked = [mapped(folder, floats, True)], queries(arguments, count, True, False)
        thresholds = scores_at(rows, asked, np.arange(10))
        return jobs | {"counts": lambda: counts_above(rows, asked, thresholds)}

    return {
        "one query, float32": (
            {"numpy X @ q, argpartition": lambda: numpy_search(wide, one[0], k)}
            | {name: job for name, job in faiss.items() if "Flat" in name},
            scans("float32", 1),
        ),
        "one query, float16": (
            {"torch X @ q, topk": lambda: (with_copy @ half).topk(k)}
            | {name: job for name, job in faiss.items() if "fp16" in name},
            scans("float16", 1),
        ),
        f"{MANY} queries, float32": ({"numpy X @ Q.T": lambda: wide @ many.T}, scans("float32", MANY)),
        f"{MANY} queries, float16": ({"numpy X @ Q.T of float32": lambda: wide @ many.T}, scans("float16", MANY)),
    }


def clustered(folder: Path, arguments: argparse.Namespace) -> tuple[Rows, np.ndarray]:
    """Images in clusters, float16, with codes; and queries (MANY, d) near some of them."""
    draw = np.random.default_rng(2)
    n, width = arguments.images, arguments.width
    centres = draw.standard_normal((max(2, n // 200), width), dtype=np.float32)
    file = np.lib.format.open_memmap(folder / "clustered.npy", "w+", np.float16, (n, width))
    for first in range(0, n, BLOCK):
        size = min(BLOCK, n - first)
        block = centres[draw.integers(0, len(centres), size)]
        block += draw.standard_normal((size, width), dtype=np.float32)
        file[first : first + size] = block / np.linalg.norm(block, axis=1, keepdims=True)
    asked = file[draw.integers(0, n, MANY)] + draw.standard_normal((MANY, width), dtype=np.float32) / width**0.5
    codes = mapped(folder, "float16", True)
    return Rows((np.load(folder / "clustered.npy", mmap_mode="r"),), codes.indices, codes.values), asked


def approximate(folder: Path, arguments: argparse.Namespace) -> None:
    rows, asked = clustered(folder, arguments)
    matrix, file = rows.dense[0], folder / "graph.faiss"
    start = time.perf_counter(), time.process_time()
    with progress(total=len(matrix), what="building the graph", unit=" images") as bar:
        said = write_graph(file, matrix, GraphOptions(), bar)
    print(
        f"graph, m 32, ef_construction 200: {time.perf_counter() - start[0]:.0f} s, "
        f"{time.process_time() - start[1]:.0f} s of processors, {said['bytes'] / 2**20:.0f} MB"
    )
    graph = open_graph(file, matrix, said)
    latent = np.random.default_rng(3).standard_normal((arguments.latents, MANY), dtype=np.float32) / 50
    edited = [scan_of(asked[[one]], latent[:, [one]]) for one in range(MANY)]
    truth, _ = top_k([rows], scan_of(asked, None), 10)[::-1]
    scan_ms = 1e3 * np.median([seconds_of(lambda one=one: top_k([rows], one, 10)) for one in edited[:5]])
    titles = f"{'candidates, ef_search':<24}{'ms':>9}{'cpu ms':>9}{'of scores':>11}{'recall@10':>11}"
    print(f"{titles}   (a scan: {scan_ms:.1f} ms)")
    for count, view in ((100, 100), (100, 200), (1000, 1000), (1000, 2000)):
        times, shares = [], []
        for number in range(MANY):
            clock = [time.perf_counter(), time.process_time()]
            near = graph.search(asked[[number]], count, view, None)[1][0]
            found = time.process_time()
            scores_at([rows], edited[number], np.sort(near))
            times.append((time.perf_counter() - clock[0], time.process_time() - clock[1], time.process_time() - found))
            shares.append(np.isin(truth[number], near).mean())
        ms = np.median(times, axis=0) * 1e3
        row = f"{f'{count:,}, {view:,}':<24}{ms[0]:>9.2f}{ms[1]:>9.2f}{ms[2]:>11.2f}{np.mean(shares):>11.3f}"
        print(row, flush=True)


def scan_of(dense: np.ndarray, latent: np.ndarray | None) -> LinearQueries:
    count = len(dense)
    columns = Columns(0, dense.astype(np.float32), (latent,), None, 0.0, np.eye(count, dtype=np.float32))
    return LinearQueries((columns,), np.zeros(count, np.float32), np.zeros(count, np.float32))


def seconds_of(job: Job) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def allotted() -> float:
    """MB of this process that belong to no file."""
    return int(re.findall(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 1024


def grown(job: Job) -> float:
    """The most MB allotted while `job` ran, beyond those before."""
    before, most, done = allotted(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.003):
            most[0] = max(most[0], allotted())

    watcher = threading.Thread(target=watch)
    watcher.start()
    job()
    done.set()
    watcher.join()
    return max(0.0, most[0] - before)


FIRST = """
import time, torch, numpy as np
from boresight.search.scan import Columns, LinearQueries, Rows, top_k
one = np.ones((1, 1), np.float32)
rows = Rows((np.ones((5, 8), np.{0}),), np.zeros((5, 2), np.uint16), (np.ones((5, 2), np.float16),))
columns = Columns(0, np.ones((1, 8), np.float32), (np.ones((3, 1), np.float32),), None, 0.0, one)
start = time.perf_counter()
top_k([rows], LinearQueries((columns,), one[0], one[0]), 2)
print(time.perf_counter() - start)
"""


def first_query(folder: Path) -> None:
    """Seconds of a fresh process for a first query: compiling, and with what an earlier process compiled."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder / "compiled")}
    for floats in ("float32", "float16"):
        command = [sys.executable, "-c", FIRST.format(floats)]
        runs = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(2)]
        compiling, later = (float(run.stdout) for run in runs)
        print(f"first query of a process, {floats}: {compiling:.2f} s with compiling, {later:.2f} s afterwards")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--latents", type=int, default=8192)
    parser.add_argument("--active", type=int, default=32)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--graph", action="store_true", help="approximate search alone")
    arguments = parser.parse_args()
    print(
        f"{arguments.images:,} images, width {arguments.width}, {arguments.active} of {arguments.latents:,} latents, "
        f"best {arguments.k}, {torch.get_num_threads()} threads"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written(folder, arguments)
        if arguments.graph:
            approximate(folder, arguments)
            return
        print(f"{'':<44}{'ms':>9}{'ratio':>7}{'cpu ms':>9}{'ratio':>7}{'MB':>7}")
        for title, (baselines, scans) in groups(folder, arguments).items():
            jobs = baselines | scans
            for run in jobs.values():  # pages into memory, loops compiled
                run()
            memory = {job: grown(jobs[job]) for job in jobs}
            clocks = (time.perf_counter, time.process_time)
            seconds: dict[str, list[list[float]]] = {job: [] for job in jobs}
            for _ in range(arguments.rounds):
                for job, run in jobs.items():
                    start = [clock() for clock in clocks]
                    run()
                    seconds[job].append([clock() - before for clock, before in zip(clocks, start, strict=True)])
            median = {job: np.median(seconds[job], axis=0) for job in jobs}
            base = [min(baselines, key=lambda job: median[job][clock]) for clock in range(2)]
            for job in jobs:
                shown = f"{f'{title}: {job}':<44}"
                for clock in range(2):
                    each, floor = np.array(seconds[job])[:, clock], np.array(seconds[base[clock]])[:, clock]
                    shown += f"{median[job][clock] * 1e3:>9.1f}{np.median(each / floor):>7.2f}"
                print(f"{shown}{memory[job]:>7.0f}", flush=True)
        if scan_kernels.loops is not None:
            first_query(folder)


if __name__ == "__main__":
    main()
