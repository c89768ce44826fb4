"""The app around a service: routes, the page, what guards them; and the process that runs it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path

import anyio.to_thread
import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from boresight.app.agents import agent_routes, agent_tools
from boresight.app.config import Access
from boresight.app.guard import Guard
from boresight.app.metrics import Measured
from boresight.app.problems import answer_problems
from boresight.app.routes import api
from boresight.app.service import Service
from boresight.errors import InputError

STATIC = Path(__file__).parent / "static"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def create_app(service: Service, access: Access | None = None) -> FastAPI:
    """An ASGI app that serves one index. The service is not closed with it.

    Example:
        app = create_app(Service(SearchIndex.open("photos.index", encoder=encoder)))
    """
    access, agents = access or Access(), agent_tools(service)

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        # A thread for each request that is worked on, and some for those that are only looked up or refused.
        anyio.to_thread.current_default_thread_limiter().total_tokens = service.limits.at_once + 32
        async with agents.session_manager.run():
            yield

    app = FastAPI(
        title="boresight",
        version=version("boresight"),
        description="Images found by a sentence, a picture or both, and why.",
        docs_url=None,  # those pages load scripts from other hosts; ours is below
        redoc_url=None,
        lifespan=life,
    )
    app.include_router(api(service))
    answer_problems(app)

    @app.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        return Response(service.metrics.text(), media_type=PROMETHEUS)

    @app.get("/", include_in_schema=False)
    def page() -> Response:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        return FileResponse(STATIC / "docs.html", headers={"Cache-Control": "no-cache"})

    app.router.routes.extend(agent_routes(agents))
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(Guard, access=access, limits=service.limits)
    app.add_middleware(Measured, metrics=service.metrics)
    return app


def listening(host: str, port: int) -> socket.socket:
    """A socket that is bound; port 0 takes a free one. Raises InputError where that is not possible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number is not None and number > 0 else error
        raise InputError(f"Cannot listen on {host}:{port} ({reason}); choose another --port or --host.") from error


def run(app: FastAPI, bound: socket.socket, seconds: float) -> None:
    """Serve until SIGTERM or SIGINT, then end the requests in flight, for so many seconds at most."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(seconds)),
    )
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: None)  # uvicorn raises them once more when it has stopped
    uvicorn.Server(config).run(sockets=[bound])
