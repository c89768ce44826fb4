"""Why an image matches a sentence: M2IB, its peers and its controls."""

from boresight.attribution.attention import AttentionRollout as AttentionRollout
from boresight.attribution.attention import Chefer as Chefer
from boresight.attribution.attention import LeGrad as LeGrad
from boresight.attribution.bottleneck import M2IB as M2IB
from boresight.attribution.controls import RandomMap as RandomMap
from boresight.attribution.controls import UniformMap as UniformMap
from boresight.attribution.explain import explain as explain
from boresight.attribution.gradients import GradCam as GradCam
from boresight.attribution.gradients import GradientXInput as GradientXInput
from boresight.attribution.gradients import IntegratedGradients as IntegratedGradients
from boresight.attribution.maps import Attribution as Attribution
from boresight.attribution.maps import Word as Word
from boresight.attribution.methods import METHODS as METHODS
from boresight.attribution.path import BottleneckPath as BottleneckPath
from boresight.attribution.perturbation import KernelShap as KernelShap
from boresight.attribution.perturbation import Occlusion as Occlusion
from boresight.attribution.perturbation import Rise as Rise
