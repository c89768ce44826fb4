"""Deletion, insertion and confidence against closed forms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from attribution_measures.faithfulness import confidence, deletion_insertion, soft_mask
from boresight.errors import InputError


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.sampled_from([None, 1, 2, 3, 20]), st.integers(0, 10**6))
def test_deletion_and_insertion_of_a_linear_score_have_their_closed_form(
    pairs: int, n: int, steps: int | None, seed: int
) -> None:
    numbers = random(seed)
    weights = torch.rand(pairs, n, generator=numbers).argsort(1).float()
    gains, bias = torch.randn(pairs, n, generator=numbers).double(), torch.randn(pairs, generator=numbers).double()
    absent = torch.rand(pairs, n, generator=numbers) < 0.3
    absent[:, 0] = False
    weights = weights.masked_fill(absent, torch.nan)
    asked = []

    def score(keep: Tensor) -> Tensor:
        assert keep.shape == (pairs, n)
        assert keep.dtype == torch.bool
        assert keep[absent].all()
        asked.append(keep)
        return bias + (keep * gains).sum(1)

    curves = deletion_insertion(weights, score, steps)
    for pair in range(pairs):
        units = sorted((~absent[pair]).nonzero()[:, 0].tolist(), key=lambda i: -float(weights[pair, i]))
        count, groups = len(units), min(len(units), steps or 50)
        always = float(bias[pair] + gains[pair][absent[pair]].sum())
        ends = [k * count // groups for k in range(groups + 1)]
        gone = [always + sum(float(gains[pair, i]) for i in units[end:]) for end in ends]
        come = [always + sum(float(gains[pair, i]) for i in units[:end]) for end in ends]
        for curve, area, expected in (
            (curves.deletion_curve, curves.deletion, gone),
            (curves.insertion_curve, curves.insertion, come),
        ):
            assert curve[pair, : groups + 1].tolist() == pytest.approx(expected, abs=1e-9)
            assert curve[pair, groups + 1 :].isnan().all()
            assert area[pair].item() == pytest.approx(np.trapezoid(expected, np.array(ends) / count), abs=1e-9)
        if steps is None:  # unit k of n is there for a share (k + 1/2) / n of the deletion
            closed = always + sum(float(gains[pair, i]) * (k + 0.5) / count for k, i in enumerate(units))
            assert curves.deletion[pair].item() == pytest.approx(closed, abs=1e-9)
    assert len(asked) == 2 * (curves.deletion_curve.shape[1] - 1)
    alone = deletion_insertion(weights[:1, ~absent[0]], lambda keep: score_of_first(keep, gains, bias, absent), steps)
    assert alone.deletion.item() == pytest.approx(curves.deletion[0].item(), abs=1e-9)


def score_of_first(keep: Tensor, gains: Tensor, bias: Tensor, absent: Tensor) -> Tensor:
    full = torch.ones(1, gains.shape[1], dtype=torch.bool)
    full[:, ~absent[0]] = keep
    return bias[:1] + (full * gains[:1]).sum(1)


def test_more_than_fifty_units_go_in_fifty_groups_and_ties_in_a_seeded_random_order() -> None:
    weights = torch.zeros(40, 120, dtype=torch.float16)
    weights[:, 7] = 1
    gains = torch.arange(120).double()

    def run(rows: slice, seed: int) -> Tensor:
        return deletion_insertion(weights[rows], lambda keep: (keep * gains).sum(1), seed=seed).deletion

    curves = deletion_insertion(weights.numpy(), lambda keep: (keep * gains).sum(1), seed=3)
    assert curves.deletion_curve.shape == (40, 51)
    assert curves.deletion.std() > 0
    assert curves.deletion.mean().item() == pytest.approx(gains.sum().item() / 2, rel=0.02)
    assert torch.equal(run(slice(0, 40), 3), curves.deletion)
    assert torch.equal(run(slice(0, 10), 3), curves.deletion[:10])
    assert not torch.equal(run(slice(0, 40), 4), curves.deletion)
    first = deletion_insertion(weights, lambda keep: keep[:, 7].double(), steps=120)
    assert first.deletion_curve[:, 1].tolist() == [0] * 40


def test_confidence_is_what_is_published() -> None:
    drop, increase = confidence(torch.tensor([0.3, 0.2, 0.25]), torch.tensor([0.1, 0.5, 0.25]))
    assert drop.tolist() == pytest.approx([20, 0, 0], abs=1e-5)
    assert increase.tolist() == [0, 100, 0]


def test_soft_masks_are_resized_and_reach_from_zero_to_one() -> None:
    maps = torch.rand(3, 3, 4, generator=random(0)) - 5
    maps[1] = 2.5
    maps[2, 2:] = maps[2, :, 3:] = torch.nan
    masks = soft_mask(maps, (24, 20))
    assert masks.shape == (3, 24, 20)
    assert masks[1].eq(1).all()
    for row, own in ((0, maps[0]), (2, maps[2, :2, :3])):
        assert masks[row].aminmax() == (0, 1)
        large = F.interpolate(own[None, None], (24, 20), mode="bilinear")[0, 0]
        assert torch.allclose(masks[row], (large - large.min()) / (large.max() - large.min()), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: soft_mask(m, (0, 2)), "0 x 2"),
        (lambda m: confidence(m[0, 0], m[0, 0, :1]), "one score a pair"),
        (lambda m: confidence(m[0, 0] / 0, m[0, 0]), "NaN or infinity"),
        (lambda m: deletion_insertion(m, lambda keep: keep.sum(1)), "weights has shape"),
        (lambda m: deletion_insertion(m[0], lambda keep: keep.sum(1), 0), "0 steps"),
        (lambda m: deletion_insertion(m[0], lambda keep: keep.double()), "one a pair"),
        (lambda m: deletion_insertion(m[0], lambda keep: keep.sum(1) / 0), "not finite"),
    ],
)
def test_what_cannot_be_measured_is_refused(call: Callable, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(torch.ones(3, 7, 7))
