"""What a method must beat: maps that know nothing of the pair."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from boresight.attribution.methods.base import Method, columns
from boresight.encoders.towers.tower import Hidden, Tower
from boresight.seeds import generator


@dataclass(frozen=True)
class RandomMap(Method):
    """Uniform random numbers, the same for all pairs.

    Relations:
        What any method must beat; read it beside `UniformMap`, which some measures flatter.
    """

    def scores(self, tower: Tower, hidden: Hidden, other: Tensor, seed: int) -> Tensor:
        """(B, N) in [0, 1)."""
        drawn = torch.rand(columns(tower, hidden), generator=generator(seed, f"random map {tower.modality}"))
        return drawn.to(other.device).repeat(len(hidden), 1)


@dataclass(frozen=True)
class UniformMap(Method):
    """One everywhere.

    Relations:
        The control for measures that a spread-out map does well in, Confidence Drop for one; beside `RandomMap`.
    """

    def scores(self, tower: Tower, hidden: Hidden, other: Tensor, seed: int) -> Tensor:
        """(B, N) ones."""
        return other.new_ones(len(hidden), columns(tower, hidden))
