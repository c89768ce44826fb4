"""What a sparse autoencoder is, and how one is fitted: every option once. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar, get_args

from boresight.errors import InputError, require_at_least, require_choice

Architecture = Literal["topk", "batchtopk", "jumprelu", "matryoshka"]
Selection = Literal["topk", "batchtopk"]
Prebias = Literal["geometric_median", "mean", "zero"]
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
        architecture: 'topk' (the k largest of each row), 'batchtopk' (the B k largest of a training batch, then one
            threshold), 'jumprelu' (a learnt threshold per latent), 'matryoshka' (nested prefixes of the dictionary).
        selection: how 'matryoshka' selects, 'topk' or 'batchtopk'.
        matryoshka_sizes: ascending prefixes of the dictionary that must each reconstruct alone, the last one n; left
            out, n/8, n/4, n/2 and n. Empty for the other architectures.
        max_active: where the rule is a threshold, the most latents kept of a row, the largest; left out, 4 k.
    """

    width: int
    n_latents: int
    k: int
    architecture: Architecture = "topk"
    selection: Selection = "topk"
    matryoshka_sizes: Sequence[int] = ()
    max_active: int = -1

    def __post_init__(self) -> None:
        n = self.n_latents
        require_choice("architecture", self.architecture, ARCHITECTURES)
        require_choice("selection", self.selection, get_args(Selection))
        if self.width < 1:
            raise InputError("Embeddings of width 0 have nothing to code; pass a matrix (rows, width).")
        require_at_least("n_latents", n, 1)
        if not 1 <= self.k <= n:
            raise InputError(f"k is {self.k}; choose between 1 and n_latents, which is {n}.")
        sizes = tuple(self.matryoshka_sizes)
        if self.architecture != "matryoshka" and (sizes or self.selection != "topk"):
            raise InputError("matryoshka_sizes and selection belong to architecture='matryoshka'; leave them out.")
        if self.architecture == "matryoshka" and not sizes:
            sizes = tuple(sorted({max(1, n // part) for part in (8, 4, 2, 1)}))
        if sizes and (sizes[0] < 1 or sizes[-1] != n or list(sizes) != sorted(set(sizes))):
            raise InputError(f"matryoshka_sizes is {list(sizes)}; it must ascend from at least 1 to exactly {n}.")
        most = min(n, 4 * self.k) if self.max_active == -1 else self.max_active
        if not self.k <= most <= n:
            raise InputError(f"max_active is {most}; choose between k ({self.k}) and n_latents ({n}).")
        object.__setattr__(self, "matryoshka_sizes", sizes)
        object.__setattr__(self, "max_active", most)

    @property
    def thresholded(self) -> bool:
        """Whether codes come from a threshold, and so are ragged, at inference."""
        return self.architecture in ("batchtopk", "jumprelu") or self.selection == "batchtopk"

    @property
    def depth(self) -> int:
        """How many nested reconstructions training asks for."""
        return max(1, len(self.matryoshka_sizes))


@dataclass(frozen=True, kw_only=True)
class SaeOptions:
    """The options of a fit that `boresight sae` takes; `SaeFit` has all."""

    n_latents: int = 4096
    """Latents of the dictionary."""
    k: int = 32
    """Active latents of an image."""
    architecture: Architecture = "topk"
    """Rule of activation."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class SaeFit(SaeOptions):
    """How a sparse autoencoder is fitted. What is left out (None) follows from the data, see `Plan.of`."""

    selection: Selection = "topk"
    """This and the next two: see `SaeConfig`."""
    matryoshka_sizes: Sequence[int] | None = None
    max_active: int | None = None
    epochs: float | None = None
    """How long, in passes over the rows; at most one of this and `steps`."""
    steps: int | None = None
    """How long, in batches; left out, `default_steps`."""
    batch_size: int | None = None
    """Rows a step; left out, `default_batch_size`."""
    learning_rate: float | None = None
    """Of Adam at its height; left out, `default_learning_rate`. It rises over the first 5 % of the steps and falls to 0
    over the last 30 %."""
    prebias: Prebias = "geometric_median"
    """Where b starts; the geometric median and the mean are taken over at most 16,384 rows."""
    aux_coefficient: float = 1 / 32
    """Weight of the auxiliary loss of Gao et al. 2024 (arXiv 2406.04093), whose default this is."""
    aux_k: int | None = None
    """How many dead latents a row the auxiliary loss may use; left out, 2 k."""
    dead_after: int | None = None
    """Rows without activity after which a latent counts as dead; left out, 4 batches or half of the rows, whichever is
    more, at most 1,000,000."""
    l0_coefficient: float = 3.0
    """How strongly 'jumprelu' is pulled to k active latents."""

    def shape(self, width: int) -> SaeConfig:
        """What is fitted to embeddings of this width. Raises InputError as `SaeConfig` says."""
        same = {name: getattr(self, name) for name in ("n_latents", "k", "architecture", "selection")}
        most = -1 if self.max_active is None else self.max_active
        return SaeConfig(width=width, matryoshka_sizes=self.matryoshka_sizes or (), max_active=most, **same)


def default_batch_size(rows: int) -> int:
    """A sixteenth of the rows as a power of two, between 64 and 4,096; all rows where there are fewer than 64."""
    return min(rows, 4096, max(64, 2 ** round(math.log2(max(1, rows / 16)))))


def default_steps(rows: int, batch_size: int) -> int:
    """2,000 steps, or as many as one epoch takes if that is more (above 8 million rows at 4,096 a step)."""
    return max(2000, math.ceil(rows / batch_size))


def default_learning_rate(n_latents: int) -> float:
    """3e-3 up to 4,096 latents, falling with the root of their number above (as Gao et al. 2024 found best)."""
    return 3e-3 * min(1.0, math.sqrt(4096 / n_latents))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`SaeFit` for given data: nothing of it is left out."""

    seed: int
    steps: int
    batch_size: int
    learning_rate: float
    prebias: Prebias
    aux_coefficient: float
    aux_k: int
    dead_after: int
    l0_coefficient: float
    warmup: float = 0.05
    decay: float = 0.3
    clip: float = 1.0

    @classmethod
    def of(cls, fit: SaeFit, rows: int) -> Plan:
        """What `fit` means for this many rows. Raises InputError naming the option that does not fit."""
        if fit.epochs is not None and fit.steps is not None:
            raise InputError("Choose either epochs or steps, not both.")
        require_choice("prebias", fit.prebias, get_args(Prebias))
        if fit.epochs is not None and not 0 < fit.epochs < math.inf:
            raise InputError(f"epochs is {fit.epochs}; choose more than 0.")
        batch = default_batch_size(rows) if fit.batch_size is None else min(fit.batch_size, rows)
        steps = default_steps(rows, max(1, batch)) if fit.steps is None else fit.steps
        if fit.epochs is not None and batch > 0:
            steps = math.ceil(fit.epochs * rows / batch)
        same = {name: getattr(fit, name) for name in ("seed", "prebias", "aux_coefficient", "l0_coefficient")}
        plan = cls(
            steps=steps,
            batch_size=batch,
            learning_rate=default_learning_rate(fit.n_latents) if fit.learning_rate is None else fit.learning_rate,
            aux_k=min(fit.n_latents, 2 * fit.k) if fit.aux_k is None else fit.aux_k,
            dead_after=min(1_000_000, max(4 * batch, rows // 2)) if fit.dead_after is None else fit.dead_after,
            **same,
        )
        for name, least in (("steps", 1), ("batch_size", 1), ("aux_k", 0), ("dead_after", 1)):
            require_at_least(name, getattr(plan, name), least)
        for name in ("aux_coefficient", "l0_coefficient"):
            if not 0 <= getattr(plan, name) < math.inf:
                raise InputError(f"{name} is {getattr(plan, name)}; choose 0 or more.")
        if not 0 < plan.learning_rate < math.inf:
            raise InputError(f"learning_rate is {plan.learning_rate}; choose more than 0.")
        return plan

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear from 0 over the first `warmup` of them, linear to 0 over the last `decay`."""
        rise = (step + 1) / max(1.0, self.warmup * self.steps)
        fall = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.learning_rate * min(1.0, rise, fall)
