"""The small pieces under the encoders: truncation, patches, checks of outputs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from boresight.encoders.hf import _patch, _unpatch
from boresight.encoders.long_text import cut_to_limit
from boresight.encoders.protocol import unit_rows
from boresight.errors import InputError


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), max_size=5), st.integers(2, 8))
def test_truncation_cuts_the_end_of_the_text_and_keeps_the_end_token(rows, limit):
    special = {8, 9}
    got, cut = cut_to_limit(rows, limit, special)
    assert cut == sum(len(row) > limit for row in rows)
    for row, short in zip(rows, got, strict=True):
        assert len(short) == min(len(row), limit)
        if len(row) <= limit:
            assert short == row
        elif row[-1] in special:
            assert short == row[: limit - 1] + row[-1:]
        else:
            assert short == row[:limit]


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 5))
def test_patches_and_pictures_are_inverses(rows, columns, size, spare):
    image = torch.randn(3, rows * size, columns * size)
    inputs = _patch([image], size, rows * columns + spare)
    assert inputs["pixel_attention_mask"].sum() == rows * columns
    assert torch.equal(_unpatch(inputs["pixel_values"][0], inputs["spatial_shapes"][0], size), image)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 0.0])
def test_outputs_without_a_direction_are_refused_by_row(bad):
    rows = torch.ones(3, 4)
    rows[1] = bad
    with pytest.raises(InputError, match="model gives no finite embedding for caption 1 of the batch; load it with"):
        unit_rows(rows, "model", "caption")
