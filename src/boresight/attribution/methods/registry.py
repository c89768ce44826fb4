"""The methods by the names that `explain` and the command line take."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from boresight.attribution.methods.attention import AttentionRollout, Chefer, LeGrad
from boresight.attribution.methods.base import Method
from boresight.attribution.methods.bottleneck import M2IB
from boresight.attribution.methods.controls import RandomMap, UniformMap
from boresight.attribution.methods.gradients import GradCam, GradientXInput, IntegratedGradients
from boresight.attribution.methods.path import BottleneckPath
from boresight.attribution.methods.perturbation import KernelShap, Occlusion, Rise
from boresight.errors import InputError, one_of

METHODS: dict[str, type[Method]] = {
    "m2ib": M2IB,
    "bottleneck-path": BottleneckPath,
    "gradient-x-input": GradientXInput,
    "integrated-gradients": IntegratedGradients,
    "grad-cam": GradCam,
    "chefer": Chefer,
    "legrad": LeGrad,
    "rollout": AttentionRollout,
    "occlusion": Occlusion,
    "rise": Rise,
    "kernelshap": KernelShap,
    "random": RandomMap,
    "uniform": UniformMap,
}
SCORES_ONLY = ("occlusion", "rise", "kernelshap", "random", "uniform")
"""Methods that need nothing of an encoder but its scores."""


def make_method(name: str, model: Any, **options: Any) -> Method:
    """The method of this name over a transformers model or its `Towers`. Raises InputError for what is unknown."""
    if name not in METHODS:
        raise InputError(f"There is no method '{name}'; {one_of(name, METHODS)}.")
    known = [each.name for each in fields(METHODS[name]) if each.name != "model"]
    for option in options:
        if option not in known:
            raise InputError(f"'{name}' has no option '{option}'; it has {', '.join(known)}.")
    return METHODS[name](model, **options)


def options_of(method: Method) -> dict[str, Any]:
    """Name -> value of each of its options."""
    return {each.name: getattr(method, each.name) for each in fields(method) if each.name != "model"}
