"""The methods by the names that `explain` and the command line take."""

from __future__ import annotations

from boresight.attribution.methods.attention import AttentionRollout, Chefer, LeGrad
from boresight.attribution.methods.base import Method
from boresight.attribution.methods.bottleneck import M2IB
from boresight.attribution.methods.controls import RandomMap, UniformMap
from boresight.attribution.methods.gradients import GradCam, GradientXInput, IntegratedGradients
from boresight.attribution.methods.path import BottleneckPath
from boresight.attribution.methods.perturbation import KernelShap, Occlusion, Rise

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
