"""The addresses below /api, each a call of the service, in a thread: the loop that takes requests never waits."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from fastapi.responses import JSONResponse, Response
from PIL import Image
from pydantic import ValidationError

from boresight.app import schemas
from boresight.app.problems import RESPONSES, Refused, in_words
from boresight.app.service import Service
from boresight.app.shown import answer_of, reasons_of
from boresight.data.images import decode_upload

Id = Annotated[str, Query(min_length=1, max_length=1000, description="Id of an image of the index.")]
KEPT = "private, max-age=300"  # pictures, by the browser that asked
Pictures = Annotated[list[UploadFile], File(min_length=1, max_length=8, description="JPEG, PNG, WebP, GIF or BMP.")]
Asked = TypeVar("Asked", bound=schemas.Asked)


def api(service: Service) -> APIRouter:
    """Routes of one service."""
    router = APIRouter(prefix="/api", responses=RESPONSES)

    @router.get("/health", response_model=schemas.Health, summary="Whether the service can answer", tags=["service"])
    def health() -> Response:
        return JSONResponse({"status": "ok", "images": len(service.index)})

    @router.get("/info", response_model=schemas.Info, summary="What is served", tags=["service"])
    def info() -> Response:
        return JSONResponse(service.info())

    @router.post("/search", response_model=schemas.Answer, summary="The images that match best", tags=["search"])
    def search(asked: schemas.SearchAsked) -> Response:
        with service.admitted():
            results = service.search(asked.query(), asked.ranked)
            return JSONResponse(answer_of(results, service.pictures))

    @router.post(
        "/search/image", response_model=schemas.Answer, summary="Images like a picture that is sent", tags=["search"]
    )
    def search_by_image(
        image: Pictures,
        query: Annotated[str, Form(description="Further fields of the query, as JSON, as for /api/search.")] = "{}",
    ) -> Response:
        asked = _parsed(schemas.SearchAsked, query)
        with service.admitted(pictures=True):
            results = service.search(asked.query(image=_decoded(image, service)), asked.ranked)
            return JSONResponse(answer_of(results, service.pictures))

    @router.post("/search/batch", response_model=schemas.Answers, summary="Several queries at once", tags=["search"])
    def search_batch(asked: schemas.BatchAsked) -> Response:
        with service.admitted():
            queries = [one.query() for one in asked.queries]
            found = service.search_many(queries, [one.ranked for one in asked.queries])
            return JSONResponse({"answers": [answer_of(one, service.pictures) for one in found]})

    @router.post("/explain", response_model=schemas.ReasonsShown, summary="Why an image has its score", tags=["why"])
    def explain(asked: schemas.ExplainAsked) -> Response:
        with service.admitted():
            return JSONResponse(reasons_of(service.explain(asked.query(), asked.id), service.label))

    @router.post(
        "/explain/image", response_model=schemas.ReasonsShown, summary="Why, where a picture was sent", tags=["why"]
    )
    def explain_by_image(
        image: Pictures, query: Annotated[str, Form(description="The other fields, as JSON, as for /api/explain.")]
    ) -> Response:
        asked = _parsed(schemas.ExplainAsked, query)
        with service.admitted(pictures=True):
            reasons = service.explain(asked.query(image=_decoded(image, service)), asked.id)
            return JSONResponse(reasons_of(reasons, service.label))

    @router.post("/heatmap", response_model=schemas.Heatmap, summary="A map over a picture", tags=["why"])
    def heatmap(asked: schemas.HeatmapAsked) -> Response:
        with service.admitted(pictures=True):
            return JSONResponse(service.heatmap(asked.id, asked.text, asked.method))

    @router.get("/images", response_model=schemas.Record, summary="What is known of an image", tags=["images"])
    def image(id: Id) -> Response:
        return JSONResponse(service.record(id))

    @router.get("/images/thumbnail", summary="A small picture", tags=["images"], **_picture())
    def thumbnail(id: Id, request: Request) -> Response:
        return _cached(request, service.thumbnail(id))

    @router.get("/images/original", summary="The picture, 2048 pixels at most", tags=["images"], **_picture())
    def original(id: Id, request: Request) -> Response:
        with service.admitted(pictures=True):
            return _cached(request, service.original(id))

    @router.get("/concepts", response_model=schemas.Concepts, summary="The most frequent latents", tags=["concepts"])
    def concepts(
        offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0, k: Annotated[int, Query(ge=1, le=200)] = 20
    ) -> Response:
        with service.admitted():
            return JSONResponse(service.concepts(offset, k))

    @router.get("/concepts/map", response_model=schemas.ConceptMap, summary="Named latents in 2-D", tags=["concepts"])
    def concept_map() -> Response:
        with service.admitted():
            return JSONResponse(service.concept_map())

    @router.get(
        "/verdict", response_model=schemas.VerdictShown | None, summary="What a comparison says", tags=["service"]
    )
    def verdict() -> Response:
        return JSONResponse(service.verdict())

    return router


def _picture() -> dict[str, Any]:
    """How a route that answers with a picture is described."""
    found = {
        "description": "The picture.",
        "content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}},
    }
    return {"response_class": Response, "responses": {200: found, 304: {"description": "It has not changed."}}}


def _cached(request: Request, data: bytes) -> Response:
    """A picture, or that the one that the browser has is still the same."""
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": KEPT}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="image/webp", headers=headers)


def _parsed(kind: type[Asked], query: str) -> Asked:
    """The part of a form that is JSON."""
    try:
        return kind.model_validate_json(query)
    except ValidationError as error:
        raise Refused(422, in_words(error.errors()[0], "query")) from error


def _decoded(images: list[UploadFile], service: Service) -> list[Image.Image]:
    """Pictures that were sent, which share the pixels that one request may send."""
    pictures, left = [], service.limits.pixels
    for each in images:
        pictures.append(decode_upload(each.file.read(), left))
        left -= pictures[-1].width * pictures[-1].height
    return pictures
