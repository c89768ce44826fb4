"""A small index of drawn scenes and the service of it, made once for all tests of the app."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from boresight.app import Limits, Service, create_app
from boresight.encoders import Encoder, load_encoder
from boresight.models import default_model_path
from boresight.search import SearchIndex
from scenes_index import make_scenes_index


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """The shipped encoder in float32."""
    return load_encoder(default_model_path(), dtype="float32")


@pytest.fixture(scope="session")
def scenes_index(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the index of `make_scenes_index`."""
    return make_scenes_index(tmp_path_factory.mktemp("scenes"), encoder)


@pytest.fixture(scope="session")
def service(scenes_index: Path, encoder: Encoder) -> Iterator[Service]:
    """Of the small index."""
    own = Service(
        SearchIndex.open(scenes_index, encoder=encoder), Limits(k=50, batch=8, body_bytes=300_000, pixels=250_000)
    )
    yield own
    own.close()


@pytest.fixture(scope="session")
def client(service: Service) -> TestClient:
    """Asks the app of the small index in this process."""
    return TestClient(create_app(service), base_url="http://localhost")
