"""One, two and four processes give the loss and the gradients of one, under DDP and under FSDP2."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("distributed_losses.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
WORLDS = (1, 2, 4)
LOSSES = ("pairs", "clips", "multi-positive", "sigmoid")
BLOCKS = ("clips in blocks", "multi-positive in blocks", "sigmoid in blocks", "cached", "cached in blocks")


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[int, subprocess.Popen]]:
    """All started at once: most of their time goes into imports."""
    started = {
        world: subprocess.Popen(
            [*TORCHRUN, str(world), str(SCRIPT), str(world)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for world in WORLDS
    }
    yield started
    for process in started.values():
        process.terminate()
        process.communicate()


@pytest.mark.parametrize("world", WORLDS)
def test_losses_and_gradients_are_those_of_one_process(worlds: dict[int, subprocess.Popen], world: int) -> None:
    passed, errors = worlds[world].communicate(timeout=200)
    assert worlds[world].returncode == 0, errors
    expected = [f"{wrapper}: {name}" for wrapper in ("DistributedDataParallel", "sharded") for name in LOSSES + BLOCKS]
    assert passed.splitlines() == [*expected, "collectives", "dropout", *(["uneven"] if world > 1 else [])]
