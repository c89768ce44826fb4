"""Attribution from scores alone: parts of the input are taken away, and the cosine tells what they were worth.

Of the encoder nothing is asked but embeddings of inputs, so these methods also explain models that cannot be opened.
Each image or caption is perturbed by itself, `rows_at_once` versions of it at a time, and once for all the pairs of a
batch that it stands in. What is drawn depends on the seed and on how many units there are, and is the same for all.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.attribution.methods.base import Method, columns
from boresight.attribution.methods.masking import Patches, Words, alive, units_of
from boresight.encoders.towers.tower import Hidden, Tower
from boresight.errors import InputError
from boresight.seeds import generator

Ask = Callable[[Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Perturbation(Method):
    """What the methods of this module share.

    Attributes:
        rows_at_once: perturbed inputs that go through the tower together; memory grows with it.
    """

    rows_at_once: int = 64

    def __post_init__(self) -> None:
        if self.rows_at_once < 1:
            raise InputError(f"{self.rows_at_once} rows at once get nowhere; ask for 1 or more.")

    @abstractmethod
    def weigh(self, units: Patches | Words, ask: Ask, seed: int) -> Tensor:
        """(G, units.count) of one input beside G others. ask: inputs of K versions of it -> their (K, G) cosines."""

    def scores(self, tower: Tower, hidden: Hidden, other: Tensor, seed: int) -> Tensor:
        """(B, N) signed, 0 for what always stays; N is the number of units where the tower has no layers."""
        out = other.new_zeros(len(hidden), columns(tower, hidden))
        for rows in _equal(hidden.inputs):
            if tower.modality == "text" and not tower.blocks:
                padding = ~alive(tower, hidden, rows[0])
                out[rows] = out[rows].masked_fill(padding.to(out.device), torch.nan)
            units = units_of(tower, hidden, rows[0])
            if units.count:

                def ask(inputs: Mapping[str, Tensor], others: Tensor = other[rows]) -> Tensor:
                    return F.normalize(tower.upper(tower.lower(inputs, 0)), dim=-1) @ others.T

                weights = self.weigh(units, ask, seed).to(out)
                out[torch.tensor(rows, device=out.device)[:, None], units.columns.to(out.device)] = weights
        return out

    def asked(self, units: Patches | Words, ask: Ask, keep: Tensor) -> Tensor:
        """Keep (K, count) bool -> (K, G) cosines with only those units."""
        keep = keep.to(units.columns.device)
        return torch.cat([ask(units.hide(part)) for part in keep.split(self.rows_at_once)])


@dataclass(frozen=True)
class Occlusion(Perturbation):
    """How much the cosine drops when one patch or token is gone (Zeiler and Fergus 2014, arXiv 1311.2901).

    Relations:
        One run of the model a unit, and no chance; blind where one unit stands in for another, which `KernelShap` and
        `Rise` see.
    """

    def weigh(self, units: Patches | Words, ask: Ask, seed: int) -> Tensor:
        """What the whole has above all but the unit."""
        gone = torch.eye(units.count).bool()
        whole, without = self.asked(units, ask, torch.cat([torch.ones_like(gone[:1]), ~gone])).split([1, len(gone)])
        return (whole - without).T


@dataclass(frozen=True)
class Rise(Perturbation):
    """RISE (Petsiuk, Das and Saenko 2018, arXiv 1806.07421): the mean cosine of random masks that show a unit.

    The published sum_k f(I * M_k) M_k / (n p), with the masks' own mean at each place for p, and taken off the masks:
    how far the cosine lies above its mean when a unit is seen, comparable between pairs and 0 for no effect.

    Attributes:
        n_masks: the published ones are 4,000 to 8,000; 200 find the objects of our scenes.
        grid: cells of a mask along each side, which are blown up bilinearly and shifted at random.
        probability: of a cell, or a token, to be seen.

    Relations:
        Smooth maps from hundreds of runs of the model; use `Occlusion` for a cheap answer, `KernelShap` for values
        that add up.
    """

    n_masks: int = 200
    grid: int = 7
    probability: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_masks < 1 or self.grid < 1 or not 0 < self.probability < 1:
            raise InputError(
                f"RISE needs at least 1 mask and 1 cell, seen with a probability between 0 and 1, and was given "
                f"n_masks={self.n_masks}, grid={self.grid}, probability={self.probability}."
            )

    def weigh(self, units: Patches | Words, ask: Ask, seed: int) -> Tensor:
        """Masked means of the cosine above its mean."""
        if isinstance(units, Patches):
            cosines, shown = self._through_soft_masks(units, ask, seed)
        else:
            source = generator(seed, f"rise {units.count} tokens")
            keep = torch.rand(self.n_masks, units.count, generator=source) < self.probability
            cosines = self.asked(units, ask, keep)
            shown = keep.to(cosines)
        total = shown.sum(0)
        centred = cosines - cosines.mean(0)
        return torch.where(total > 0, centred.T @ shown / total.clamp(min=1e-9), 0.0)

    def _through_soft_masks(self, units: Patches, ask: Ask, seed: int) -> tuple[Tensor, Tensor]:
        """(n, G) cosines and (n, count), how much of each patch a mask shows."""
        height, width = units.size
        cell = math.ceil(height / self.grid), math.ceil(width / self.grid)
        source = generator(seed, f"rise {height} x {width} pixels")
        cells = (torch.rand(self.n_masks, 1, self.grid, self.grid, generator=source) < self.probability).float()
        shifts = torch.stack([torch.randint(side, (self.n_masks,), generator=source) for side in cell], 1)
        cosines, shown = [], []
        for part, by in zip(cells.split(self.rows_at_once), shifts.split(self.rows_at_once), strict=True):
            size = [(self.grid + 1) * side for side in cell]
            large = F.interpolate(part.to(units.columns.device), size, mode="bilinear", align_corners=False)[:, 0]
            masks = torch.stack(
                [mask[y : y + height, x : x + width] for mask, (y, x) in zip(large, by.tolist(), strict=True)]
            )
            cosines.append(ask(units.fade(masks)))
            shown.append(units.shares(masks))
        return torch.cat(cosines), torch.cat(shown).to(cosines[0])


@dataclass(frozen=True)
class KernelShap(Perturbation):
    """Shapley values of the units by weighted least squares (Lundberg and Lee 2017, arXiv 1705.07874, section 4.1).

    They add up to what the cosine of the whole is above that of nothing. Exact where n_samples reach all coalitions;
    too few for as many units give the smallest solution.

    Attributes:
        n_samples: coalitions, beside none and all. Those of few or almost all units come in full as far as their share
            reaches, the rest are drawn with their complements.

    Relations:
        Best at telling what the model's score hangs on, and the dearest; use `BottleneckPath` or `IntegratedGradients`
        for signed values that add up from a few gradients.
    """

    n_samples: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_samples < 2:
            raise InputError(f"{self.n_samples} coalitions tell nothing; ask for 2 or more, better twice the units.")

    def weigh(self, units: Patches | Words, ask: Ask, seed: int) -> Tensor:
        """Least squares over coalitions."""
        source = generator(seed, f"kernelshap {units.count} units")
        keep, weights = coalitions(units.count, self.n_samples, source)
        ends = torch.tensor([[False], [True]]).expand(-1, units.count)
        cosines = self.asked(units, ask, torch.cat([ends, keep])).cpu().double()
        nothing, gain = cosines[0], cosines[1] - cosines[0]
        share = keep.double().mean(1, keepdim=True)
        # With the gain spread evenly, what is left of the values adds up to 0, as the rows of the design do.
        design, rest = keep.double() - share, cosines[2:] - nothing - share * gain
        root = weights.sqrt()[:, None]
        return (gain / units.count + torch.linalg.pinv(root * design) @ (root * rest)).T


def coalitions(units: int, n_samples: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """(K, units) bool and (K,) float64 weights of sum 1, K <= n_samples, none of them empty or full."""
    sizes = torch.arange(1, units, dtype=torch.float64)
    mass = 1 / (sizes * (units - sizes))  # of all coalitions of a size: Shapley's kernel times their number
    mass = mass / mass.sum()
    keep, weights = [torch.zeros(0, units, dtype=torch.bool)], [torch.zeros(0, dtype=torch.float64)]
    budget, left, small = n_samples, 1.0, 1
    while 2 * small <= units:
        pair = sorted({small, units - small})
        count, share = math.comb(units, small) * len(pair), float(mass[[size - 1 for size in pair]].sum())
        if count > budget * share / left * (1 + 1e-9):
            break
        members = torch.tensor(list(itertools.combinations(range(units), small)))
        chosen = torch.zeros(len(members), units, dtype=torch.bool).scatter_(1, members, True)
        keep += [chosen, ~chosen][: len(pair)]
        weights.append(torch.full((count,), share / count, dtype=torch.float64))
        budget, left, small = budget - count, left - share, small + 1
    if 2 * small <= units and budget > 0:
        inner = mass[small - 1 : units - small]
        drawn = small + torch.multinomial(inner, (budget + 1) // 2, replacement=True, generator=source)
        ranks = torch.rand(len(drawn), units, generator=source).argsort(1).argsort(1)
        chosen = ranks < drawn[:, None]
        keep.append(torch.stack([chosen, ~chosen], 1).flatten(0, 1)[:budget])
        weights.append(torch.full((budget,), left / budget, dtype=torch.float64))
    return torch.cat(keep), torch.cat(weights)


def _equal(inputs: Mapping[str, Tensor]) -> list[list[int]]:
    """The rows of a batch, equal ones together."""
    groups: list[list[int]] = []
    for row in range(len(next(iter(inputs.values())))):
        for group in groups:
            if all(torch.equal(value[row], value[group[0]]) for value in inputs.values()):
                group.append(row)
                break
        else:
            groups.append([row])
    return groups
