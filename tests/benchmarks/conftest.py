"""What runs on benchmarks are tested on: the shipped model and a dozen generated pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from boresight import load_encoder
from boresight.benchmarks.job import BenchmarkJob
from boresight.data.worlds.scenes import make_scenes
from boresight.models import default_model_path


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(str(default_model_path()), dtype="float32")


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(12, size=96, split="test")


@pytest.fixture
def job(encoder, scenes, tmp_path: Path) -> BenchmarkJob:
    return BenchmarkJob(encoder=encoder, data=scenes, out=tmp_path / "run", workers=0)
