"""Patches and tokens taken away where they stand, and the blur that takes their place."""

from __future__ import annotations

import math

import pytest
import torch

from attribution_measures.scores import blurred
from attribution_measures.withheld import deletable, with_patches, with_tokens
from encoder_fixtures import default_fixture  # noqa: F401


def test_patches_and_tokens_are_withheld_where_they_stand(default) -> None:
    pixels = torch.randn(2, 3, 10, 7)  # 10 = 3 + 3 + 4 rows, 7 = 3 + 4 columns
    keep = torch.tensor([[[True, False], [False, False], [False, True]], [[True] * 2] * 3])
    shown = with_patches(pixels, keep, torch.full_like(pixels, 9.0))
    assert torch.equal(shown[1], pixels[1])
    there = shown[0, 0] != 9
    assert there[:3, :3].all()
    assert there[6:, 3:].all()
    assert int(there.sum()) == 9 + 16
    constant = torch.full((1, 2, 5, 9), 0.7)
    torch.testing.assert_close(blurred(constant, 4.0), constant)
    dot = torch.zeros(1, 1, 21, 21)
    dot[0, 0, 10, 10] = 1
    bell = blurred(dot, 2.0)[0, 0]
    assert float(bell[10, 12] / bell[10, 10]) == pytest.approx(math.exp(-0.5), rel=1e-4)
    torch.testing.assert_close(bell, bell.T)

    captions = ["a red star", "a large striped blue ring"]
    read = default.tokenized(captions)
    free = torch.zeros_like(read.real)
    free[0, 1:4], free[1, 1:6] = True, True
    words = deletable(default.towers().text, read.inputs, free)
    keep = torch.ones_like(free)
    keep[0, 2], keep[1, 1:4] = False, False
    out = with_tokens(words, keep)
    for row, said in enumerate(["a star", "blue ring"]):
        ids = default.tokenize([said])["input_ids"][0]
        assert torch.equal(out["input_ids"][row, : len(ids)], ids)
        assert int(out["attention_mask"][row].sum()) == len(ids)
