"""The API: what is asked for is what the index gives, and what cannot be given is refused in a sentence."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from boresight.app import schemas
from boresight.app.concepts import told_shares
from boresight.app.service import Service
from boresight.data.images import decode
from boresight.search import Query
from scenes_index import ODD_IDS
from search_world import editor_of


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


@pytest.mark.parametrize("latents", [{}, {"7": 0.0, "784": 2}])
@pytest.mark.parametrize(
    "asked", [{"text": ["a red circle", "a ring"], "without": "a heart"}, {"text": "x", "plain": True}]
)
def test_reasons_sum_to_the_score_that_the_search_showed(client: TestClient, asked: dict, latents: dict) -> None:
    if "plain" not in asked:
        asked = {**asked, "latents": latents}
    for shown in found(client, **asked, k=3):
        said = client.post("/api/explain", json={**asked, "id": shown["id"]})
        reasons = schemas.ReasonsShown.model_validate(said.json())
        assert reasons.id == shown["id"]
        total = sum(term.weight * term.score for term in reasons.terms) + sum(one.effect for one in reasons.switched)
        assert total == pytest.approx(reasons.score, abs=1e-6)
        assert reasons.score == pytest.approx(shown["score"], abs=1e-4)
        assert [one.latent for one in reasons.switched] == ([] if "plain" in asked else [int(one) for one in latents])
        plain = sum(term.weight * term.plain_score for term in reasons.terms)
        assert plain == pytest.approx(shown["plain_score"], abs=1e-4)
        for term in reasons.terms:
            assert (term.explanation is None) == ("plain" in asked)
            if term.explanation is None:
                continue
            cells = sum(sum(row.values()) for row in term.explanation.grid.values())
            assert cells - sum(term.explanation.hubness.values()) == pytest.approx(term.score, abs=1e-5)
            assert sum(term.explanation.parts.values()) == pytest.approx(term.score, abs=1e-5)
            assert term.explanation.latents_kept
            assert term.explanation.image_memory[0].image_id is not None


def test_reasons_of_a_picture_that_is_sent(client: TestClient, scenes_index: Path) -> None:
    sent = [("image", ("a.png", (scenes_index.parent / f"{row}.png").read_bytes(), "image/png")) for row in (12, 13)]
    query = {"text": "a ring", "image_weight": 0.4}
    (shown,) = client.post("/api/search/image", files=sent, data={"query": json.dumps({**query, "k": 1})}).json()[
        "results"
    ]
    said = client.post(
        "/api/explain/image", files=sent, data={"query": json.dumps({**query, "id": shown["id"]})}
    ).json()
    assert [(term["kind"], term["weight"]) for term in said["terms"]] == [("text", 0.6), ("image", 0.2), ("image", 0.2)]
    assert said["score"] == pytest.approx(shown["score"], abs=1e-4)


@pytest.mark.parametrize("method", ["m2ib", "bottleneck-path", "occlusion"])
def test_a_heatmap_lies_over_its_picture(client: TestClient, method: str) -> None:
    said = client.post("/api/heatmap", json={"text": "a red circle", "id": "scene-28", "method": method}).json()
    drawn = schemas.Heatmap.model_validate(said)
    assert [word.text for word in drawn.words] == ["a", "red", "circle"]
    pictures = [Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) for uri in (drawn.overlay, drawn.image)]
    assert [(one.size, one.mode) for one in pictures] == [
        ((drawn.width, drawn.height), mode) for mode in ("RGBA", "RGB")
    ]
    assert pictures[0].getextrema()[3] == (0, pytest.approx(191, abs=2))  # of a map that says something


def test_concepts_are_those_of_the_codes(client: TestClient, service: Service) -> None:
    editor, names = service.index.editor, service.index.names
    assert editor is not None
    assert names is not None
    snapshot = service.index.snapshot()
    codes = editor.sae.encode(snapshot.plain(np.arange(60)) * torch.tensor(snapshot.segments[0].norms)[:, None])
    dense = np.zeros((60, editor.sae.n_latents), np.float32)
    np.put_along_axis(dense, codes.indices.numpy(), codes.values.numpy(), axis=1)
    counts = (dense > 0).sum(0)
    said = client.get("/api/concepts", params={"offset": 3, "k": 5}).json()
    assert said["total"] == (counts > 0).sum()
    order = np.argsort(-counts, kind="stable")[3:8]
    assert [one["latent"] for one in said["concepts"]] == order.tolist()
    for one in said["concepts"]:
        latent = one["latent"]
        assert (one["images"], one["name"]) == (counts[latent], names[latent])
        strongest = np.argsort(-dense[:, latent], kind="stable")[:8]
        assert one["top"] == [snapshot.record(row)["id"] for row in strongest if dense[row, latent] > 0]
    told = told_shares(editor)
    assert told is not None
    for one in said["concepts"]:
        share = told[one["latent"]]
        assert one["told"] == (None if np.isnan(share) else pytest.approx(share))
    points = client.get("/api/concepts/map").json()["points"]
    assert {one["latent"] for one in points} == {row for row, name in enumerate(names.names) if name and counts[row]}
    assert max(abs(one[axis]) for one in points for axis in "xy") == pytest.approx(1)


@pytest.mark.parametrize("name", ["gated, both memories", "gated, taught", "plain"])
def test_what_captions_tell_is_counted_over_the_remembered_pairs(name: str) -> None:
    editor = editor_of(name)
    if editor.mask_network is not None:
        with torch.no_grad():  # a new mask keeps nearly all; this one about half
            editor.mask_network.bias -= editor.mask_network.bias.mean()
    told = told_shares(editor)
    if name == "plain":
        assert told is None  # no latents
        return
    assert told is not None
    assert editor.memory is not None
    masking = editor.shown if editor.taught_mask is not None else editor
    for latent in range(editor.sae.n_latents):
        kept = []
        for image, text in zip(editor.memory.images.float(), editor.memory.texts.float(), strict=True):
            if editor.sae.encode(image[None]).dense()[0, latent] > 0:
                kept.append(bool(masking.mask(text[None])[0, latent] >= 0.5))
        assert told[latent] == pytest.approx(np.mean(kept)) if kept else np.isnan(told[latent])
    assert 0 < np.nanmean(told) < 1


def test_without_a_comparison_there_is_no_verdict(client: TestClient) -> None:
    assert client.get("/api/verdict").json() is None


def test_what_is_served(client: TestClient) -> None:
    said = schemas.Info.model_validate(client.get("/api/info").json())
    assert (said.images, said.edited, said.pictures) == (60, True, True)
    columns = {one.name: one.type for one in said.columns}
    assert columns == {"id": "text", "split": "text", "year": "number", "place": "text"}
    assert client.get("/api/health").json() == {"status": "ok", "images": 60}


def test_a_picture_is_asked_for_once(client: TestClient) -> None:
    address = "/api/images/thumbnail?id=scene-20"
    first = client.get(address)
    assert first.headers["cache-control"] == "private, max-age=300"
    again = client.get(address, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get("/api/images/thumbnail?id=scene-21", headers={"If-None-Match": first.headers["etag"]})
    assert other.status_code == 200


REFUSED = [
    ({}, 422, "There is nothing to search for"),
    ({"text": " "}, 422, "text is empty"),
    ({"text": "a", "txt": "b"}, 422, "There is no field 'txt'"),
    ({"text": 7}, 422, "'text"),
    ({"text": "a", "k": 51}, 422, "k is 51; 50 answers at most"),
    ({"text": "a", "k": 0}, 422, "'k' cannot be used"),
    ({"text": "a", "offset": 9_999}, 422, "k and offset ask for"),
    ({"text": "a", "like": "nobody"}, 422, "The index has no image 'nobody'"),
    ({"text": "a", "where": "yeer > 3"}, 422, "did you mean year"),
    ({"text": "a", "where": "__import__('os')"}, 422, "is not read"),
    ({"text": "a", "where": f"year > {10**30}"}, 422, "The filter"),
    ({"text": "a", "latents": {"nothing": 0}}, 422, "There is no latent named 'nothing'"),
    ({"text": "a", "latents": {"²": 0}}, 422, "There is no latent named '²'"),
    ({"text": "a", "latents": {"99999": 0}}, 422, "There is no latent 99999"),
    ({"text": "a", "latents": {"3": 0}, "plain": True}, 422, "Latents are switched"),
    ({"text": "\ud800"}, 422, "'text"),
    ({"image": "/etc/hosts"}, 422, "There is no field 'image'"),
]


@pytest.mark.parametrize(("asked", "status", "sentence"), REFUSED)
def test_what_cannot_be_asked_is_a_sentence(client: TestClient, asked: dict, status: int, sentence: str) -> None:
    answer = client.post("/api/search", content=json.dumps(asked), headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert sentence in error(answer)
    answer = client.post(
        "/api/search/batch",
        content=json.dumps({"queries": [asked, {"text": "a"}]}),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("sent", "status", "sentence"),
    [
        ({"content": "{"}, 422, "The body is no JSON"),
        ({"content": "[" * 5000}, 400, "The request cannot be read"),
        ({"content": '{"text": "a", "min_score": NaN}'}, 422, "'min_score"),
        ({"content": b'{"text": "\xff"}'}, 400, "The request cannot be read"),
        ({"content": b"text=a", "headers": {"Content-Type": "text/plain"}}, 422, "The body cannot be used"),
        ({"content": b"x" * 400_000}, 413, "300,000 bytes at most"),
        ({"content": (b"x" * 10_000 for _ in range(40))}, 413, "The body is too large"),
    ],
)
def test_bodies_that_are_none(client: TestClient, sent: dict, status: int, sentence: str) -> None:
    answer = client.post("/api/search", **{"headers": {"Content-Type": "application/json"}, **sent})
    assert answer.status_code == status
    assert sentence in error(answer)


@pytest.mark.parametrize(
    ("data", "query", "sentence"),
    [
        (b"", "{}", "no kind of picture"),
        (b"%PDF-1.4 no picture", "{}", "no kind of picture"),
        (picture()[:60], "{}", "corrupt"),
        (picture(kind="TIFF"), "{}", "no kind of picture"),  # which browsers do not send
        (picture(501), "{}", "it has 501 x 501 pixels; 250,000 at most are read"),
        (picture(), "{", "The query is no JSON"),
        (picture(), '{"like": 3}', "'query.like"),
    ],
)
def test_uploads_that_are_none(client: TestClient, data: bytes, query: str, sentence: str) -> None:
    answer = client.post("/api/search/image", files={"image": ("a.png", data)}, data={"query": query})
    assert answer.status_code == 422
    assert sentence in error(answer)


def test_pictures_share_the_pixels_of_a_request(client: TestClient) -> None:
    sent = [("image", ("a.png", picture(400))) for _ in range(2)]
    answer = client.post("/api/search/image", files=sent, data={"query": "{}"})
    assert "it has 400 x 400 pixels; 90,000 at most are read" in error(answer)


def test_a_batch_has_a_limit(client: TestClient) -> None:
    answer = client.post("/api/search/batch", json={"queries": [{"text": "a"}] * 9})
    assert (answer.status_code, error(answer)) == (422, "There are 9 queries; 8 at most are answered at once.")


@pytest.mark.parametrize(
    ("asked", "status", "sentence"),
    [
        ({"text": "a ring", "id": "nobody"}, 404, "The index has no image of this id."),
        ({"text": "a ring", "id": "scene-20", "method": "magic"}, 422, "There is no method 'magic'"),
        ({"text": " ", "id": "scene-20"}, 422, "empty"),
    ],
)
def test_heatmaps_that_cannot_be(client: TestClient, asked: dict, status: int, sentence: str) -> None:
    answer = client.post("/api/heatmap", json=asked)
    assert answer.status_code == status
    assert sentence in error(answer)


def test_candidates_need_a_graph_and_read_no_ranks(client: TestClient) -> None:
    answer = client.post("/api/search", json={"text": "a ring", "candidates": 50})
    assert answer.status_code == 422
    assert "graph" in answer.json()["error"]
    assert client.post("/api/search", json={"text": "a ring", "ef_search": 5}).status_code == 422
    assert client.post("/api/search", json={"text": "a ring", "candidates": "many"}).status_code == 422
