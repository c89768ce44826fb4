"""What a sparse autoencoder is, and how one is fitted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from boresight.errors import InputError

Architecture = Literal["topk", "batchtopk", "jumprelu", "matryoshka"]
Selection = Literal["topk", "batchtopk"]
Prebias = Literal["geometric_median", "mean", "zero"]
PREBIASES = ("geometric_median", "mean", "zero")
ARCHITECTURES = ("topk", "batchtopk", "jumprelu", "matryoshka")


@dataclass(frozen=True, kw_only=True)
class SaeConfig:
    """The shape of a sparse autoencoder and its rule of activation.

    Attributes:
        width: d, of the embeddings.
        n_latents: n, of the dictionary.
        k: active latents a row; a mean over rows where the rule is a threshold.
        architecture: 'topk' (the k largest of each row), 'batchtopk' (the B k largest of a training batch, then one
            threshold), 'jumprelu' (a learnt threshold per latent), 'matryoshka' (nested prefixes of the dictionary).
        selection: how 'matryoshka' selects, 'topk' or 'batchtopk'.
        matryoshka_sizes: ascending prefixes of the dictionary that must each reconstruct alone, the last one n.
        max_active: where the rule is a threshold, the most latents kept of a row, the largest.
    """

    width: int
    n_latents: int
    k: int
    architecture: Architecture = "topk"
    selection: Selection = "topk"
    matryoshka_sizes: tuple[int, ...] = ()
    max_active: int = 0

    @property
    def thresholded(self) -> bool:
        """Whether codes come from a threshold, and so are ragged, at inference."""
        return self.architecture in ("batchtopk", "jumprelu") or (
            self.architecture == "matryoshka" and self.selection == "batchtopk"
        )

    @property
    def depth(self) -> int:
        """How many nested reconstructions training asks for."""
        return max(1, len(self.matryoshka_sizes))


def make_config(
    width: int,
    n_latents: int,
    k: int,
    architecture: Architecture = "topk",
    *,
    selection: Selection = "topk",
    matryoshka_sizes: Sequence[int] | None = None,
    max_active: int | None = None,
) -> SaeConfig:
    """A checked `SaeConfig` with its defaults: prefixes n/8, n/4, n/2, n, and max_active 4 k.

    Raises InputError naming the option that does not fit.
    """
    if architecture not in ARCHITECTURES:
        raise InputError(f"No architecture '{architecture}'; choose one of {', '.join(ARCHITECTURES)}.")
    if selection not in ("topk", "batchtopk"):
        raise InputError(f"No selection '{selection}'; choose topk or batchtopk.")
    if width < 1:
        raise InputError("Embeddings of width 0 have nothing to code; pass a matrix (rows, width).")
    if n_latents < 1:
        raise InputError(f"n_latents is {n_latents}; a dictionary needs at least 1 latent.")
    if not 1 <= k <= n_latents:
        raise InputError(f"k is {k}; choose between 1 and n_latents, which is {n_latents}.")
    sizes = tuple(matryoshka_sizes or ())
    if architecture != "matryoshka" and (sizes or selection != "topk"):
        raise InputError("matryoshka_sizes and selection belong to architecture='matryoshka'; leave them out.")
    if architecture == "matryoshka" and not sizes:
        sizes = tuple(sorted({max(1, n_latents // part) for part in (8, 4, 2, 1)}))
    if sizes and (sizes[0] < 1 or sizes[-1] != n_latents or list(sizes) != sorted(set(sizes))):
        raise InputError(f"matryoshka_sizes is {list(sizes)}; it must ascend from at least 1 to exactly {n_latents}.")
    most = min(n_latents, 4 * k) if max_active is None else max_active
    if not k <= most <= n_latents:
        raise InputError(f"max_active is {most}; choose between k ({k}) and n_latents ({n_latents}).")
    return SaeConfig(
        width=width,
        n_latents=n_latents,
        k=k,
        architecture=architecture,
        selection=selection,
        matryoshka_sizes=sizes,
        max_active=most,
    )


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How a sparse autoencoder is fitted; see `SparseAutoencoder.fit` for the defaults that depend on the data."""

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

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear from 0 over the first `warmup` of them, linear to 0 over the last `decay`."""
        rise = (step + 1) / max(1.0, self.warmup * self.steps)
        fall = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.learning_rate * min(1.0, rise, fall)


def default_batch_size(rows: int) -> int:
    """A sixteenth of the rows as a power of two, between 64 and 4,096; all rows where there are fewer than 64."""
    return min(rows, 4096, max(64, 2 ** round(math.log2(max(1, rows / 16)))))


def default_steps(rows: int, batch_size: int) -> int:
    """2,000 steps, or as many as one epoch takes if that is more (above 8 million rows at 4,096 a step)."""
    return max(2000, math.ceil(rows / batch_size))


def default_learning_rate(n_latents: int) -> float:
    """3e-3 up to 4,096 latents, falling with the root of their number above (as Gao et al. 2024 found best)."""
    return 3e-3 * min(1.0, math.sqrt(4096 / n_latents))


def make_options(
    rows: int,
    config: SaeConfig,
    *,
    seed: int = 0,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    prebias: Prebias = "geometric_median",
    aux_coefficient: float = 1 / 32,
    aux_k: int | None = None,
    dead_after: int | None = None,
    l0_coefficient: float = 3.0,
) -> FitOptions:
    """Checked `FitOptions` for this many rows, what was left out filled in by the rules of `SparseAutoencoder.fit`.

    Raises InputError naming the option that does not fit.
    """
    if epochs is not None and steps is not None:
        raise InputError("Choose either epochs or steps, not both.")
    if prebias not in PREBIASES:
        raise InputError(f"No pre-bias '{prebias}'; choose one of {', '.join(PREBIASES)}.")
    if epochs is not None and not 0 < epochs < math.inf:
        raise InputError(f"epochs is {epochs}; choose more than 0.")
    batch = default_batch_size(rows) if batch_size is None else min(batch_size, rows)
    if epochs is not None and batch > 0:
        steps = math.ceil(epochs * rows / batch)
    options = FitOptions(
        seed=seed,
        steps=default_steps(rows, max(1, batch)) if steps is None else steps,
        batch_size=batch,
        learning_rate=default_learning_rate(config.n_latents) if learning_rate is None else learning_rate,
        prebias=prebias,
        aux_coefficient=aux_coefficient,
        aux_k=min(config.n_latents, 2 * config.k) if aux_k is None else aux_k,
        dead_after=min(1_000_000, max(4 * batch, rows // 2)) if dead_after is None else dead_after,
        l0_coefficient=l0_coefficient,
    )
    for name, least in (("steps", 1), ("batch_size", 1), ("aux_k", 0), ("dead_after", 1)):
        if getattr(options, name) < least:
            raise InputError(f"{name} is {getattr(options, name)}; choose at least {least}.")
    for name in ("aux_coefficient", "l0_coefficient"):
        if not 0 <= getattr(options, name) < math.inf:
            raise InputError(f"{name} is {getattr(options, name)}; choose 0 or more.")
    if not 0 < options.learning_rate < math.inf:
        raise InputError(f"learning_rate is {options.learning_rate}; choose more than 0.")
    return options
