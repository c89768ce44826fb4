"""Many requests at once, too many, too slow, and what fails inside."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from boresight.app import Limits, Service, create_app
from boresight.app.batching import Batcher
from boresight.embeddings import Embeddings
from boresight.encoders import Encoder
from boresight.errors import ArtefactError, InputError
from boresight.search import Query, SearchIndex


@pytest.fixture
def index(scenes_index: Path, encoder: Encoder) -> SearchIndex:
    """One of its own, to be put out of order."""
    return SearchIndex.open(scenes_index, encoder=encoder)


class Held:
    """Keeps the thread of a batcher busy until it is let go."""

    def __init__(self, batcher: Batcher) -> None:
        self.go, started = threading.Event(), threading.Event()

        def wait() -> None:
            started.set()
            self.go.wait(60)

        self.future = batcher.call(wait)
        assert started.wait(60)


def test_queries_of_many_threads_are_one_batch(index: SearchIndex) -> None:
    sizes: list[int] = []
    batcher = Batcher(index, most=20, on_batch=sizes.append)
    held = Held(batcher)
    queries = [Query(text=f"a ring {row}", k=2) for row in range(30)]
    futures = [batcher.search(query, ranks=False) for query in queries]
    futures.insert(7, batcher.search(Query(text="a", like="nobody"), ranks=False))
    held.go.set()
    with pytest.raises(InputError, match="nobody"):
        futures.pop(7).result(60)
    for query, future in zip(queries, futures, strict=True):
        own = index.search_batch([query], ranks=False)[0]
        assert [one.id for one in future.result(60)] == [one.id for one in own]
        assert [one.score for one in future.result(60)] == pytest.approx([one.score for one in own], abs=1e-5)
    batcher.close()
    assert sum(sizes) == 31
    assert max(sizes) == 20


def test_a_batcher_finishes_what_waits(index: SearchIndex) -> None:
    batcher = Batcher(index)
    held = Held(batcher)
    future, cancelled = (batcher.search(Query(text="a ring"), ranks=False) for _ in range(2))
    assert cancelled.cancel()
    held.go.set()
    batcher.close()
    assert len(future.result(0)) == 10


def test_no_room_and_no_time(index: SearchIndex) -> None:
    service = Service(index, Limits(at_once=2, seconds=0.05))
    client = TestClient(create_app(service), base_url="http://localhost")
    held = Held(service._batcher)
    late = client.post("/api/search", json={"text": "a ring"})
    assert (late.status_code, late.headers["retry-after"]) == (503, "5")
    assert "0.05 seconds" in late.json()["error"]
    with service.admitted(), service.admitted():
        full = client.post("/api/search", json={"text": "a ring"})
        assert (full.status_code, full.headers["retry-after"]) == (429, "1")
        assert client.get("/api/health").status_code == 200
    held.go.set()
    held.future.result(60)
    service.close()


def test_what_fails_inside_says_nothing_of_it(
    index: SearchIndex, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(index)
    client = TestClient(create_app(service), base_url="http://localhost")

    def fail(error: Exception) -> None:
        def raising(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(index, "search_batch", raising)

    fail(ZeroDivisionError("secret"))
    answer = client.post("/api/search", json={"text": "a ring"})
    assert (answer.status_code, answer.json()) == (500, {"error": "The service failed; its log says why."})
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "ZeroDivisionError: secret" in caplog.text
    fail(ArtefactError("/secret/index is torn"))
    answer = client.post("/api/search", json={"text": "a ring"})
    assert answer.status_code == 503
    assert "secret" not in answer.text
    assert "/secret/index is torn" in caplog.text
    service.close()


def test_a_picture_that_went_away_names_no_file(index: SearchIndex, caplog: pytest.LogCaptureFixture) -> None:
    file = index.folder.parent / "33.png"
    service = Service(index)
    client = TestClient(create_app(service), base_url="http://localhost")
    data = file.read_bytes()
    file.unlink()
    try:
        answer = client.get("/api/images/original?id=scene-33")
    finally:
        file.write_bytes(data)
    assert answer.status_code == 404
    assert str(file) not in answer.text
    assert str(file) in caplog.text
    service.close()


def test_metrics_count(index: SearchIndex) -> None:
    service = Service(index)
    client = TestClient(create_app(service), base_url="http://localhost")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: client.post("/api/search", json={"text": "a ring"}), range(8)))
    client.get("/api/images?id=nobody")
    client.get("/any/address/that/is/none")
    said = client.get("/metrics").text
    assert 'boresight_requests_total{method="POST",route="/api/search",status="200"} 8.0' in said
    assert 'boresight_requests_total{method="GET",route="/api/images",status="404"} 1.0' in said
    assert 'boresight_requests_total{method="GET",route="none",status="404"} 1.0' in said
    assert 'boresight_request_seconds_count{method="POST",route="/api/search"} 8.0' in said
    assert "boresight_batch_queries_sum 8.0" in said
    assert "boresight_images 60.0" in said
    assert "boresight_in_flight 1.0" in said  # this one
    service.close()


def test_an_index_without_an_editor_or_pictures(encoder: Encoder, tmp_path: Path, index: SearchIndex) -> None:
    rows = index.snapshot().plain(np.arange(5))
    embeddings = Embeddings.from_arrays(rows, ids=[f"i{row}" for row in range(5)])
    service = Service(SearchIndex.create(tmp_path / "plain.index", embeddings, encoder=encoder))
    client = TestClient(create_app(service), base_url="http://localhost")
    assert client.get("/api/info").json()["editor"] is None
    (shown,) = client.post("/api/search", json={"text": "a ring", "k": 1}).json()["results"]
    assert shown["thumbnail"] is None
    reasons = client.post("/api/explain", json={"text": "a ring", "id": shown["id"]}).json()
    assert reasons["terms"][0]["explanation"] is None
    assert reasons["score"] == pytest.approx(shown["score"], abs=1e-4)
    record = client.get("/api/images?id=i0").json()
    assert (record["thumbnail"], record["original"]) == (None, None)
    for what in ("thumbnail", "original"):
        assert client.get(f"/api/images/{what}?id=i0").status_code == 404
    assert client.post("/api/heatmap", json={"text": "a ring", "id": "i0"}).status_code == 404
    assert client.get("/api/concepts").json() == {"total": 0, "concepts": []}
    assert client.get("/api/concepts/map").json() == {"share": 0.0, "points": []}
    service.close()
