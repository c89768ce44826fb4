"""The API: what is asked for is what the index gives, and what cannot be given is refused in a sentence."""

from __future__ import annotations

import io
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from boresight.app import schemas
from boresight.app.service import Service
from boresight.data.images import decode
from boresight.search import Query
from scenes_index import ODD_IDS


def found(client: TestClient, **asked: object) -> list[dict]:
    answer = client.post("/api/search", json=asked)
    assert answer.status_code == 200, answer.text
    return schemas.Answer.model_validate(answer.json()).model_dump()["results"]


def error(answer) -> str:
    said = answer.json()
    assert list(said) == ["error"]
    assert "\n" not in said["error"]
    assert "Traceback" not in answer.text
    return said["error"]


@pytest.mark.parametrize(
    "asked",
    [
        {"text": "a red circle"},
        {"text": ["a red circle", "a blue square"], "without": "a heart", "k": 7, "offset": 2},
        {"text": "a ring", "where": "year > 2010 and place == 'Rome'", "ranks": False},
        {"like": "scene-20", "unlike": ["scene-30"], "plain": True},
        {"text": "a ring", "like": ["../x"], "image_weight": 0.25, "without_weight": 0.1, "min_score": 0.2},
    ],
)
def test_a_search_is_that_of_the_index(client: TestClient, service: Service, asked: dict) -> None:
    own = service.index.search_batch(
        [Query(**{name: value for name, value in asked.items() if name != "ranks"})], ranks=asked.get("ranks", True)
    )[0]
    answer = client.post("/api/search", json=asked).json()
    assert (answer["matches"], answer["edited"], answer["exact"]) == (own.matches, own.edited, own.exact)
    assert len(own) > 0
    for shown, one in zip(answer["results"], own, strict=True):
        assert shown["score"] == pytest.approx(one.score, abs=1e-5)
        assert {name: shown[name] for name in ("id", "rank", "plain_rank", "moved", "split", "columns")} == {
            "id": one.id,
            "rank": one.rank,
            "plain_rank": one.plain_rank,
            "moved": one.moved,
            "split": one.split,
            "columns": one.columns,
        }
        assert shown["captions"] == list(one.captions)
        assert shown["thumbnail"] == f"/api/images/thumbnail?id={quote(one.id, safe='')}"


def test_a_batch_is_each_query_by_itself(client: TestClient) -> None:
    queries = [{"text": "a ring", "k": 3}, {"like": "scene-11", "k": 2, "where": "year < 2015"}]
    answers = client.post("/api/search/batch", json={"queries": queries}).json()["answers"]
    for query, answer in zip(queries, answers, strict=True):
        assert [one["id"] for one in answer["results"]] == [one["id"] for one in found(client, **query)]


def picture(side: int = 40, kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (side, side), (200, 30, 30)).save(data, kind)
    return data.getvalue()


def test_a_picture_that_is_sent_finds_itself(client: TestClient, scenes_index: Path) -> None:
    data = (scenes_index.parent / "17.png").read_bytes()
    sent = {"image": ("..//17.png", data, "image/png")}
    answer = client.post("/api/search/image", files=sent, data={"query": json.dumps({"k": 2, "plain": True})})
    assert answer.json()["results"][0]["id"] == "scene-17"
    assert answer.json()["results"][0]["score"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", ODD_IDS)
def test_any_id_is_reached_by_its_addresses_and_no_file(client: TestClient, name: str) -> None:
    (shown,) = found(client, like=name, k=1, plain=True)
    assert shown["id"] == name
    record = client.get("/api/images", params={"id": name}).json()
    assert record["captions"] == shown["captions"]
    for address in (shown["thumbnail"], record["original"]):
        answer = client.get(address)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")
        assert decode({"bytes": answer.content}, "it").size == (96, 96)


@pytest.mark.parametrize("name", ["0.png", "captions.jsonl", "../captions.jsonl", "scenes.index/manifest.json", "\x00"])
@pytest.mark.parametrize("what", ["", "/thumbnail", "/original"])
def test_what_the_index_does_not_name_is_not_there(client: TestClient, name: str, what: str) -> None:
    answer = client.get(f"/api/images{what}", params={"id": name})
    assert answer.status_code == 404
    assert error(answer) == "The index has no image of this id."


@pytest.mark.parametrize(
    "address",
    [
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e/server.py",
        "/static//etc/passwd",
        "/api/nothing",
    ],
)
def test_no_address_is_a_path(client: TestClient, address: str) -> None:
    assert client.get(address).status_code == 404
