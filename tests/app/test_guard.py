"""Who is answered, under which name, and with which headers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from boresight.app import Access, Service, create_app
from boresight.app.guard import OPEN
from boresight.app.server import STATIC

ASKED = {"text": "a ring", "k": 1}
TOKEN = "tök en"


@pytest.fixture(scope="module")
def locked(service: Service) -> TestClient:
    return TestClient(create_app(service, Access(token=TOKEN)), base_url="http://localhost")


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "LOCALHOST"])
def test_own_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/api/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "evil.example:localhost", ""])
def test_another_name_that_leads_here_is_not(client: TestClient, host: str) -> None:
    for address in ("/", "/api/health", "/mcp", "/static/index.html"):
        answer = client.get(address, headers={"Host": host})
        assert answer.status_code == 400
        assert "--hosts" in answer.json()["error"]


def test_names_may_be_any(service: Service) -> None:
    client = TestClient(create_app(service, Access(hosts=())), base_url="http://photos.example")
    assert client.get("/api/health").status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://localhost", 200),
        ("http://127.0.0.1:3000", 200),
        ("https://evil.example", 403),
        ("null", 403),
    ],
)
def test_pages_of_others_may_not_ask(client: TestClient, origin: str | None, status: int) -> None:
    headers = {} if origin is None else {"Origin": origin}
    answer = client.post("/api/search", json=ASKED, headers=headers)
    assert answer.status_code == status
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize("given", [None, "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"bearer {TOKEN}"])
def test_without_the_token_only_the_page_is_answered(locked: TestClient, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given.encode()}
    for address in (*OPEN, "/static/index.html"):
        assert locked.get(address, headers=headers).status_code == 200
    others = ["/api/info", "/api/images?id=scene-20", "/metrics", "/mcp", "/api//health", "/API/HEALTH", "/api/health/"]
    for address in others:
        answer = locked.get(address, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert locked.post("/api/search", json=ASKED, headers=headers).status_code == 401


def test_with_the_token_all_is(locked: TestClient) -> None:
    answer = locked.post("/api/search", json=ASKED, headers={"Authorization": f"Bearer {TOKEN}".encode()})
    assert answer.status_code == 200


@pytest.mark.parametrize("address", ["/", "/api/info", "/api/images/thumbnail?id=scene-20", "/nothing", "/api/search"])
def test_every_answer_has_the_headers(client: TestClient, address: str) -> None:
    headers = client.get(address).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-security-policy"].startswith("default-src 'self'; img-src 'self' data: blob:;")
    assert "http" not in headers["content-security-policy"]
    assert "cache-control" in headers
    assert "server" not in headers


def test_no_page_of_ours_asks_another_host(client: TestClient) -> None:
    assert "/static/docs.js" in client.get("/docs").text
    files = [file for file in Path(STATIC).rglob("*") if file.suffix in (".html", ".js", ".css")]
    assert len(files) > 3
    for file in files:
        said = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", said), file
        assert client.get(f"/static/{file.relative_to(STATIC)}").status_code == 200


def test_wrong_methods_and_addresses_are_sentences(client: TestClient) -> None:
    for method, address, status in (
        ("PUT", "/api/search", 405),
        ("GET", "/nothing", 404),
        ("OPTIONS", "/api/info", 405),
    ):
        answer = client.request(method, address)
        assert answer.status_code == status
        assert list(answer.json()) == ["error"]
