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
from boresight.attribution.localisation import energy_in_mask, iou, patch_cover, pointing_game, roc_auc
from boresight.errors import InputError
from map_cases import auc, boxes, cases, cover_by_loops, covered, random, slow_cells

ONE_MASK: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pointing_game": pointing_game,
    "energy_in_mask": energy_in_mask,
    "iou": iou,
    "roc_auc": roc_auc,
}


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
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 40), st.integers(1, 5), st.integers(0, 10**6))
def test_cover_is_the_share_of_every_patch(height: int, rows: int, width: int, columns: int, seed: int) -> None:
    masks = torch.rand(2, height, width, generator=random(seed)) < 0.4
    cover = patch_cover(masks, (rows, columns))
    assert cover.shape == (2, rows, columns)
    for mask, found in zip(masks, cover, strict=True):
        assert torch.allclose(found, cover_by_loops(mask, (rows, columns)), atol=1e-12)
    assert torch.allclose(cover.mean((1, 2)), masks.double().mean((1, 2)), atol=1e-12)
    assert patch_cover(masks[:0].numpy(), (rows, columns)).shape == (0, rows, columns)


def test_perfect_maps_score_one_and_uniform_maps_what_chance_gives() -> None:
    targets, _ = boxes(6)
    perfect, uniform = patch_cover(targets, (7, 7)), torch.full((6, 7, 7), -3.0)
    for measure in ONE_MASK.values():
        assert measure(perfect, targets).tolist() == [1] * 6
    assert pointing_game(uniform, targets).tolist() == pytest.approx([4 / 49] * 6)
    assert energy_in_mask(uniform, targets).tolist() == pytest.approx([4 / 49] * 6)
    ways = [math.comb(4, j) * math.comb(45, 4 - j) / math.comb(49, 4) * j / (8 - j) for j in range(5)]
    assert iou(uniform, targets).tolist() == pytest.approx([sum(ways)] * 6)
    assert roc_auc(uniform, targets).tolist() == [0.5] * 6


def test_random_maps_are_near_chance() -> None:
    targets, _ = boxes(400)
    maps = torch.rand(2, 400, 7, 7, generator=random(1))[0]
    assert float(pointing_game(maps, targets).mean()) == pytest.approx(4 / 49, abs=0.04)
    assert float(energy_in_mask(maps, targets).mean()) == pytest.approx(4 / 49, abs=0.01)
    assert float(iou(maps, targets).mean()) == pytest.approx(float(iou(torch.ones(1, 7, 7), targets[:1])), abs=0.02)
    assert float(roc_auc(maps, targets).mean()) == pytest.approx(0.5, abs=0.03)


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
        (lambda m, t: patch_cover(t, (0, 2)), "0 x 2"),
    ],
)
def test_what_cannot_be_measured_is_refused(call: Callable, message: str) -> None:
    targets, _ = boxes(3)
    with pytest.raises(InputError, match=message):
        call(torch.ones(3, 7, 7), targets)
