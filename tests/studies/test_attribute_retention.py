"""Retention of attributes where the answer is known, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from attribute_retention import accuracy, attribute_retention, checked_probe
from boresight.errors import InputError
from boresight.seeds import generator


def clouds(n: int, classes: int = 4, width: int = 12, distance: float = 8.0, stream: str = "clouds"):
    """Gaussian clouds of unit spread around centres `distance` apart in scale; labels go round the classes."""
    centres = distance * torch.randn(classes, width, generator=generator(0, "centres"))
    labels = torch.arange(n) % classes
    return centres[labels] + torch.randn(n, width, generator=generator(0, stream)), labels


def test_described_and_undescribed_rows_are_counted_apart():
    train = torch.tensor([[-2.0], [-1.5], [-1.0], [1.0], [1.5]])
    train_labels = torch.tensor([0, 0, 0, 1, 1])
    test = torch.tensor([[-1.0], [-1.0], [1.0], [1.0], [-1.0], [1.0], [1.0]])
    truth = torch.tensor([0, 0, 1, 0, 1, 1, 1])  # read rightly in all rows but the fourth and the fifth
    described = torch.tensor([True, True, True, True, False, False, False])
    found = attribute_retention(train, train_labels, test, truth, described, classes=2)
    assert (found.counts["described rows"], found.counts["undescribed rows"]) == (4, 3)
    assert found["described"] == 75
    assert found["undescribed"] == pytest.approx(200 / 3)
    assert found["guessing"] == pytest.approx(
        300 / 7
    )  # class 0 is the most frequent in training, and 3 of 7 rows have it
    assert found.probe.most_frequent == 0


def test_a_sort_without_rows_is_not_a_number():
    features, labels = clouds(40)
    found = attribute_retention(features, labels, features, labels, torch.ones(40, dtype=torch.bool), classes=4)
    assert found["described"] == 100
    assert math.isnan(found["undescribed"])
    assert found.counts["undescribed rows"] == 0


def test_what_was_dropped_from_undescribed_rows_is_at_chance_there_alone():
    features, labels = clouds(400)
    unseen, truth = clouds(400, stream="unseen")
    draw = generator(0, "told")
    told, unseen_told = (torch.rand(400, generator=draw) < 0.5 for _ in range(2))
    features[~told] = torch.randn(int((~told).sum()), 12, generator=draw)
    unseen[~unseen_told] = torch.randn(int((~unseen_told).sum()), 12, generator=draw)
    found = attribute_retention(features, labels, unseen, truth, unseen_told, classes=4)
    assert found["described"] > 95
    assert found["undescribed"] < 40
    assert found["guessing"] == 25


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train_features": torch.zeros(0, 3)}, "shape"),
        ({"train_features": torch.zeros(5)}, "shape"),
        ({"train_features": torch.zeros(5, 3, dtype=torch.int64)}, "int64"),
        ({"train_features": torch.full((5, 3), math.nan)}, "Row 0"),
        ({"test_features": torch.full((4, 3), math.inf)}, "Row 0"),
        ({"test_features": torch.zeros(0, 3)}, "shape"),
        ({"test_features": torch.zeros(4, 2)}, "2 wide"),
        ({"train_labels": torch.zeros(4, dtype=torch.int64)}, "5 integers"),
        ({"train_labels": torch.zeros(5)}, "5 integers"),
        ({"train_labels": torch.tensor([0, 1, 0, 1, 2])}, "class 2"),
        ({"test_labels": torch.tensor([0, 1, -1, 1])}, "class -1"),
        ({"test_labels": torch.zeros(3, dtype=torch.int64)}, "4 integers"),
        ({"described": torch.ones(3, dtype=torch.bool)}, "4 booleans"),
        ({"described": torch.ones(4)}, "4 booleans"),
        ({"classes": 1}, "2 or more classes"),
    ],
)
def test_bad_inputs_are_refused_in_one_sentence(change, words):
    good = {
        "train_features": torch.randn(5, 3, generator=generator(0, "good")),
        "train_labels": torch.tensor([0, 1, 0, 1, 0]),
        "test_features": torch.randn(4, 3, generator=generator(1, "good")),
        "test_labels": torch.tensor([0, 1, 0, 1]),
        "described": torch.tensor([True, False, True, False]),
        "classes": 2,
    }
    attribute_retention(**good)
    with pytest.raises(InputError, match=words) as caught:
        attribute_retention(**{**good, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("l2", [0.0, -1.0, math.nan, math.inf])
def test_a_penalty_that_makes_no_sense_is_refused(l2):
    features, labels = clouds(8)
    with pytest.raises(InputError, match="l2 above 0"):
        checked_probe(features, labels, 4, l2=l2)


def test_numpy_is_read_alike():
    features, labels = clouds(60, distance=0.5)
    one, other = checked_probe(features, labels, 4), checked_probe(features.numpy(), labels.numpy(), 4)
    assert torch.equal(one.weights, other.weights)
    assert torch.equal(one.bias, other.bias)
    assert accuracy(one, np.asarray(features), np.asarray(labels)) == accuracy(one, features, labels)
