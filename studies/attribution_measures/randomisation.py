"""How much of a map survives when the model's weights are scrambled; a map that does has not explained this model."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import torch
from scipy import stats
from torch import Tensor, nn

from attribution_measures.comparison import Rows, checked_rows, maps_of
from attribution_measures.scores import read_pairs
from boresight.attribution.localisation import Array
from boresight.encoders import Encoder
from boresight.encoders.towers.hf import towers_of
from boresight.errors import InputError
from boresight.indexing import as_tensor
from boresight.seeds import generator
from worlds.grounded import CaptionedImages, GroundedPairs

_BLOCK = re.compile(r"\.layers?\.(\d+)\.")
_ENTRY = re.compile(r"embed|pre_?la?y")  # `pre_layrnorm` is how transformers spells CLIP's norm before the first block


def randomisation(
    encoder: Encoder, pairs: GroundedPairs | CaptionedImages, methods: Rows, *, seed: int = 0, batch_size: int = 16
) -> dict[str, dict[str, float]]:
    """Row -> stage -> mean rank correlation of its raw image maps before and after the model is scrambled so far.

    Cascading randomisation (Adebayo et al. 2018, arXiv 1810.03292), with the stages of
    `randomised_copies`. What is random in a method is the same at all stages, so that all of 'random' survives: a map
    that does has nothing to do with what the model learnt. Constant maps correlate with nothing and have 0.

    Raises InputError as `evaluate_attribution` does, and for a model that is not of transformers.
    """
    rows = checked_rows(methods, batch_size)
    read_pairs(encoder, pairs.images[:1], pairs.captions[:1], batch_size)  # refuses an encoder that cannot be measured
    model: Any = getattr(encoder, "model", None)
    towers_of(model)

    def maps(of: Any) -> dict[str, Tensor]:
        return {row: maps_of(of, method, pairs.images, pairs.captions, "image", seed) for row, method in rows.items()}

    before = maps(encoder)
    survival: dict[str, dict[str, float]] = {row: {} for row in rows}
    for stage, scrambled in randomised_copies(model, seed):
        other: Any = copy.copy(encoder)
        other.model = scrambled
        for row, after in maps(other).items():
            survival[row][stage] = float(spearman(before[row], after).mean())
    return survival


def randomised_copies(model: nn.Module, seed: int) -> Iterator[tuple[str, nn.Module]]:
    """Copies of a dual encoder, scrambled from the top down: 'head', 'block -1', 'block -2', ..., 'embeddings'.

    For the cascading randomisation of Adebayo et al. 2018 (arXiv 1810.03292): every copy has all that the one before it
    has scrambled, and one part more. Blocks of both towers go together, counted from the top, so a tower that has run
    out of them waits for the other; projections, poolers and norms after the last block are the head; embeddings and
    norms before the first block go last. Each parameter's entries are permuted, rather than drawn anew, so that every
    scale stays as training left it; a constant one therefore stays. A map that survives does not explain this model.

    The order of a parameter's entries depends on the seed and on its name. The copies share nothing with one another or
    with `model`, which is never touched.

    Args:
        model: a transformers `CLIPModel`, `SiglipModel` or alike, whose blocks are numbered lists called layer(s).
        seed: of the permutations.

    Raises InputError when the model has no such blocks.
    """
    names = [name for name, _ in model.named_parameters()]
    blocks = [(match.string[: match.start()], int(match[1])) for match in map(_BLOCK.search, names) if match]
    if not blocks:
        raise InputError(f"{type(model).__name__} has no numbered blocks called layers; pass a CLIPModel or alike.")
    top = {tower: max(number for owner, number in blocks if owner == tower) for tower, _ in blocks}
    stages: dict[str, list[str]] = {"head": [], **{f"block -{depth + 1}": [] for depth in range(max(top.values()) + 1)}}
    stages["embeddings"] = []
    for name in names:
        if match := _BLOCK.search(name):
            stages[f"block -{top[name[: match.start()]] - int(match[1]) + 1}"].append(name)
        else:
            stages["embeddings" if _ENTRY.search(name) else "head"].append(name)
    return _scrambled(copy.deepcopy(model), stages, seed)


def _scrambled(working: nn.Module, stages: dict[str, list[str]], seed: int) -> Iterator[tuple[str, nn.Module]]:
    for stage, names in stages.items():
        for name in names:
            values = working.get_parameter(name).data
            order = torch.randperm(values.numel(), generator=generator(seed, f"randomised {name}"))
            values.copy_(values.flatten()[order.to(values.device)].view_as(values))
        # A copy of the copy, so that what is done to one stage's model cannot reach the next.
        yield stage, copy.deepcopy(working)


def spearman(a: Array, b: Array) -> Tensor:
    """(P,) rank correlation in [-1, 1] of the flattened rows of a and b (P, ...), ties at their average rank.

    An entry that is NaN in either counts in neither. A constant row correlates with nothing: 0.
    Raises InputError for different shapes, infinity, or a pair without an entry that is a number in both.
    """
    first, second = as_tensor(a, "a").double(), as_tensor(b, "b").double()
    if first.shape != second.shape:
        raise InputError(f"a has shape {tuple(first.shape)} and b {tuple(second.shape)}; pass maps of the same pairs.")
    rows = torch.stack([first.flatten(1), second.flatten(1)])
    if rows.isinf().any():
        raise InputError("a or b holds infinity; look at the method that made it.")
    absent = rows.isnan().any(0)
    if absent.all(1).any():
        pair = int(absent.all(1).nonzero()[0])
        raise InputError(f"Pair {pair} has no entry that is a number in both maps; drop it.")
    ranks = torch.from_numpy(stats.rankdata(rows.masked_fill(absent, torch.nan), axis=2, nan_policy="omit"))
    x, y = (ranks - ranks.nanmean(2, keepdim=True)).nan_to_num()
    scale = (x.square().sum(1) * y.square().sum(1)).sqrt()
    return torch.where(scale > 0, (x * y).sum(1) / scale.clamp(min=1e-300), 0.0).clamp(-1, 1)
