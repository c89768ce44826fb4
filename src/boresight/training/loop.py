"""Training with synthetic captions (CLIPS) from a laptop to many GPUs, exact under any number of processes.

`torchrun --nproc-per-node N` is all that changes: the losses gather over processes with gradients, a batch larger than
memory goes through in micro-batches with the gradient of the whole (`gradient_cache`), and every draw is a function of
seed, step and process, so that a run that was killed goes on to the same numbers.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.distributed.checkpoint.stateful import Stateful

from boresight.errors import ArtefactError, InputError
from boresight.progress import progress, say
from boresight.seeds import generator
from boresight.storage import fingerprint, nearest
from boresight.training.captioner import IGNORED, Captioner
from boresight.training.checkpoints import find_checkpoint, load_checkpoint, save_checkpoint, whole_weights
from boresight.training.collectives import average, gather_objects, launched, rank, whole_tensor, world_size
from boresight.training.config import PretrainConfig, Stage
from boresight.training.contrastive import MAX_LOG_SCALE, clamp_scale
from boresight.training.gradient_cache import cached_backward
from boresight.training.parameters import average_into, lock, parameter_groups, rate_share
from boresight.training.trainee import Trainee, loss_of

CHECKPOINT, LOGS, MODEL, CAPTIONER = "checkpoint", "logs", "model", "captioner"
_PATIENCE = timedelta(hours=2)  # for which processes wait on the first one, which reads and evaluates alone


Batches = Callable[[Stage, int], Iterable[Mapping[str, Any]]]
"""batches(stage, start): the batches of this process from batch `start` on, endlessly, at the stage's sizes.

Where it is `Stateful` too, checkpoints keep its state, as json, and give it back to as many processes before the first
call.
"""


@dataclass(frozen=True)
class Trained:
    """What a training ends with: weights and captioner on the CPU, the last loss, and images a second of this call.

    Where it was finished before, the loss is nan and images a second are 0.
    """

    model: Any
    captioner: Captioner | None
    loss: float
    images_per_second: float


def join_processes() -> None:
    """Meet the processes that torchrun started; until then `rank` is 0 and `world_size` 1 in each of them."""
    PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)


def pretrain(
    trainee: Trainee,
    batches: Batches,
    config: PretrainConfig,
    out: str | Path,
    *,
    data: Any = None,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    keep: Callable[[Any, Captioner | None], None] | None = None,
    tensorboard: bool = True,
) -> Trained:
    """Train, with checkpoints in `out`/checkpoint and logs for TensorBoard in `out`/logs; where they exist, go on.

    Args:
        trainee: float32, on the CPU; left as it is.
        batches: see `Batches`; of every process the same number of images.
        data: what tells this data from other data, as json, for the checkpoint's manifest.
        evaluate: measures of the present model, called on the first process with every checkpoint; the model is on
            the accelerator.
        keep: writes model and captioner, on the CPU, for others to take from; called likewise, but for the last
            ones, which are returned.

    Raises:
        InputError: a loss, gradient or weight that is no longer finite (the checkpoint keeps the last good weights),
            memory that does not suffice, on the accelerator or for a loader process, a batch that processes cannot
            share evenly, processes that see different checkpoints, `config.shard` without torchrun.
        ArtefactError: the checkpoint was made with other settings, data or weights, is torn or cannot be written.
    """
    join_processes()
    folder = Path(out)
    if config.batch_size % world_size():
        raise InputError(f"A batch of {config.batch_size} does not go into {world_size()} processes; choose another.")
    if config.shard and not launched():
        raise InputError("shard spreads weights over processes, and this one is alone; use torchrun, or leave it out.")
    if rank() == 0:
        check_is_folder(folder)
    module = copy.deepcopy(trainee)
    origin = {"settings": config.of_outcome, "data": data, "weights": fingerprint(module.state_dict())}
    hottest = max(MAX_LOG_SCALE, float(module.model.logit_scale.detach()))  # as published checkpoints may be above 100
    _shape_scalars(module, like=None)
    if len(set(config.lock)) == 2 and module.captioner is None:
        raise InputError("Both towers are locked and there is no captioner, so nothing is left to learn; lock one.")
    for tower in config.lock:
        lock(module.model, tower)
    if config.gradient_checkpointing:
        module.model.activation_checkpointing_enable({"use_reentrant": False})
        if module.captioner is not None:
            module.captioner.recompute = True
    # A SigLIP trained by softmax never uses its bias, and a locked captioner's heads may be unused too.
    accelerator = Accelerator(
        mixed_precision="no",  # autocast is ours: accelerate's holds for the process, and not for one training
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    wrapped = _sharded(module, accelerator) if config.shard else accelerator.prepare_model(module)
    groups = parameter_groups(module, config.learning_rate, config.weight_decay, config.layer_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)
    averages = {name: value.detach().clone() for name, value in module.named_parameters()} if config.average else {}
    start = 0
    if find_checkpoint(folder / CHECKPOINT):
        start, places = load_checkpoint(folder / CHECKPOINT, wrapped, optimizer, averages, origin, folder / MODEL)
        if isinstance(batches, Stateful) and len(places) == world_size():
            batches.load_state_dict(places[rank()])
        if start < config.steps:
            _say(f"Going on from step {start} of {config.steps}.")

    log = _Log(folder / LOGS if tensorboard else None)
    loss_value, began, saved = math.nan, time.perf_counter(), start
    wrapped.train()
    hidden = math.inf if rank() else 0.0
    bar = progress(total=config.steps, initial=start, what="pretrain", unit="step", delay=hidden)
    with bar, log, _explained():
        for step, batch in zip(range(start, config.steps), _through(batches, config, start), strict=False):
            rate = config.learning_rate * rate_share(step, config.steps, config.warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["share"]
            torch.manual_seed(generator(config.seed, f"step {step} process {rank()}").initial_seed())
            measures = _step(wrapped, module, batch, optimizer, config, accelerator)
            loss_value = measures["loss"]
            if not all(map(math.isfinite, measures.values())):
                raise InputError(
                    _no_longer_finite("The loss or its gradient is", step, measures, folder, step == saved)
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if config.loss != "sigmoid":
                clamp_scale(module.model.logit_scale, hottest)
            if averages:
                average_into(averages, module, config.average)
            bar.update(1)
            bar.set_postfix(loss=f"{loss_value:.3f}", refresh=False)
            done = step + 1
            if done % config.every == 0 or done == config.steps:
                if not _all_finite(module):
                    raise InputError(_no_longer_finite("The weights are", step, measures, folder))
                places = gather_objects(batches.state_dict()) if isinstance(batches, Stateful) else []
                kept = {name: whole_tensor(value) for name, value in averages.items()}
                weights = save_checkpoint(folder / CHECKPOINT, wrapped, optimizer, kept, origin, done, places)
                saved = done
                keeping = keep is not None and done < config.steps
                if rank() == 0 and (evaluate is not None or keeping):
                    whole = _finished(_filled(weights, trainee) if config.shard else module, kept, trainee)
                    if keep is not None and keeping:
                        keep(whole.model, whole.captioner)
                    if evaluate is not None:
                        measures |= dict(evaluate(whole.model.to(accelerator.device)))
                log.write(done, {**measures, "learning rate": rate})
    seconds = max(time.perf_counter() - began, 1e-9)
    present = _filled(whole_weights(wrapped), trainee) if config.shard else module
    whole = _finished(present, {name: whole_tensor(value) for name, value in averages.items()}, trainee)
    return Trained(whole.model, whole.captioner, loss_value, (config.steps - start) * config.batch_size / seconds)


def _step(
    wrapped: nn.Module,
    module: Trainee,
    batch: Mapping[str, Any],
    optimizer: torch.optim.Optimizer,
    config: PretrainConfig,
    accelerator: Accelerator,
) -> dict[str, float]:
    """Gradients of one batch, clipped; of the whole batch of all processes the loss, the captioner's cross entropy a
    token (unweighted) and the gradient's norm.
    """
    tensors = module.trimmed({name: value for name, value in batch.items() if isinstance(value, Tensor)})
    tensors = {name: value.to(accelerator.device) for name, value in tensors.items()}
    size = len(tensors["pixel_values"])
    micro = config.micro_batch or size
    chunks = [{name: value[at : at + micro] for name, value in tensors.items()} for at in range(0, size, micro)]
    contrastive = loss_of(config.loss, config.captions, config.loss_chunk)
    extra, said = None, list[Tensor]()
    if module.captioner is not None:
        # Gradients are averaged over processes, so each divides by the mean number of tokens and not by its own.
        tokens = average((module.targets(tensors) != IGNORED).sum().float())

        def extra(encoded: Any) -> Tensor:
            share = encoded.rest / tokens
            said.append(share.detach())
            return config.captioning_weight * share

    def encode(chunk: Mapping[str, Tensor]) -> Any:
        with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            return wrapped(chunk)

    value, captioning = cached_backward(
        encode, chunks, lambda *inputs: config.contrastive_weight * contrastive(*inputs), model=wrapped, extra=extra
    )
    norm = torch.nn.utils.clip_grad_norm_(
        [value for group in optimizer.param_groups for value in group["params"]], config.gradient_norm
    )
    found = {"loss": average(value), "gradient norm": whole_tensor(norm)}
    if extra is not None:
        found["loss"] = found["loss"] + average(captioning)
        found["captioning"] = average(torch.stack(said).sum())
    return {name: float(each) for name, each in found.items()}


def _through(batches: Batches, config: PretrainConfig, start: int) -> Iterator[Mapping[str, Any]]:
    """All batches from step `start` on; the loader is made anew where a stage begins."""
    step = start
    while step < config.steps:
        stage = config.stage_at(step)
        end = config.steps if stage.until == 1 else round(stage.until * config.steps)
        for batch in batches(stage, step):
            yield batch
            step += 1
            if step == end:
                break


def _sharded(module: Trainee, accelerator: Accelerator) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(accelerator.device.type, (world_size(),))
    module.to(accelerator.device)
    for part in module.modules():
        if isinstance(part, nn.ModuleList):
            for layer in part:
                fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module


def _filled(weights: Mapping[str, Any], like: Trainee) -> Trainee:
    """A copy with these weights; on processes that have none, with its own."""
    whole = copy.deepcopy(like)
    _shape_scalars(whole, like=None)
    if weights:
        whole.load_state_dict(weights)
    return whole


def _shape_scalars(module: Trainee, like: Trainee | None) -> None:
    """Temperature and bias as vectors of one, since what has no dimension cannot be sharded, or shaped as in `like`."""
    for name in ("logit_scale", "logit_bias"):
        value = getattr(module.model, name, None)
        if value is not None:
            shape = (1,) if like is None else getattr(like.model, name).shape
            setattr(module.model, name, nn.Parameter(value.detach().reshape(shape), value.requires_grad))


def _finished(module: Trainee, averages: Mapping[str, Tensor], like: Trainee) -> Trainee:
    """A copy on the CPU, of the averages where they are kept."""
    whole = copy.deepcopy(module).cpu().eval()
    whole.load_state_dict({name: value.cpu() for name, value in averages.items()}, strict=False)
    _shape_scalars(whole, like)
    if getattr(whole.model, "is_activation_checkpointing", False):
        whole.model.activation_checkpointing_disable()
    if whole.captioner is not None:
        whole.captioner.recompute = False
    return whole.requires_grad_(True)


def check_is_folder(out: Path) -> None:
    """Raises ArtefactError where `out` is, or lies below, something that is no folder."""
    above = nearest(out)
    if not above.is_dir():
        raise ArtefactError(f"{above} is no folder, so nothing can be written to {out}; choose another folder.")


def _all_finite(module: nn.Module) -> bool:
    """Whether the sum of each parameter is finite, on all processes alike."""
    sums = [whole_tensor(value.detach().sum()) for value in module.parameters()]
    return bool(torch.stack(sums).isfinite().all())


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InputError(
            "The accelerator's memory does not suffice; the same command goes on with a smaller micro_batch or "
            "loss_chunk, or with gradient_checkpointing."
        ) from error
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        reason = str(error).splitlines()[0].rstrip(" .")
        raise InputError(
            f"A loader process was ended from outside, as where memory does not suffice ({reason}); the same command "
            "goes on with fewer workers (--workers 0 has none), a smaller batch or a larger /dev/shm."
        ) from error


def _no_longer_finite(what: str, step: int, measures: Mapping[str, float], folder: Path, at_once: bool = False) -> str:
    """`at_once`: the weights of the checkpoint were the first that gave it."""
    told = ", ".join(f"{name} {value}" for name, value in measures.items())
    if not (folder / CHECKPOINT).exists():
        safe, again = "there is no checkpoint yet", "start again"
    elif at_once:
        safe, again = f"the weights in {folder / CHECKPOINT} give it already", "start anew in another folder"
    elif (folder / MODEL).exists():
        safe, again = f"{folder / MODEL} has the last good weights", "train on from them into another folder"
    else:
        safe, again = f"{folder / CHECKPOINT} keeps the last good weights", "start anew in another folder"
    return (
        f"{what} no longer finite at step {step} ({told}; {safe}); {again} with a lower learning "
        "rate or precision='no'."
    )


def _say(line: str) -> None:
    if rank() == 0:
        say(line)


class _Log(contextlib.AbstractContextManager):
    """A line on the terminal and a point for TensorBoard, from the first process alone."""

    def __init__(self, folder: Path | None) -> None:
        self._writer: Any = None
        if folder is not None and rank() == 0:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder))

    def write(self, step: int, measures: Mapping[str, float]) -> None:
        _say(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in measures.items()))
        if self._writer is not None:
            for name, value in measures.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
