"""Checkpoints of a training: weights, moments and averages in one folder, written whole or not at all.

The state is gathered whole from whatever wraps the module (nothing, DDP or FSDP2), so a run may go on with another
number of processes. No random state is kept: every draw of a step is seeded by the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from boresight.errors import ArtefactError, InputError, first_line
from boresight.storage import load_artefact, nearest, put_back, read_manifest, save_artefact
from boresight.training.collectives import gather_objects, rank, shared_like

KIND = "training"
CHECKPOINT, MODEL, CAPTIONER = "checkpoint", "model", "captioner"
"""Folders below that of a training."""
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def check_is_folder(out: Path) -> None:
    """Raises ArtefactError where `out` is, or lies below, something that is no folder."""
    above = nearest(out)
    if not above.is_dir():
        raise ArtefactError(f"{above} is no folder, so nothing can be written to {out}; choose another folder.")


def save_checkpoint(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, Tensor],
    origin: Mapping[str, Any],
    step: int,
    positions: Sequence[Any] = (),
) -> dict[str, Any]:
    """Write the state after `step` steps; what stood at `folder` stays until all of it is on the disk.

    `average` is whole, `positions` says, as json, where the data of each process stand. Every process takes part, the
    first one writes. Returns `whole_weights`. Raises ArtefactError when the folder cannot be written.
    """
    weights = whole_weights(module)
    moments: Any = get_optimizer_state_dict(module, optimizer, options=_WHOLE).get("state", {})
    if rank() == 0:
        tensors = {f"model/{name}": value for name, value in weights.items()}
        tensors |= {f"{what}/{name}": value for name, kept in moments.items() for what, value in kept.items()}
        tensors |= {f"average/{name}": value for name, value in average.items()}
        save_artefact(folder, KIND, tensors, {"step": step, "places": list(positions), **origin})
    return weights


def whole_weights(module: nn.Module) -> dict[str, Any]:
    """The weights gathered from all processes, on the CPU of the first; empty on the others. All take part."""
    return get_model_state_dict(module, options=_WHOLE)


def find_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint to go on from; every process takes part.

    What a kill left is put back first. Raises InputError on every process where they do not all see the same
    checkpoint, ArtefactError for a folder that holds anything else.
    """
    if rank() == 0:
        put_back(folder)
    gather_objects(None)  # nobody looks before
    seen = read_manifest(folder, KIND) if folder.exists() else {}
    everywhere = gather_objects((seen.get("step", 0), seen.get("fingerprint")))
    if len(set(everywhere)) > 1:
        steps = ", ".join(str(step) for step, _ in everywhere)
        raise InputError(
            f"The processes do not see the same checkpoint in {folder} (it is of step {steps}); write to a folder that "
            "all hosts share."
        )
    return bool(seen)


def load_checkpoint(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, Tensor],
    origin: Mapping[str, Any],
    instead: Path,
) -> tuple[int, list[Any]]:
    """Put a checkpoint's state back, in place; how many steps it has behind it, and where the data stood.

    `instead` may hold the model of the same steps, to be named where the checkpoint is torn.

    Raises ArtefactError when it is torn, or was made with other settings, data or another model.
    """
    try:
        tensors, manifest = load_artefact(folder, KIND)
    except ArtefactError as error:
        if not instead.exists():
            raise
        reason = str(error).removesuffix(".")
        raise ArtefactError(f"{reason}, or train on from {instead} into another folder.") from error
    for what, value in origin.items():
        if manifest.get(what) != value:
            raise ArtefactError(
                f"{folder} was made with other {what}{_differing(manifest.get(what), value)}; "
                "use the same or another folder."
            )
    parts: dict[str, dict[str, Any]] = {}
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        parts.setdefault(part, {})[rest] = value
    weights, averages = parts.pop("model", {}), parts.pop("average", {})
    state: Any = {name: {what: kept[name] for what, kept in parts.items()} for name in parts.get("step", {})}
    # Learning rates and the like are the configuration's, which `origin` has found equal.
    groups = get_optimizer_state_dict(module, optimizer)["param_groups"]
    try:
        set_model_state_dict(module, weights, options=_WHOLE)
        set_optimizer_state_dict(module, optimizer, {"state": state, "param_groups": groups}, options=_WHOLE)
        for name, value in average.items():
            value.copy_(shared_like(averages[name], value))
    except (RuntimeError, KeyError, ValueError) as error:
        raise ArtefactError(
            f"{folder} was made with another model ({first_line(error)}); use another folder."
        ) from error
    return int(manifest["step"]), list(manifest.get("places", ()))


def _differing(saved: Any, value: Any) -> str:
    """The first setting that differs, as ' (name: saved, here value)'; '' where it has no name."""
    if not isinstance(saved, Mapping) or not isinstance(value, Mapping):
        return ""
    name = next(name for name in {**value, **saved} if saved.get(name) != value.get(name))
    return _differing(saved.get(name), value.get(name)) or f" ({name}: {saved.get(name)}, here {value.get(name)})"
