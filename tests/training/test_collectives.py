"""Many processes make one: losses and gradients under DDP and under FSDP2, and a whole training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boresight.training.loop import pretrain
from pretraining_world import CONFIG, batches, tiny_trainee, weights

SCRIPT = Path(__file__).with_name("distributed.py")
WORLDS = (1, 2, 4)
LOSSES = ("pairs", "clips", "multi-positive", "sigmoid")
BLOCKS = ("clips in blocks", "multi-positive in blocks", "sigmoid in blocks", "cached", "cached in blocks")
REPEATED = ("clips of few words", "multi-positive of few words", "sigmoid of few words")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[int]], str]:
    """Folder of what each world passed or trained, exit codes of its processes, what they had to say."""
    folder = tmp_path_factory.mktemp("worlds")
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *map(str, WORLDS)],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "BORESIGHT_QUIET": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        timeout=280,
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


@pytest.mark.parametrize("shard", [False, True])
def test_two_processes_train_as_one(done: tuple, tmp_path: Path, shard: bool) -> None:
    """Stopped twice and gone on, the second time sharded otherwise; with sharded weights there is an average, too."""
    folder, codes, errors = done
    name = "shard" if shard else "whole"
    assert codes[name] == [0, 0], errors
    config = replace(CONFIG, micro_batch=2, average=0.9 if shard else 0.0)
    alone = pretrain(tiny_trainee(), batches(8), config, tmp_path, tensorboard=False)
    told = json.loads((folder / f"{name}.json").read_text())
    assert told["world"] == 2
    assert told["timeout"] == 7200
    assert all("do not see the same checkpoint" in refusal for refusal in told["refusals"])
    assert len(told["refusals"]) == 2
    assert told["loss"] == pytest.approx(alone.loss, rel=1e-4)
    shared = torch.load(folder / f"{name}.pt", weights_only=True)
    torch.testing.assert_close(shared, weights(alone), atol=5e-4, rtol=1e-2)
