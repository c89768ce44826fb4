"""What test_collectives.py starts: `python distributed.py FOLDER 1 2 4` imports once, and forks all processes at once.

Worlds of 1, 2 and 4 processes compare losses, two of 2 train. Printed is how the processes of each ended.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import distributed_losses
import distributed_pretrain
import torch
import torch._dynamo  # sharded tensors import it at their first use: once in every process

from processes import exit_codes, start_together

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, worlds = Path(sys.argv[1]), sys.argv[2:]
    started = {
        name: start_together(2, partial(distributed_pretrain.main, folder / name, name == "shard"))
        for name in ("whole", "shard")
    }
    started |= {
        world: start_together(int(world), partial(distributed_losses.main, int(world), folder)) for world in worlds
    }
    print(json.dumps({name: exit_codes(processes) for name, processes in started.items()}))
