"""Figures of the service in the format of Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from boresight.errors import BoresightError

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counted since the start; images: how many the index has now."""

    def __init__(self, images: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        own = {"registry": self._registry}
        labels = ("method", "route")
        self.requests = Counter("boresight_requests", "Requests answered.", (*labels, "status"), **own)
        self.seconds = Histogram("boresight_request_seconds", "From request to answer.", labels, buckets=SECONDS, **own)
        self.batch = Histogram("boresight_batch_queries", "Queries answered in one batch.", buckets=SIZES, **own)
        self.in_flight = Gauge("boresight_in_flight", "Requests being worked on.", **own)
        Gauge("boresight_images", "Images of the index.", **own).set_function(lambda: _known(images))

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self._registry)


class Measured:
    """Counts each request to the app below. An address that no route has goes by 'none', so that labels stay few."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, began = 500, time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self.metrics.in_flight.track_inprogress():
            try:
                await self.app(scope, receive, noted)
            finally:
                route = getattr(scope.get("route"), "path", "none")
                method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD", "DELETE") else "other"
                self.metrics.requests.labels(method, route, str(status)).inc()
                self.metrics.seconds.labels(method, route).observe(time.perf_counter() - began)


def _known(images: Callable[[], int]) -> float:
    try:
        return images()
    except BoresightError:  # the index cannot be read now
        return float("nan")
