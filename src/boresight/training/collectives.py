"""What the contrastive losses need of other processes: their rows, with gradients, and who they are.

One process without `torch.distributed` is a world of one: nothing here needs it to be initialised.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn import functional as F

from boresight.progress import say

# torch 2.13 renamed both and warns at the old names.
_all_gather: Any = getattr(dist, "all_gather_single", None) or getattr(dist, "all_gather_into_tensor", None)
_reduce_scatter: Any = getattr(dist, "reduce_scatter_single", None) or getattr(dist, "reduce_scatter_tensor", None)
_PATIENCE = timedelta(hours=2)  # for which processes wait on the first one, which reads and evaluates alone


def join_processes() -> None:
    """Meet the processes that torchrun started; until then `rank` is 0 and `world_size` 1 in each of them."""
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)


def world_size() -> int:
    """Number of processes; 1 where `torch.distributed` is not initialised."""
    return dist.get_world_size() if _joined() else 1


def rank() -> int:
    """Number of this process, from 0; 0 where `torch.distributed` is not initialised."""
    return dist.get_rank() if _joined() else 0


def launched() -> bool:
    """Whether torchrun, or another launcher, started this process, alone or with others."""
    return _joined() or "RANK" in os.environ


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def row_counts(count: int, device: str | torch.device = "cpu") -> list[int]:
    """What every process passed as `count`, in the order of their ranks. `device` is one the backend can send from."""
    if world_size() == 1:
        return [count]
    return gather_rows(torch.tensor([count], device=device)).tolist()


def gather_rows(rows: Tensor, counts: Sequence[int] | None = None) -> Tensor:
    """The rows of all processes, in the order of their ranks, with gradients.

    The backward adds up what all processes ask of a row and hands each process its own rows (a reduce-scatter), so
    every process must take part in it. With one process the rows come back as they are.

    Args:
        rows: (B, ...) any dtype, of this process.
        counts: B of each process, as `row_counts` gives them; None says that they are equal, which is not checked.

    Returns:
        (sum of all B, ...), the dtype of `rows`.
    """
    if world_size() == 1:
        return rows
    if counts is None or len(set(counts)) == 1:
        return _GatherRows.apply(rows)
    longest = max(counts)
    padded = F.pad(rows, [0, 0] * (rows.ndim - 1) + [0, longest - len(rows)])
    pieces = _GatherRows.apply(padded).split(longest)
    return torch.cat([piece[:count] for piece, count in zip(pieces, counts, strict=True)])


def average(value: Tensor) -> Tensor:
    """Mean of `value` over all processes, on each of them, without gradients: for logs."""
    total = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total / world_size()


def gather_objects(value: Any) -> list[Any]:
    """What every process passed, in the order of their ranks; small things that pickle."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def say_once(line: str) -> None:
    """`say` of the first process."""
    if rank() == 0:
        say(line)


def whole_tensor(value: Tensor) -> Tensor:
    """A tensor that is spread over processes, gathered on each of them; any other as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def sharded(module: nn.Module, device: torch.device) -> nn.Module:
    """The module itself, on `device`, its weights spread over processes layer by layer (FSDP2)."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (world_size(),))
    module.to(device)
    for part in module.modules():
        if isinstance(part, nn.ModuleList):
            for layer in part:
                fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module


def shared_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, the same on all processes, spread over them as `like` is."""
    if isinstance(like, DTensor):
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value


@contextmanager
def gradients_kept_local(model: nn.Module | None) -> Iterator[None]:
    """Forward and backward in here add to the gradients of this process and send nothing to others.

    `model` is in `DistributedDataParallel` or was given to `fully_shard`; any other, or None, has nothing to hold.
    """
    no_sync = getattr(model, "no_sync", None)
    set_sync = getattr(model, "set_requires_gradient_sync", None)
    if no_sync is not None:
        with no_sync():
            yield
    elif set_sync is not None:
        set_sync(False)
        try:
            yield
        finally:
            set_sync(True)
    else:
        yield


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        everything = rows.new_empty(world_size() * len(rows), *rows.shape[1:])
        _all_gather(everything, rows.contiguous())
        return everything

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        own = gradient.new_empty(len(gradient) // world_size(), *gradient.shape[1:])
        _reduce_scatter(own, gradient.contiguous())
        return own
