"""What a request is refused with: a status, one sentence, and never a traceback."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException

from boresight.errors import ArtefactError, InputError, first_line

log = logging.getLogger("boresight.app")

ANSWERS = {
    400: "The request cannot be read.",
    401: "The token is missing or another.",
    403: "The page that asks is another's.",
    404: "There is nothing of this name.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is of another type.",
    422: "What is asked for cannot be used.",
    429: "Too many requests are being worked on; come back after `Retry-After` seconds.",
    500: "The service failed; its log says why.",
    503: "It took too long, or the index cannot be read now.",
}


class Problem(BaseModel):
    """Every answer that is no success: one sentence."""

    error: str


class Refused(Exception):
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        sentence: that the client gets.
        retry: seconds after which it may come back; None where that changes nothing.
    """

    def __init__(self, status: int, sentence: str, retry: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.retry = status, sentence, retry


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": words} for status, words in ANSWERS.items()
}
"""For the description of every route."""


def problem(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer of a request that is not served; what cannot be written as unicode is replaced."""
    safe = sentence.encode("utf-8", "replace").decode("utf-8")
    return JSONResponse({"error": safe}, status, headers=dict(headers or {}))


def answer_problems(app: FastAPI) -> None:
    """Make every error of the app that is foreseen such an answer; `guard` answers the others."""

    @app.exception_handler(Refused)
    def refused(request: Request, error: Refused) -> JSONResponse:
        return problem(error.status, error.sentence, {"Retry-After": str(error.retry)} if error.retry else None)

    @app.exception_handler(InputError)
    def unusable(request: Request, error: InputError) -> JSONResponse:
        return problem(422, str(error))

    @app.exception_handler(ArtefactError)
    def broken(request: Request, error: ArtefactError) -> JSONResponse:
        log.error("%s", error)
        return problem(503, "The index cannot be read now; the log of the service says why.", {"Retry-After": "10"})

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return problem(422, in_words(error.errors()[0]))

    @app.exception_handler(StarletteHTTPException)
    def http(request: Request, error: HTTPException) -> JSONResponse:
        said = {404: "There is no such page; /docs lists all.", 405: "This address takes another method; see /docs."}
        sentence = said.get(error.status_code) or ANSWERS.get(error.status_code) or str(error.detail)
        return problem(error.status_code, sentence, error.headers)


def in_words(error: Mapping[str, Any], root: str = "") -> str:
    """A sentence for one thing that pydantic found wrong; root: the name of what was read, left out for a body."""
    where = ".".join(str(part) for part in ([root, *error["loc"]] if root else error["loc"][1:]))
    said = first_line(ValueError(error["msg"]))
    if error["type"] == "json_invalid":
        return f'The {root or "body"} is no JSON; send an object such as {{"text": "a dog"}}.'
    if error["type"] == "extra_forbidden":
        return f"There is no field '{where}'; /docs lists those that there are."
    return f"'{where}' cannot be used: {said[:1].lower()}{said[1:]}." if where else f"The body cannot be used: {said}."
