"""Losses and gradients over several processes against one process, one line for each check.

distributed.py starts it in worlds of some processes. Each world leaves the names of what it passed in the file of its
number. The same global batch is first taken whole by every process before it knows of the others, then split over them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from boresight.errors import InputError
from boresight.seeds import generator
from boresight.training.collectives import average, gather_rows, rank, row_counts, world_size
from boresight.training.contrastive import clips_loss, infonce_loss, multi_positive_loss, same_words, sigmoid_loss
from boresight.training.gradient_cache import Encoded, cached_backward

IMAGES = 16
Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # pixels, web, synthetic, all captions, their owners


class Towers(nn.Module):
    """Two towers, temperature, bias and a head beside the loss; all go through `forward`, as the wrappers ask."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            self.image = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 8))
            self.text = nn.Sequential(nn.Linear(5, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 8))
            self.head = nn.Linear(8, 2)
        self.log_scale = nn.Parameter(torch.tensor([2.0]))  # fully_shard takes no parameter of shape ()
        self.bias = nn.Parameter(torch.tensor([-1.5]))

    def forward(self, pixels: Tensor, *texts: Tensor) -> tuple[Tensor, ...]:
        image = self.image(pixels)
        embedded = [F.normalize(side, dim=-1) for side in (image, *(self.text(text) for text in texts))]
        return *embedded, self.log_scale.sum(), self.bias.sum(), self.head(image)


def global_batch() -> Batch:
    source = generator(0, "batch")
    owners = torch.cat([torch.arange(IMAGES), torch.randint(IMAGES, (11,), generator=source)])
    owners = owners[torch.randperm(len(owners), generator=source)]
    shapes = ((IMAGES, 6), (IMAGES, 5), (IMAGES, 5), (len(owners), 5))
    pixels, web, synthetic, captions = (torch.randn(shape, generator=source) for shape in shapes)
    return pixels, web, synthetic, captions, owners


def part(batch: Batch) -> Batch:
    """The rows of this process: as many images as any other, and whatever captions they own."""
    size = IMAGES // world_size()
    first = rank() * size
    pixels, web, synthetic, captions, owners = batch
    rows, mine = slice(first, first + size), (owners // size) == rank()
    return pixels[rows], web[rows], synthetic[rows], captions[mine], owners[mine] - first


def every(outputs: tuple[Tensor, ...]) -> Tensor:
    """A term of zero with every output in it: a wrapper waits for the gradient of every parameter."""
    return 0.0 * sum(output.sum() for output in outputs)


def clips(model: nn.Module, batch: Batch, chunk: int | None = None) -> Tensor:
    outputs = model(*batch[:3])
    return clips_loss(*outputs[:4], chunk=chunk) + every(outputs)


def pairs(model: nn.Module, batch: Batch, chunk: int | None = None) -> Tensor:
    outputs = model(*batch[:2])
    return infonce_loss(*outputs[:3], chunk=chunk) + every(outputs)


def multi_positive(model: nn.Module, batch: Batch, chunk: int | None = None) -> Tensor:
    outputs = model(batch[0], batch[3])
    return multi_positive_loss(*outputs[:2], batch[4], outputs[2], chunk=chunk) + every(outputs)


def sigmoid(model: nn.Module, batch: Batch, chunk: int | None = None) -> Tensor:
    outputs = model(batch[0], batch[3])
    return sigmoid_loss(*outputs[:4], batch[4], chunk=chunk) + every(outputs)


def clips_of_few_words(model: nn.Module, batch: Batch, chunk: int | None = None) -> Tensor:
    """Captions that repeat within and between processes, of which there are four kinds."""
    outputs = model(*batch[:3])
    ids = torch.cat([(batch[1][:, :2] > 0).long(), (batch[2][:, :2] > 0).long()])
    return clips_loss(*outputs[:4], words=same_words(ids), chunk=chunk) + every(outputs)


def multi_positive_of_few_words(model: nn.Module, batch: Batch, chunk: int | None = None) -> Tensor:
    outputs = model(batch[0], batch[3])
    words = (batch[3][:, :2] > 0).long() @ torch.tensor([2, 1])
    return multi_positive_loss(*outputs[:2], batch[4], outputs[2], words=words, chunk=chunk) + every(outputs)


def sigmoid_of_few_words(model: nn.Module, batch: Batch, chunk: int | None = None) -> Tensor:
    outputs = model(batch[0], batch[3])
    words = (batch[3][:, :2] > 0).long() @ torch.tensor([2, 1])
    return sigmoid_loss(*outputs[:4], batch[4], words=words, chunk=chunk) + every(outputs)


def head_loss(outputs: Tensor, batch: Batch) -> Tensor:
    return (outputs**2).sum() / len(batch[0])


def clips_and_head(model: nn.Module, batch: Batch) -> Tensor:
    outputs = model(*batch[:3])
    return clips_loss(*outputs[:4]) + head_loss(outputs[-1], batch) + every(outputs)


def cached(model: nn.Module, batch: Batch, chunk: int | None = None, rows: int = 3) -> Tensor:
    """`clips_and_head` three rows at a time; with 16, 8 or 4 rows the last chunk is short."""

    def encode(chunk: tuple[Tensor, ...]) -> Encoded:
        *inputs, head = model(*chunk)
        return Encoded(tuple(inputs), head)

    def loss(*inputs: Tensor) -> Tensor:
        return clips_loss(*inputs[:4], chunk=chunk)

    chunks = list(zip(*(side.split(rows) for side in batch[:3]), strict=True))
    value, extra = cached_backward(encode, chunks, loss, model=model, extra=lambda one: head_loss(one.rest, batch))
    return value + extra


def plain(loss: Callable[..., Tensor], **options: int) -> Callable[[nn.Module, Batch], Tensor]:
    def run(model: nn.Module, batch: Batch) -> Tensor:
        value = loss(model, batch, **options)
        value.backward()
        return value.detach()

    return run


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {}
    for name, value in model.named_parameters():
        whole = getattr(value.grad, "full_tensor", lambda grad=value.grad: grad)()
        found[name.removeprefix("module.")] = whole.clone()
    return found


def sharded(model: Towers) -> nn.Module:
    mesh = init_device_mesh("cpu", (world_size(),))
    for tower in (model.image, model.text):
        fully_shard(tower, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def same(found: Tensor, expected: Tensor) -> None:
    error, size = float((found - expected).abs().max()), float(expected.abs().max())
    assert found.shape == expected.shape, (found.shape, expected.shape)
    assert error <= 1e-6 * max(1.0, size), f"off by {error} of {size}"


def check_collectives() -> None:
    size, mine = world_size(), rank()
    assert row_counts(mine + 1) == list(range(1, size + 1))
    counts = list(range(1, size + 1))
    rows = torch.full((mine + 1, 2), float(mine), requires_grad=True)
    everything = gather_rows(rows, counts)
    assert everything[:, 0].tolist() == [float(r) for r in range(size) for _ in range(r + 1)]
    weights = torch.arange(len(everything) * 2.0).reshape(-1, 2)
    ((mine + 1) * weights * everything).sum().backward()  # process r asks for r + 1 times the weights
    own = slice(sum(counts[:mine]), sum(counts[: mine + 1]))
    same(rows.grad, weights[own] * sum(counts))
    same(average(torch.tensor(float(mine))), torch.tensor((size - 1) / 2))


def check_uneven() -> None:
    rows = F.normalize(torch.randn(3 + (rank() == 0), 4), dim=-1)
    scale = torch.tensor(1.0)
    for call in (
        lambda: infonce_loss(rows, rows, scale),
        lambda: multi_positive_loss(rows, rows, torch.arange(len(rows)), scale),
        lambda: sigmoid_loss(rows, rows, scale, scale),
    ):
        with pytest.raises(InputError, match=r"hold \[4, 3"):
            call()


def check_dropout(batch: Batch) -> None:
    """Plain and cached draw the same, process by process; gradients are sent once a step, not once a chunk."""
    found = []
    for rows in (16, 3):
        model, sent = DistributedDataParallel(Towers(dropout=0.4)), []

        def count(state, bucket, sent=sent):
            sent.append(bucket.index())
            return allreduce_hook(None, bucket)

        model.register_comm_hook(None, count)
        torch.manual_seed(rank())
        if rows == 16:  # the same draws as the chunks': chunk by chunk, one graph
            parts = [model.module(*sides) for sides in zip(*(side.split(3) for side in batch[:3]), strict=True)]
            joined = [torch.cat([one[side] for one in parts]) for side in range(3)]
            value = clips_loss(*joined, parts[0][3]) + sum(head_loss(one[-1], batch) for one in parts)
            (value + every(parts[0])).backward()
            for parameter in model.parameters():
                parameter.grad = average(parameter.grad)
        else:
            value = cached(model, batch)
            assert sent == [0], sent
        found.append((value.detach(), gradients(model)))
    same(found[0][0], found[1][0])
    for name, value in found[0][1].items():
        same(found[1][1][name], value)


def main(world: int, out: Path) -> None:
    cases: dict[str, tuple[Callable, Callable]] = {
        "pairs": (plain(pairs), plain(pairs)),
        "clips": (plain(clips), plain(clips)),
        "multi-positive": (plain(multi_positive), plain(multi_positive)),
        "sigmoid": (plain(sigmoid), plain(sigmoid)),
        "clips in blocks": (plain(clips), plain(clips, chunk=5)),
        "multi-positive in blocks": (plain(multi_positive), plain(multi_positive, chunk=5)),
        "sigmoid in blocks": (plain(sigmoid), plain(sigmoid, chunk=5)),
        "clips of few words": (plain(clips_of_few_words), plain(clips_of_few_words, chunk=5)),
        "multi-positive of few words": (plain(multi_positive_of_few_words), plain(multi_positive_of_few_words)),
        "sigmoid of few words": (plain(sigmoid_of_few_words), plain(sigmoid_of_few_words)),
        "cached": (plain(clips_and_head), cached),
        "cached in blocks": (plain(clips_and_head), lambda model, batch: cached(model, batch, chunk=5)),
    }
    batch, expected = global_batch(), {}
    for name, (alone, _) in cases.items():
        model = Towers()
        expected[name] = (alone(model, batch), gradients(model))

    dist.init_process_group("gloo")
    assert world_size() == world, f"{world_size()} processes, not {world}"
    mine = part(batch)
    passed = []
    for wrapper in (DistributedDataParallel, sharded):
        for name, (_, together) in cases.items():
            model = wrapper(copy.deepcopy(Towers()))
            value = together(model, mine)
            same(average(value), expected[name][0])
            for parameter, gradient in gradients(model).items():
                same(gradient, expected[name][1][parameter])
                assert gradient.abs().max() > 1e-4 or "head" in parameter or "bias" in parameter, parameter
            passed.append(f"{wrapper.__name__}: {name}")
    check_collectives()
    check_dropout(mine)
    passed += ["collectives", "dropout"]
    if world_size() > 1:
        check_uneven()
        passed.append("uneven")
    if rank() == 0:
        (out / str(world)).write_text("\n".join(passed))
    dist.destroy_process_group()
