"""Measures of attribution maps against slow, obvious references and exact chance values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boresight.attribution.grids import own_grids
from boresight.attribution.localisation import (
    energy_in_mask,
    iou,
    patch_cover,
    pointing_game,
    roc_auc,
    swap_test,
    target_vs_distractor,
)
from boresight.errors import InputError

ONE_MASK: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pointing_game": pointing_game,
    "energy_in_mask": energy_in_mask,
    "iou": iou,
    "roc_auc": roc_auc,
}


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cover_by_loops(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Every pixel split into gh x gw equal parts, every part given to the patch that it lies in."""
    fine = mask.repeat_interleave(grid[0], 0).repeat_interleave(grid[1], 1).double()
    height, width = mask.shape
    cells = [
        [fine[r * height : (r + 1) * height, c * width : (c + 1) * width].mean() for c in range(grid[1])]
        for r in range(grid[0])
    ]
    return torch.tensor(cells, dtype=torch.float64)


def cells_of(grid: Tensor, cover: Tensor) -> list[tuple[float, float]]:
    """(weight, cover) of each patch that there is."""
    return [(w, c) for w, c in zip(grid.flatten().tolist(), cover.flatten().tolist(), strict=True) if not math.isnan(w)]


def covered(cells: list[tuple[float, float]]) -> list[int]:
    least = min(0.5, max(c for _, c in cells))
    return [i for i, (_, c) in enumerate(cells) if c >= least]


def auc(first: list[float], second: list[float]) -> float:
    return float(np.mean([(a > b) + (a == b) / 2 for a in first for b in second]))


def rank(values: list[float]) -> list[float]:
    return [sum(b < a for b in values) + (sum(b == a for b in values) + 1) / 2 for a in values]


def slow(name: str, cells: list[tuple[float, float]]) -> float:
    weights, covers = zip(*cells, strict=True)
    truth = covered(cells)
    if name == "pointing_game":
        tops = [i for i, w in enumerate(weights) if w == max(weights)]
        return float(np.mean([covers[i] >= max(covers) / 2 for i in tops]))
    if name == "energy_in_mask":
        mass = [max(w, 0) for w in weights]
        mass = mass if any(mass) else [1.0] * len(mass)
        return sum(m * c for m, c in zip(mass, covers, strict=True)) / sum(mass)
    if name == "iou":  # over all orders that agree with the weights
        chosen = {
            frozenset(pick)
            for pick in itertools.combinations(range(len(cells)), len(truth))
            if min(weights[i] for i in pick) >= max((weights[i] for i in set(range(len(cells))) - {*pick}), default=-9)
        }
        return float(np.mean([len(pick & {*truth}) / len(pick | {*truth}) for pick in chosen]))
    return auc([weights[i] for i in truth], [w for w, c in cells if c == 0])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, list[tuple[int, int]], Tensor, Tensor]:
    """Up to 3 maps of few distinct weights, some with a smaller grid of their own and holes, and two kinds of masks."""
    seed, pairs = draw(st.integers(0, 10**6)), draw(st.integers(1, 3))
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(2, 4))
    height, width = draw(st.integers(3, 9)), draw(st.integers(3, 9))
    numbers = random(seed)
    maps = torch.randint(-2, 4, (pairs, rows, columns), generator=numbers) * 0.3
    grids = []
    for grid in maps:
        own = (draw(st.integers(1, rows)), draw(st.integers(2, columns)))
        grid[own[0] :] = torch.nan
        grid[:, own[1] :] = torch.nan
        if own[0] * own[1] > 3 and draw(st.booleans()):
            grid[0, 0] = torch.nan
        grids.append(own)
    masks = torch.zeros(2, pairs, height, width, dtype=torch.bool)
    for kind, pair in itertools.product(range(2), range(pairs)):  # boxes at the lower right: on patches that there are
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        masks[kind, pair, top:, left : left + draw(st.integers(1, width))] = True
        masks[kind, pair, -1, -1] = True
    return maps, grids, masks[0], masks[1]


def slow_cells(maps: Tensor, grids: list[tuple[int, int]], masks: Tensor) -> list[list[tuple[float, float]]]:
    return [
        cells_of(grid[: own[0], : own[1]], cover_by_loops(mask, own))
        for grid, own, mask in zip(maps, grids, masks, strict=True)
    ]


@settings(max_examples=60, deadline=None)
@given(cases())
def test_measures_with_one_mask_are_those_of_plain_loops(case: tuple) -> None:
    maps, grids, masks, _ = case
    assert own_grids(maps).tolist() == [list(own) for own in grids]
    pairs = slow_cells(maps, grids, masks)
    for name, measure in ONE_MASK.items():
        if name == "roc_auc" and any(all(c > 0 for _, c in cells) for cells in pairs):
            with pytest.raises(InputError, match="no patch uncovered"):
                measure(maps, masks)
            continue
        expected = [slow(name, cells) for cells in pairs]
        assert measure(maps, masks).tolist() == pytest.approx(expected, abs=1e-12), name


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(0, 10**6))
def test_measures_with_a_distractor_are_those_of_plain_loops(case: tuple, seed: int) -> None:
    maps, grids, targets, distractors = case
    swapped = torch.where(maps.isnan(), maps, torch.randint(-1, 3, maps.shape, generator=random(seed)) * 0.7)
    here, there, after = (
        slow_cells(grid, grids, masks) for grid, masks in ((maps, targets), (maps, distractors), (swapped, targets))
    )
    expected_auc, expected_swap = [], []
    for of_target, of_distractor, of_swapped in zip(here, there, after, strict=True):
        chosen, rejected = covered(of_target), covered(of_distractor)
        weights, others = [w for w, _ in of_target], [w for w, _ in of_swapped]
        expected_auc.append(auc([weights[i] for i in chosen], [weights[i] for i in rejected]))
        leads = []
        for values in (weights, others):
            ranks = rank(values)
            leads.append(np.mean([ranks[i] for i in chosen]) - np.mean([ranks[i] for i in rejected]))
        same = abs(leads[0] - leads[1]) < 1e-9
        expected_swap.append(0.5 if same else float(leads[0] > leads[1]))
    assert target_vs_distractor(maps, targets, distractors).tolist() == pytest.approx(expected_auc)
    assert swap_test(maps, swapped, targets, distractors).tolist() == expected_swap
    assert swap_test(maps, maps, targets, distractors).tolist() == [0.5] * len(maps)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 40), st.integers(1, 5), st.integers(0, 10**6))
def test_cover_is_the_share_of_every_patch(height: int, rows: int, width: int, columns: int, seed: int) -> None:
    masks = torch.rand(2, height, width, generator=random(seed)) < 0.4
    cover = patch_cover(masks, (rows, columns))
    assert cover.shape == (2, rows, columns)
    for mask, found in zip(masks, cover, strict=True):
        assert torch.allclose(found, cover_by_loops(mask, (rows, columns)), atol=1e-12)
    assert torch.allclose(cover.mean((1, 2)), masks.double().mean((1, 2)), atol=1e-12)
    assert patch_cover(masks[:0].numpy(), (rows, columns)).shape == (0, rows, columns)


def boxes(pairs: int, grid: int = 7, patch: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Targets of 2 x 2 patches and distractors of 1 x 2, on whole patches, apart."""
    targets, distractors = torch.zeros(2, pairs, grid * patch, grid * patch, dtype=torch.bool)
    for pair in range(pairs):
        row, column = torch.randint(grid - 1, (2,), generator=random(seed + pair)).tolist()
        targets[pair, row * patch : (row + 2) * patch, column * patch : (column + 2) * patch] = True
        row = (row + 3) % grid
        distractors[pair, row * patch : (row + 1) * patch, column * patch : (column + 2) * patch] = True
    return targets, distractors & ~targets


def test_perfect_maps_score_one_and_uniform_maps_what_chance_gives() -> None:
    targets, distractors = boxes(6)
    perfect, uniform = patch_cover(targets, (7, 7)), torch.full((6, 7, 7), -3.0)
    wrong = patch_cover(distractors, (7, 7))
    for measure in ONE_MASK.values():
        assert measure(perfect, targets).tolist() == [1] * 6
    assert target_vs_distractor(perfect, targets, distractors).tolist() == [1] * 6
    assert target_vs_distractor(wrong, targets, distractors).tolist() == [0] * 6
    assert swap_test(perfect, wrong, targets, distractors).tolist() == [1] * 6
    assert swap_test(wrong, perfect, targets, distractors).tolist() == [0] * 6
    assert pointing_game(uniform, targets).tolist() == pytest.approx([4 / 49] * 6)
    assert energy_in_mask(uniform, targets).tolist() == pytest.approx([4 / 49] * 6)
    ways = [math.comb(4, j) * math.comb(45, 4 - j) / math.comb(49, 4) * j / (8 - j) for j in range(5)]
    assert iou(uniform, targets).tolist() == pytest.approx([sum(ways)] * 6)
    for chance in (roc_auc(uniform, targets), target_vs_distractor(uniform, targets, distractors)):
        assert chance.tolist() == [0.5] * 6
    assert swap_test(uniform, uniform - 1, targets, distractors).tolist() == [0.5] * 6


def test_random_maps_are_near_chance() -> None:
    targets, distractors = boxes(400)
    maps, others = torch.rand(2, 400, 7, 7, generator=random(1))
    assert float(pointing_game(maps, targets).mean()) == pytest.approx(4 / 49, abs=0.04)
    assert float(energy_in_mask(maps, targets).mean()) == pytest.approx(4 / 49, abs=0.01)
    assert float(iou(maps, targets).mean()) == pytest.approx(float(iou(torch.ones(1, 7, 7), targets[:1])), abs=0.02)
    assert float(roc_auc(maps, targets).mean()) == pytest.approx(0.5, abs=0.03)
    assert float(target_vs_distractor(maps, targets, distractors).mean()) == pytest.approx(0.5, abs=0.05)
    assert float(swap_test(maps, others, targets, distractors).mean()) == pytest.approx(0.5, abs=0.08)


def test_an_object_smaller_than_a_patch_can_be_found() -> None:
    masks = torch.zeros(1, 32, 32, dtype=torch.bool)
    masks[0, 2:5, 2:5] = True
    maps = torch.zeros(1, 4, 4)
    maps[0, 0, 0] = 1
    for name in ("pointing_game", "iou", "roc_auc"):
        assert ONE_MASK[name](maps, masks).tolist() == [1], name
    assert energy_in_mask(maps, masks).item() == pytest.approx(9 / 64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, t: pointing_game(m[0], t), "pass floats, one map a pair"),
        (lambda m, t: pointing_game(m.long(), t), "pass floats"),
        (lambda m, t: pointing_game(m / 0, t), "Map 0 of maps holds infinity"),
        (lambda m, t: pointing_game(m * torch.nan, t), "Map 0 of maps holds no number"),
        (lambda m, t: pointing_game(m, t[:1]), "3 maps and 1 masks"),
        (lambda m, t: pointing_game(m, t.float()), "pass booleans"),
        (lambda m, t: iou(m, t & False), "mask of pair 0 touches no patch"),
        (lambda m, t: roc_auc(m, t | True), "mask of pair 0 leaves no patch uncovered"),
        (lambda m, t: swap_test(m, m[:, :2], t, t), "not of the same patches"),
        (lambda m, t: patch_cover(t, (0, 2)), "0 x 2"),
    ],
)
def test_what_cannot_be_measured_is_refused(call: Callable, message: str) -> None:
    targets, _ = boxes(3)
    with pytest.raises(InputError, match=message):
        call(torch.ones(3, 7, 7), targets)
