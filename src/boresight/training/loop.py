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
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.distributed.checkpoint.stateful import Stateful

from boresight.errors import InputError, first_line
from boresight.progress import progress
from boresight.seeds import generator
from boresight.storage import fingerprint
from boresight.training.captioner import IGNORED, Captioner
from boresight.training.checkpoints import (
    CHECKPOINT,
    MODEL,
    check_is_folder,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
    whole_weights,
)
from boresight.training.collectives import (
    average,
    gather_objects,
    join_processes,
    launched,
    rank,
    say_once,
    sharded,
    whole_tensor,
    world_size,
)
from boresight.training.config import PretrainConfig, Stage
from boresight.training.contrastive import MAX_LOG_SCALE, clamp_scale, same_words
from boresight.training.gradient_cache import Encoded, cached_backward
from boresight.training.parameters import average_into, lock, parameter_groups, rate_share
from boresight.training.trainee import Trainee, finished, loss_of, scalars_as_vectors

LOGS = "logs"

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
    origin = {"settings": config.of_outcome, "data": data, "weights": fingerprint(trainee.state_dict())}
    training = _Training(trainee, config, folder, origin)
    start = training.go_on(batches)
    log = _Log(folder / LOGS if tensorboard else None)
    loss, began = math.nan, time.perf_counter()
    hidden = math.inf if rank() else 0.0
    bar = progress(total=config.steps, initial=start, what="pretrain", unit="step", delay=hidden)
    with bar, log, _explained():
        for step, batch in zip(range(start, config.steps), _through(batches, config, start), strict=False):
            measures = training.step(step, batch)
            loss = measures["loss"]
            bar.update(1)
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            done = step + 1
            if done % config.every == 0 or done == config.steps:
                keeping = keep is not None and done < config.steps
                whole = training.save(done, measures, batches, wanted=evaluate is not None or keeping)
                if whole is not None and keep is not None and keeping:
                    keep(whole.model, whole.captioner)
                if whole is not None and evaluate is not None:
                    measures |= evaluate(whole.model.to(training.accelerator.device))
                log.write(done, {**measures, "learning rate": training.rate})
    seconds = max(time.perf_counter() - began, 1e-9)
    whole = training.whole(whole_weights(training.wrapped) if config.shard else {}, training.whole_averages())
    return Trained(whole.model, whole.captioner, loss, (config.steps - start) * config.batch_size / seconds)


class _Training:
    """A training under way: what learns, its optimiser and averages, and the folder that keeps them."""

    def __init__(self, trainee: Trainee, config: PretrainConfig, folder: Path, origin: Mapping[str, Any]) -> None:
        self.trainee, self.config, self.folder, self.origin = trainee, config, folder, origin
        self.saved, self.rate = 0, 0.0
        module = self.module = copy.deepcopy(trainee)
        log_scale = float(module.model.logit_scale.detach())
        self.hottest = max(MAX_LOG_SCALE, log_scale)  # as published checkpoints may be above 100
        scalars_as_vectors(module)
        if len(set(config.lock)) == 2 and module.captioner is None:
            raise InputError("Both towers are locked and there is no captioner, so nothing is left to learn; lock one.")
        for tower in config.lock:
            lock(module.model, tower)
        if config.gradient_checkpointing:
            module.model.activation_checkpointing_enable({"use_reentrant": False})
            if module.captioner is not None:
                module.captioner.recompute = True
        # A SigLIP trained by softmax never uses its bias, and a locked captioner's heads may be unused too.
        self.accelerator = Accelerator(
            mixed_precision="no",  # autocast is ours: accelerate's holds for the process, and not for one training
            cpu=not torch.cuda.is_available(),
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        device = self.accelerator.device
        self.wrapped: nn.Module = sharded(module, device) if config.shard else self.accelerator.prepare_model(module)
        groups = parameter_groups(module, config.learning_rate, config.weight_decay, config.layer_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)
        named = module.named_parameters() if config.average else ()
        self.averages = {name: value.detach().clone() for name, value in named}

    def go_on(self, batches: Batches) -> int:
        """Take up the checkpoint of the folder, where there is one; how many steps are done."""
        if not find_checkpoint(self.folder / CHECKPOINT):
            return 0
        self.saved, positions = load_checkpoint(
            self.folder / CHECKPOINT, self.wrapped, self.optimizer, self.averages, self.origin, self.folder / MODEL
        )
        if isinstance(batches, Stateful) and len(positions) == world_size():
            batches.load_state_dict(positions[rank()])
        if self.saved < self.config.steps:
            say_once(f"Going on from step {self.saved} of {self.config.steps}.")
        return self.saved

    def step(self, step: int, batch: Mapping[str, Any]) -> dict[str, float]:
        """One step; its measures. Raises InputError where one is no longer finite, before any weight moves."""
        config = self.config
        self.rate = config.learning_rate * rate_share(step, config.steps, config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group["share"]
        torch.manual_seed(generator(config.seed, f"step {step} process {rank()}").initial_seed())
        measures = self._gradients(batch)
        if not all(map(math.isfinite, measures.values())):
            raise self._no_longer_finite("The loss or its gradient is", step, measures, at_once=step == self.saved)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if config.loss != "sigmoid":
            clamp_scale(self.module.model.logit_scale, self.hottest)
        average_into(self.averages, self.module, config.average)
        return measures

    def _gradients(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """Gradients of one batch, clipped; what they come to over all processes.

        These are the loss, the captioner's cross entropy a token (unweighted) and the gradient's norm.
        """
        config, device = self.config, self.accelerator.device
        whole = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
        # Untrimmed, so that all processes compare captions of one width.
        words = None if config.equal_negatives else same_words(self.module.caption_ids(whole).to(device))
        tensors = {name: value.to(device) for name, value in self.module.trimmed(whole).items()}
        size = len(tensors["pixel_values"])
        micro = config.micro_batch or size
        chunks = [{name: value[at : at + micro] for name, value in tensors.items()} for at in range(0, size, micro)]
        contrastive = loss_of(config.loss, config.captions, config.loss_chunk, words)
        extra, shares = None, list[Tensor]()
        if self.module.captioner is not None:
            # Gradients are averaged over processes, so each divides by the mean number of tokens and not by its own.
            tokens = average((self.module.targets(tensors) != IGNORED).sum().float())

            def extra(encoded: Encoded) -> Tensor:
                share = encoded.rest / tokens
                shares.append(share.detach())
                return config.captioning_weight * share

        def encode(chunk: Mapping[str, Tensor]) -> Encoded:
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                return self.wrapped(chunk)

        value, captioning = cached_backward(encode, chunks, contrastive, model=self.wrapped, extra=extra)
        parameters = [value for group in self.optimizer.param_groups for value in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.gradient_norm)
        measures = {"loss": average(value), "gradient norm": whole_tensor(norm)}
        if extra is not None:
            measures["loss"] = measures["loss"] + average(captioning)
            measures["captioning"] = average(torch.stack(shares).sum())
        return {name: float(each) for name, each in measures.items()}

    def save(self, done: int, measures: Mapping[str, float], batches: Batches, *, wanted: bool) -> Trainee | None:
        """Write the checkpoint; on the first process, where `wanted`, what is trained as of now, on the CPU."""
        if not _all_finite(self.module):
            raise self._no_longer_finite("The weights are", done - 1, measures)
        positions: list[Any] = gather_objects(batches.state_dict()) if isinstance(batches, Stateful) else []
        averages = self.whole_averages()
        weights = save_checkpoint(
            self.folder / CHECKPOINT, self.wrapped, self.optimizer, averages, self.origin, done, positions
        )
        self.saved = done
        return self.whole(weights, averages) if wanted and rank() == 0 else None

    def _no_longer_finite(
        self, what: str, step: int, measures: Mapping[str, float], *, at_once: bool = False
    ) -> InputError:
        """`at_once`: the weights of the checkpoint were the first that gave it."""
        checkpoint, model = self.folder / CHECKPOINT, self.folder / MODEL
        values = ", ".join(f"{name} {value}" for name, value in measures.items())
        if not checkpoint.exists():
            safe, again = "there is no checkpoint yet", "start again"
        elif at_once:
            safe, again = f"the weights in {checkpoint} give it already", "start anew in another folder"
        elif model.exists():
            safe, again = f"{model} has the last good weights", "train on from them into another folder"
        else:
            safe, again = f"{checkpoint} keeps the last good weights", "start anew in another folder"
        return InputError(
            f"{what} no longer finite at step {step} ({values}; {safe}); {again} with a lower learning "
            "rate or precision='no'."
        )

    def whole_averages(self) -> dict[str, Tensor]:
        """The averages, each gathered on every process."""
        return {name: whole_tensor(value) for name, value in self.averages.items()}

    def whole(self, weights: Mapping[str, Any], averages: Mapping[str, Tensor]) -> Trainee:
        """What is trained, as it would be saved; `weights` are read where they are spread over processes."""
        return finished(self.trainee, {**(weights if self.config.shard else self.module.state_dict()), **averages})


def _through(batches: Batches, config: PretrainConfig, start: int) -> Iterator[Mapping[str, Any]]:
    """All batches from step `start` on; the loader is made anew where a stage begins."""
    for stage, end in zip(config.stages, config.ends, strict=True):
        if start < end:
            yield from islice(batches(stage, start), end - start)
            start = end


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
        raise InputError(
            f"A loader process was ended from outside, as where memory does not suffice ({first_line(error)}); the "
            "same command goes on with fewer workers (--workers 0 has none), a smaller batch or a larger /dev/shm."
        ) from error


class _Log(contextlib.AbstractContextManager):
    """A line on the terminal and a point for TensorBoard, from the first process alone."""

    def __init__(self, folder: Path | None) -> None:
        self._writer: Any = None
        if folder is not None and rank() == 0:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder))

    def write(self, step: int, measures: Mapping[str, float]) -> None:
        say_once(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in measures.items()))
        if self._writer is not None:
            for name, value in measures.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
