"""Selection rules and packed codes against sorting."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boresight.sae import SparseCodes
from boresight.sae.activations import above, top_of_batch, top_of_rows
from boresight.sae.codes import concatenate, pack
from boresight.sae.matmul import medium_is_exact, pre_activations


def pre_of(rows: int, n: int, seed: int, levels: int) -> Tensor:
    """Pre-activations with many ties when `levels` is small."""
    drawn = torch.randn(rows, n, generator=torch.Generator().manual_seed(seed))
    return (drawn * levels).round() / levels if levels else drawn


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(1, 13), st.integers(0, 999), st.sampled_from([0, 1, 3]), st.data())
def test_top_of_rows_keeps_the_largest_positive(rows: int, n: int, seed: int, levels: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    pre = pre_of(rows, n, seed, levels)
    places = top_of_rows(pre, k)
    assert torch.equal(places, places.unique())
    for row in range(rows):
        kept = pre[row][places[places // n == row] % n]
        expected = pre[row].sort(descending=True).values[:k]
        assert torch.equal(kept.sort(descending=True).values, expected[expected > 0])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 7),
    st.integers(1, 13),
    st.integers(0, 999),
    st.sampled_from([0, 1, 3]),
    st.floats(-1, 3),
    st.data(),
)
def test_top_of_batch_keeps_the_largest_positive(
    rows: int, n: int, seed: int, levels: int, guess: float, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, rows * n))
    pre = pre_of(rows, n, seed, levels)
    places, smallest = top_of_batch(pre, count, guess)
    assert torch.equal(places, places.unique())
    expected = pre.flatten().sort(descending=True).values[:count]
    expected = expected[expected > 0]
    assert torch.equal(pre.flatten()[places].sort(descending=True).values, expected)
    assert smallest == (float(expected[-1]) if len(expected) else 0.0)


def test_threshold_of_each_latent() -> None:
    pre = torch.tensor([[0.5, 0.5, -1.0], [1.5, 0.4, 2.0]])
    assert above(pre, torch.tensor([0.4, 0.5, 0.0])).tolist() == [0, 3, 5]
    assert above(pre, 0.45).tolist() == [0, 1, 3, 5]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 999), st.integers(1, 9))
def test_packed_codes_are_sorted_padded_and_capped(rows: int, n: int, seed: int, most: int) -> None:
    pre = pre_of(rows, n, seed, 0)
    codes = pack(above(pre, 0.0), pre, most)
    expected = torch.zeros_like(pre)
    for row in range(rows):
        keep = pre[row].topk(min(most, n)).indices
        expected[row, keep] = pre[row, keep].relu()
    assert torch.equal(codes.dense(), expected)
    assert (codes.values[:, :-1] >= codes.values[:, 1:]).all()
    assert codes.k <= most


def test_concatenated_codes_share_their_slots() -> None:
    pre = torch.tensor([[1.0, 2.0, 3.0], [0.5, -1.0, -2.0]])
    parts = [pack(above(part, 0.0), part, 3) for part in pre.split(1)]
    both = concatenate(parts, 3, least=2)
    assert both.values.tolist() == [[3.0, 2.0, 1.0], [0.5, 0.0, 0.0]]
    assert torch.equal(both.dense(), pre.relu())
    nothing = concatenate([], 3, least=2)
    assert nothing.indices.shape == (0, 2)
    assert torch.equal(both[1:].dense(), pre[1:].relu())


def test_padded_slot_with_the_index_of_an_active_one_changes_nothing() -> None:
    codes = SparseCodes(torch.tensor([[2, 2, 0]]), torch.tensor([[1.5, 0.0, 0.0]]), 4)
    assert codes.dense().tolist() == [[0.0, 0.0, 1.5, 0.0]]


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_precision_of_products_is_put_back(precision: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        medium_is_exact.cache_clear()
        x, weight, bias = torch.randn(5, 7), torch.randn(3, 7), torch.randn(3)
        out = torch.empty(5, 3)
        found = pre_activations(x, weight, bias, out)
        assert torch.get_float32_matmul_precision() == precision
        torch.testing.assert_close(found, x @ weight.T + bias)
        assert found.data_ptr() == out.data_ptr()
        with pytest.raises(RuntimeError):
            pre_activations(x, weight[:, :4], bias)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
