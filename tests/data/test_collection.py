"""Selections of a collection."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset

from boresight.data import Collection
from boresight.errors import InputError


def collection_of(ids: list[str], split: str = "all") -> Collection:
    columns = {"id": ids, "image": [{"bytes": b"", "path": None}] * len(ids), "captions": [["a"]] * len(ids)}
    return Collection(Dataset.from_dict({**columns, "split": [split] * len(ids)}), "mine")


def test_selections_by_number_and_by_mask() -> None:
    whole = collection_of(["a", "b", "c"])
    for rows in ([2, 0], np.array([-1, -3]), torch.tensor([2, 0])):
        assert whole.select(rows).ids == ["c", "a"]
    for mask in ([True, False, True], np.array([True, False, True])):
        assert whole.select(mask).ids == ["a", "c"]
    assert whole.select([]).ids == []
    with pytest.raises(InputError, match=r"Row 3 does not exist; there are 3 images \(0 to 2\)\."):
        whole.select([0, 3])
    with pytest.raises(InputError, match="A mask of 2 booleans cannot select among 3 images"):
        whole.select([True, False])
