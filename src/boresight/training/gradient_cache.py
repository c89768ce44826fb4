"""Large batches in small memory: the gradient of a loss over the whole batch, encoded chunk by chunk (GradCache).

A contrastive loss needs the embeddings of the whole batch at once, but not the graphs of the towers behind them (Gao
et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", section 3). So: embed all
chunks without a graph, take the loss and its gradient with respect to the embeddings, then embed each chunk once more
with a graph and send its share of that gradient through it. One more forward; the memory of one chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from boresight.errors import InputError
from boresight.training.collectives import gradients_kept_local

Chunk = TypeVar("Chunk")


class Encoded(NamedTuple):
    """What the model makes of one chunk.

    Attributes:
        inputs: the arguments of the loss, in its order. Those with rows, (rows of the chunk, ...), are joined over
            chunks; those of shape (), such as the temperature, must be the same in every chunk.
        rest: anything that `extra` takes beside them.
    """

    inputs: tuple[Tensor, ...]
    rest: Any = None


def cached_backward(
    encode: Callable[[Chunk], Encoded],
    chunks: Sequence[Chunk],
    loss: Callable[..., Tensor],
    *,
    model: nn.Module | None = None,
    extra: Callable[[Encoded], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Add the gradient of `loss` over all chunks, plus `extra` of each, to every parameter's `.grad`.

    The gradient is that of `loss(all chunks joined).backward()`, dropout included: the random state before each chunk
    (of the CPU and of the current GPU) is replayed. Layers that count what they see, such as batch normalisation, are
    not exact here, as they see each chunk alone and twice.

    Under several processes `loss` gathers the embeddings of all, and gradients are averaged over processes at the last
    chunk only. `encode` must then call `model` itself, and every trained parameter, the temperature too, must come in
    through `inputs` or `extra`. With `fully_shard` every process needs the same number of chunks.

    Args:
        encode: runs the model on one chunk; called twice a chunk, without a graph and with it. One chunk alone goes
            through once, with its graph.
        chunks: parts of the batch of this process, one or more, of any sizes.
        loss: of the joined inputs, such as `clips_loss`; returns () float.
        model: the wrapped model whose gradients are averaged over processes; None with one process.
        extra: a loss whose gradient need not pass through the cache, such as the captioner's; called at the second
            pass only. Returns () float, the chunk's share: shares are added up, so divide by the whole batch's count.

    Returns:
        () float, the value of `loss`; () float, the sum of `extra`; both without gradients.

    Raises:
        InputError: no chunk.
    """
    if not chunks:
        raise InputError("There is no chunk to encode; give one or more.")
    alone = len(chunks) == 1  # nothing to spare: one forward is enough
    states, encodings = [], []
    with nullcontext() if alone else torch.no_grad():
        for chunk in chunks:
            states.append(_random_state())
            encodings.append(encode(chunk) if alone else Encoded(encode(chunk).inputs))
    leaves = [_join(parts).requires_grad_() for parts in zip(*(each.inputs for each in encodings), strict=True)]
    value = loss(*leaves)
    gradients = torch.autograd.grad(value, leaves, materialize_grads=True)

    total, last, start = torch.zeros_like(value), len(chunks) - 1, [0] * len(gradients)
    for number, chunk in enumerate(chunks):
        with nullcontext() if number == last else gradients_kept_local(model):
            if alone:
                encoded = encodings[0]
            else:
                with _replayed(states[number]):
                    encoded = encode(chunk)
            outputs, back = [], []
            for side, (output, gradient) in enumerate(zip(encoded.inputs, gradients, strict=True)):
                if output.ndim:
                    gradient = gradient[start[side] : start[side] + len(output)]
                    start[side] += len(output)
                if output.requires_grad and (output.ndim or number == last):
                    outputs.append(output)
                    back.append(gradient)
            if extra is not None:
                share = extra(encoded)
                outputs.append(share)
                back.append(torch.ones_like(share))
                total += share.detach()
            torch.autograd.backward(outputs, back)
    return value.detach(), total


def _join(parts: tuple[Tensor, ...]) -> Tensor:
    parts = tuple(part.detach() for part in parts)
    return torch.cat(parts) if parts[0].ndim else parts[0].clone()


def _random_state() -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None


@contextmanager
def _replayed(state: tuple[Tensor, Tensor | None]) -> Iterator[None]:
    """Draw in here what was drawn after `state`, and after it go on as if nothing had been drawn."""
    of_cpu, of_gpu = state
    with torch.random.fork_rng([] if of_gpu is None else [torch.cuda.current_device()]):
        torch.set_rng_state(of_cpu)
        if of_gpu is not None:
            torch.cuda.set_rng_state(of_gpu)
        yield
