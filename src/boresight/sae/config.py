"""What a sparse autoencoder is, and how one is fitted: every option once. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar, get_args

from boresight.errors import InputError, require_at_least, require_choice

Architecture = Literal["topk", "batchtopk", "jumprelu", "matryoshka"]
ARCHITECTURES = get_args(Architecture)
Options = TypeVar("Options")


def with_options(config: Options, options: Mapping[str, Any]) -> Options:
    """The dataclass `config` with some fields changed. Raises InputError naming one that it has not."""
    names = [field.name for field in fields(config)]  # type: ignore[arg-type]
    if unknown := [name for name in options if name not in names]:
        raise InputError(f"There is no option '{unknown[0]}'; choose from {', '.join(names)}.")
    return replace(config, **options)  # type: ignore[type-var]


@dataclass(frozen=True, kw_only=True)
class SaeConfig:
    """The shape of a sparse autoencoder and its rule of activation.

    Raises InputError naming the option that does not fit.

    Attributes:
        width: d, of the embeddings.
        n_latents: n, of the dictionary.
        k: active latents a row; a mean over rows where the rule is a threshold.
        architecture: the rule of activation, see `boresight.sae.model`.
    """

    width: int
    n_latents: int
    k: int
    architecture: Architecture = "topk"

    def __post_init__(self) -> None:
        require_choice("architecture", self.architecture, ARCHITECTURES)
        if self.width < 1:
            raise InputError("Embeddings of width 0 have nothing to code; pass a matrix (rows, width).")
        require_at_least("n_latents", self.n_latents, 1)
        if not 1 <= self.k <= self.n_latents:
            raise InputError(f"k is {self.k}; choose between 1 and n_latents, which is {self.n_latents}.")

    @property
    def thresholded(self) -> bool:
        """Whether codes come from a threshold, and so are ragged, at inference."""
        return self.architecture in ("batchtopk", "jumprelu")

    @property
    def max_active(self) -> int:
        """The most latents kept of a row, the largest, where the rule is a threshold."""
        return min(self.n_latents, 4 * self.k)

    @property
    def prefixes(self) -> tuple[int, ...]:
        """Ascending prefixes of the dictionary that must each reconstruct alone in training, the last one n."""
        parts = (8, 4, 2, 1) if self.architecture == "matryoshka" else (1,)
        return tuple(sorted({max(1, self.n_latents // part) for part in parts}))


@dataclass(frozen=True, kw_only=True)
class SaeOptions:
    """The options of a fit that `boresight sae` takes; `SaeFit` has all."""

    n_latents: int | None = None
    """Latents of the dictionary; left out, a third of the images as a power of two, between 128 and 4,096."""
    k: int = 32
    """Active latents of an image."""
    architecture: Architecture = "topk"
    """Rule of activation."""
    captions: bool = False
    """Whether it is fitted on what captions say of the images too, see `boresight.sae.captioned`: then latents mix
    less, and the form that shows drops more of what is not told. It does not help search."""
    seed: int = 0
    """Seed of the first weights and of the order of the images."""


@dataclass(frozen=True, kw_only=True)
class SaeFit(SaeOptions):
    """How a sparse autoencoder is fitted. What is left out (None) follows from the data, see `Plan.of`."""

    steps: int | None = None
    """How long, in batches; left out, `default_steps`."""
    batch_size: int | None = None
    """Rows a step; left out, a sixteenth of the rows as a power of two, between 64 and 4,096; all where there are fewer
    than 64."""
    learning_rate: float | None = None
    """Of Adam at its height; left out, 3e-3 up to 4,096 latents, falling with the root of their number above (as Gao et
    al. 2024 found best). It rises over the first 5 % of the steps and falls to 0 over the last 30 %."""
    aux_coefficient: float = 1 / 32
    """Weight of the auxiliary loss of Gao et al. 2024 (arXiv 2406.04093), whose default this is."""
    aux_k: int | None = None
    """How many dead latents a row the auxiliary loss may use; left out, 2 k."""
    dead_after: int | None = None
    """Rows without activity after which a latent counts as dead; left out, 4 batches or half of the rows, whichever is
    more, at most 1,000,000."""

    def latents_for(self, rows: int) -> int:
        """`n_latents`, or what follows from the rows: with more, most latents are never active."""
        if self.n_latents is not None:
            return self.n_latents
        return min(4096, max(128, 2 ** round(math.log2(max(1, rows / 3)))))


def default_steps(rows: int, batch_size: int) -> int:
    """2,000 steps, or as many as one epoch takes if that is more (above 8 million rows at 4,096 a step)."""
    return max(2000, math.ceil(rows / batch_size))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`SaeFit` for given data: nothing of it is left out."""

    seed: int
    steps: int
    batch_size: int
    learning_rate: float
    aux_coefficient: float
    aux_k: int
    dead_after: int
    warmup: float = 0.05
    decay: float = 0.3
    clip: float = 1.0

    @classmethod
    def of(cls, fit: SaeFit, rows: int) -> Plan:
        """What `fit` means for this many rows. Raises InputError naming the option that does not fit."""
        sixteenth = max(64, 2 ** round(math.log2(max(1, rows / 16))))
        batch = min(rows, min(4096, sixteenth) if fit.batch_size is None else fit.batch_size)
        n_latents = fit.latents_for(rows)
        rate = 3e-3 * min(1.0, math.sqrt(4096 / n_latents))
        plan = cls(
            seed=fit.seed,
            steps=default_steps(rows, max(1, batch)) if fit.steps is None else fit.steps,
            batch_size=batch,
            learning_rate=rate if fit.learning_rate is None else fit.learning_rate,
            aux_coefficient=fit.aux_coefficient,
            aux_k=min(n_latents, 2 * fit.k) if fit.aux_k is None else fit.aux_k,
            dead_after=min(1_000_000, max(4 * batch, rows // 2)) if fit.dead_after is None else fit.dead_after,
        )
        for name, least in (("steps", 1), ("batch_size", 1), ("aux_k", 0), ("dead_after", 1)):
            require_at_least(name, getattr(plan, name), least)
        if not 0 <= plan.aux_coefficient < math.inf:
            raise InputError(f"aux_coefficient is {plan.aux_coefficient}; choose 0 or more.")
        if not 0 < plan.learning_rate < math.inf:
            raise InputError(f"learning_rate is {plan.learning_rate}; choose more than 0.")
        return plan

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear from 0 over the first `warmup` of them, linear to 0 over the last `decay`."""
        rise = (step + 1) / max(1.0, self.warmup * self.steps)
        fall = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.learning_rate * min(1.0, rise, fall)
