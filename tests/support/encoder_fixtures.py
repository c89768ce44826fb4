"""Encoders that a test file makes once: the shipped one, and small ones of random weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from boresight.encoders import load_encoder
from boresight.models import default_model_path
from tiny_encoders import save_tiny


@pytest.fixture(scope="module", name="default")
def default_fixture():
    """The shipped encoder in float32. For a test file to import; its tests ask for `default`."""
    return load_encoder(default_model_path(), dtype="float32")


@pytest.fixture(scope="module", name="tiny")
def tiny_fixture(tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """Family -> its encoder of random weights, made once. For a test file to import; its tests ask for `tiny`."""
    return cache(lambda family: load_encoder(save_tiny(family, tmp_path_factory.mktemp(family)), dtype="float32"))
