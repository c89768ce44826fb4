"""Mean average precision of images that share a value, and the table of ratios."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attributes_on_demand import mean_average_precision, table


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(3, 9), classes=st.integers(1, 3))
def test_it_is_the_precision_at_every_hit_averaged(seed, rows, classes):
    draw = torch.Generator().manual_seed(seed)
    similar, labels = torch.randn(rows, rows, generator=draw), torch.randint(classes, (rows,), generator=draw)
    each = []
    for row in range(rows):
        order = sorted((other for other in range(rows) if other != row), key=lambda other: -float(similar[row, other]))
        same = [bool(labels[other] == labels[row]) for other in order]
        hits = [sum(same[: place + 1]) / (place + 1) for place, one in enumerate(same) if one]
        each += [sum(hits) / len(hits)] if hits else []
    if each:
        assert mean_average_precision(similar, labels) == pytest.approx(100 * sum(each) / len(each))


def test_a_perfect_order_has_all_and_the_diagonal_counts_for_nothing():
    labels = torch.tensor([0, 0, 1, 1])
    same = (labels[:, None] == labels).float()
    assert mean_average_precision(same - 5 * torch.eye(4), labels) == 100
    assert mean_average_precision(-same + 9 * torch.eye(4), labels) == pytest.approx(100 / 3)


def test_ratios_are_of_the_means_seed_by_seed():
    figures = {"plain": {"a": [10.0, 20.0], "b": [30.0, 20.0]}, "edited": {"a": [40.0, 30.0], "b": [40.0, 30.0]}}
    last = table(figures, ["a", "b"]).splitlines()[-1]
    assert last == "| edited | 35.0 ± 7.1 | 35.0 ± 7.1 | 35.0 ± 7.1 | 1.75 |"
