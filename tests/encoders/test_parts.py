"""The small pieces under the encoders: truncation, precision, checks of outputs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from boresight.encoders import precision
from boresight.encoders.hf import _patch, _unpatch
from boresight.encoders.long_text import truncate
from boresight.encoders.precision import bfloat16_speedup, pick_dtype
from boresight.encoders.protocol import unit_rows
from boresight.errors import InputError


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), max_size=5), st.integers(2, 8))
def test_truncation_cuts_the_end_of_the_text_and_keeps_the_end_token(rows, limit):
    special = {8, 9}
    got, cut = truncate(rows, limit, special)
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


def test_bfloat16_on_a_cpu_only_where_it_is_faster(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(precision, "bfloat16_speedup", lambda hidden, tokens=64: 1.31)
    assert pick_dtype("auto", cpu, 256) == torch.bfloat16
    assert pick_dtype("auto", cpu, 255) == torch.float32
    monkeypatch.setattr(precision, "bfloat16_speedup", lambda hidden, tokens=64: 1.29)
    assert pick_dtype("auto", cpu, 256) == torch.float32
    monkeypatch.setattr(precision, "bfloat16_speedup", lambda hidden, tokens=64: 9.0 if tokens == 64 else 0.1)
    assert pick_dtype("auto", cpu, 256) == torch.float32
    assert pick_dtype("auto", torch.device("mps"), 64) == torch.float32
    assert pick_dtype("bfloat16", cpu, 64) == torch.bfloat16
    assert pick_dtype(torch.float16, cpu, 64) == torch.float16


def test_the_best_type_of_a_card(monkeypatch):
    for has, best in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has: has)
        assert pick_dtype("auto", torch.device("cuda"), 64) == best


def test_the_measurement_is_made_once():
    bfloat16_speedup.cache_clear()
    first = bfloat16_speedup(32)
    assert first > 0
    assert bfloat16_speedup(32) == first
    assert bfloat16_speedup.cache_info().hits == 1


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 0.0])
def test_outputs_without_a_direction_are_refused_by_row(bad):
    rows = torch.ones(3, 4)
    rows[1] = bad
    with pytest.raises(InputError, match="model gives no finite embedding for caption 1 of the batch; load it with"):
        unit_rows(rows, "model", "caption")
