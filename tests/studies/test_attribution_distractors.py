"""Measures of a map against a distractor: plain loops, exact chance values, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attribution_measures.distractors import swap_test, target_vs_distractor
from boresight.attribution.localisation import patch_cover
from boresight.errors import InputError
from map_cases import auc, boxes, cases, covered, random, slow_cells


def rank(values: list[float]) -> list[float]:
    return [sum(b < a for b in values) + (sum(b == a for b in values) + 1) / 2 for a in values]


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


def test_perfect_maps_score_one_and_uniform_maps_what_chance_gives() -> None:
    targets, distractors = boxes(6)
    perfect, uniform = patch_cover(targets, (7, 7)), torch.full((6, 7, 7), -3.0)
    wrong = patch_cover(distractors, (7, 7))
    assert target_vs_distractor(perfect, targets, distractors).tolist() == [1] * 6
    assert target_vs_distractor(wrong, targets, distractors).tolist() == [0] * 6
    assert swap_test(perfect, wrong, targets, distractors).tolist() == [1] * 6
    assert swap_test(wrong, perfect, targets, distractors).tolist() == [0] * 6
    assert target_vs_distractor(uniform, targets, distractors).tolist() == [0.5] * 6
    assert swap_test(uniform, uniform - 1, targets, distractors).tolist() == [0.5] * 6


def test_random_maps_are_near_chance() -> None:
    targets, distractors = boxes(400)
    maps, others = torch.rand(2, 400, 7, 7, generator=random(1))
    assert float(target_vs_distractor(maps, targets, distractors).mean()) == pytest.approx(0.5, abs=0.05)
    assert float(swap_test(maps, others, targets, distractors).mean()) == pytest.approx(0.5, abs=0.08)


def test_maps_of_other_patches_are_refused() -> None:
    targets, _ = boxes(3)
    maps = torch.ones(3, 7, 7)
    with pytest.raises(InputError, match="not of the same patches"):
        swap_test(maps, maps[:, :2], targets, targets)
