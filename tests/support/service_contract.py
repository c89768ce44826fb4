"""Requests of every kind, made of the service's own description: no answer is a failure, and each is as described."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence

import numpy as np
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode, checks, openapi

from boresight.data.images import png

HEADERS = {"Host": "localhost"}
checks.load_all_checks()
CHECKED = [
    checks.not_a_server_error,
    *map(
        checks.CHECKS.get_one,
        ("status_code_conformance", "content_type_conformance", "response_schema_conformance"),
    ),
]


def check_contract(app: FastAPI, ids: Sequence[str], examples: int, start: int) -> dict[str, int]:
    """Ask each operation `examples` times in its own words, and as often in others; status -> how often it came.

    Raises what a test would for an answer that is a failure (5xx) or not as described.

    Args:
        ids: of images that are there. Half of the requests name one of these, and ask for nothing else that is not
            there, so that they come through.
        start: seed of what is drawn.
    """
    statuses: dict[str, int] = {}
    schema = openapi.from_asgi("/openapi.json", app, headers=HEADERS)
    for found in schema.get_all_operations():
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            cases = found.ok().as_strategy(generation_mode=mode)

            @seed(start)
            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            )
            @given(case=cases, name=st.none() | st.sampled_from(list(ids)))
            def ask(case: Case, name: str | None) -> None:
                if name is not None:
                    _name(case, name)
                answer = case.call(headers=HEADERS)
                case.validate_response(answer, checks=CHECKED, headers=HEADERS)
                line = f"{case.method} {case.path} {answer.status_code}"
                statuses[line] = statuses.get(line, 0) + 1

            # Nothing is wrong for an address that takes nothing.
            with contextlib.suppress(*([Unsatisfiable] if mode is GenerationMode.NEGATIVE else [])):
                ask()
    return statuses


def _name(case: Case, name: str) -> None:
    """Where a request names images, latents or a filter, which by chance are never there: those that are."""
    known = {"id": name, "like": [name], "unlike": [name], "latents": {"3": 0}, "where": "year > 2001", "k": 3}
    known |= {"offset": 0, "candidates": None, "ef_search": None}  # the index has no graph
    bodies = [case.query, case.body]
    if isinstance(case.body, dict) and isinstance(case.body.get("queries"), list):
        case.body["queries"] = [{**one, **known} for one in case.body["queries"][:3] if isinstance(one, dict)]
        for one in case.body["queries"]:
            del one["id"]
            one["plain"] = False
    elif isinstance(case.body, dict) and "image" in case.body:
        asked = {"id": name} if "explain" in case.path else {}
        case.body.update(image=[png(np.full((9, 9, 3), 99, np.uint8))], query=json.dumps(asked))
    if isinstance(case.body, dict) and case.path in ("/api/search", "/api/explain"):
        case.body.setdefault("text", "a ring")
    for body in bodies:
        if isinstance(body, dict):
            body.update({key: value for key, value in known.items() if key in body})
