"""What torchrun starts for test_pretraining_pretrain.py: the same training, shared by several processes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState

from boresight.pretraining.collectives import rank, world_size
from boresight.pretraining.pretrain import pretrain
from pretraining_world import batches, tiny_trainee
from test_pretraining_pretrain import CONFIG, weights


def main(out: Path, shard: bool) -> None:
    PartialState(cpu=True)
    config = replace(CONFIG, shard=shard, micro_batch=2)
    trained = pretrain(tiny_trainee(), batches(8, rank(), world_size()), config, out, tensorboard=False)
    if rank() == 0:
        torch.save(weights(trained), out.with_suffix(".pt"))
        out.with_suffix(".json").write_text(json.dumps({"world": world_size(), "loss": trained.loss}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "shard")
