"""One, two and four processes give the loss and the gradients of one, under DDP and under FSDP2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("distributed_losses.py")
WORLDS = (1, 2, 4)
LOSSES = ("pairs", "clips", "multi-positive", "sigmoid")
BLOCKS = ("clips in blocks", "multi-positive in blocks", "sigmoid in blocks", "cached", "cached in blocks")
REPEATED = ("clips of few words", "multi-positive of few words", "sigmoid of few words")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[int]], str]:
    """Folder of what each world passed, exit codes of its processes, what they had to say."""
    folder = tmp_path_factory.mktemp("worlds")
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *map(str, WORLDS)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return folder, json.loads(ended.stdout), ended.stderr


@pytest.mark.parametrize("world", WORLDS)
def test_losses_and_gradients_are_those_of_one_process(done: tuple, world: int) -> None:
    folder, codes, errors = done
    assert codes[str(world)] == [0] * world, errors
    names = [*LOSSES, *BLOCKS[:3], *REPEATED, *BLOCKS[3:]]
    expected = [f"{wrapper}: {name}" for wrapper in ("DistributedDataParallel", "sharded") for name in names]
    passed = (folder / str(world)).read_text().splitlines()
    assert passed == [*expected, "collectives", "dropout", *(["uneven"] if world > 1 else [])]
