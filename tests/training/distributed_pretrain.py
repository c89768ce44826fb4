"""One training shared by two processes, with whole weights or with sharded ones; distributed.py starts it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from boresight.errors import InputError
from boresight.training.collectives import gather_objects, join_processes, rank, world_size
from boresight.training.config import Stage
from boresight.training.loop import Batches, pretrain
from pretraining_world import CONFIG, batches, tiny_trainee, weights


def main(out: Path, shard: bool) -> None:
    join_processes()
    config = replace(CONFIG, shard=shard, micro_batch=2, average=0.9 if shard else 0.0)
    own, seen = batches(8, rank(), world_size()), []

    def dying_at(step: int) -> Batches:
        def source(stage: Stage, start: int) -> Iterator[Any]:
            for number, batch in enumerate(own(stage, start), start):
                if number == step:
                    raise KeyboardInterrupt
                yield batch

        return source

    # The first process alone evaluates; what it is shown must be what is saved in the end.
    evaluate = (lambda model: seen.append(model.state_dict()) or {}) if rank() == 0 else None
    with contextlib.suppress(KeyboardInterrupt):
        pretrain(tiny_trainee(), dying_at(7), config, out, tensorboard=False)
    other = replace(config, shard=not shard, gradient_checkpointing=True, every=2)
    with contextlib.suppress(KeyboardInterrupt):
        pretrain(tiny_trainee(), dying_at(9), other, out, tensorboard=False)
    elsewhere = out if rank() == 0 else out.with_name("elsewhere")
    try:
        pretrain(tiny_trainee(), own, config, elsewhere, tensorboard=False)
    except InputError as error:
        refusals = gather_objects(str(error))
    trained = pretrain(tiny_trainee(), own, config, out, tensorboard=False, evaluate=evaluate)
    timeout = dist.group.WORLD._get_backend(torch.device("cpu")).options._timeout.total_seconds()
    if rank() == 0:
        torch.testing.assert_close(seen[-1], dict(trained.model.state_dict()))
        torch.save(weights(trained), out.with_suffix(".pt"))
        out.with_suffix(".json").write_text(
            json.dumps({"world": world_size(), "loss": trained.loss, "refusals": refusals, "timeout": timeout})
        )
