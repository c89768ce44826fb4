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

from boresight.artefacts import load_artefact, save_artefact
from boresight.errors import ArtefactError
from boresight.pretraining.collectives import rank, shared_like

KIND = "training"
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def save_checkpoint(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, Tensor],
    origin: Mapping[str, Any],
    step: int,
    places: Sequence[Any] = (),
) -> dict[str, Any]:
    """Write the state after `step` steps; what stood at `folder` stays until all of it is on the disk.

    `average` is whole, `places` says, as json, where the data of each process stand. Every process takes part, the
    first one writes. Returns `whole_weights`. Raises ArtefactError when the folder cannot be written.
    """
    weights = whole_weights(module)
    moments: Any = get_optimizer_state_dict(module, optimizer, options=_WHOLE).get("state", {})
    if rank() == 0:
        tensors = {f"model/{name}": value for name, value in weights.items()}
        tensors |= {f"{what}/{name}": value for name, kept in moments.items() for what, value in kept.items()}
        tensors |= {f"average/{name}": value for name, value in average.items()}
        save_artefact(folder, KIND, tensors, {"step": step, "places": list(places), **origin})
    return weights


def whole_weights(module: nn.Module) -> dict[str, Any]:
    """The weights gathered from all processes, on the CPU of the first; empty on the others. All take part."""
    return get_model_state_dict(module, options=_WHOLE)


def load_checkpoint(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, Tensor],
    origin: Mapping[str, Any],
) -> tuple[int, list[Any]]:
    """Put a checkpoint's state back, in place; how many steps it has behind it, and where the data stood.

    Raises ArtefactError when it is torn, or was made with other settings, data or another model.
    """
    tensors, manifest = load_artefact(folder, KIND)
    for what, value in origin.items():
        if manifest.get(what) != value:
            raise ArtefactError(f"{folder} was made with other {what}; use the same or another folder.")
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
        raise ArtefactError(f"{folder} was made with another model ({_line(error)}); use another folder.") from error
    return int(manifest["step"]), list(manifest.get("places", ()))


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".:")[:200]
