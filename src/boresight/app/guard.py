"""What stands before every request: who asks, under which name, how much is sent; and headers of every answer."""

from __future__ import annotations

import asyncio
import hmac
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from boresight.app.config import Access, Limits
from boresight.app.problems import ANSWERS, log, problem

OPEN = ("/", "/docs", "/openapi.json", "/api/health")
"""Needs no token, nor does what is below /static/: the page, which holds nothing of the index."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """Refuses what `Access` and `Limits` do not allow, before the app below sees it; answers where that fails."""

    def __init__(self, app: ASGIApp, access: Access, limits: Limits) -> None:
        self.app, self.access, self.limits = app, access, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        begun = False

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(scope["path"], scope["method"], Headers(scope=scope))
        if refusal is not None:
            await refusal(scope, receive, with_headers)
            return
        try:
            await self.app(scope, self._measured(receive), with_headers)
        except Exception:
            log.exception("%s %r failed", scope["method"], scope["path"])
            if begun:
                raise
            await problem(500, ANSWERS[500])(scope, receive, with_headers)

    def _refusal(self, path: str, method: str, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "")
        if self.access.hosts and _name(host) not in self.access.hosts:
            return problem(400, "The service is not asked under this name here; start it with --hosts NAME.")
        origin = headers.get("origin")
        if origin is not None and method not in ("GET", "HEAD"):
            asker = urlsplit(origin).netloc
            if asker != host and (not asker or _name(asker) not in self.access.hosts):
                return problem(403, "Pages of other origins may not ask this service.")
        if self.access.token is not None and path not in OPEN and not path.startswith("/static/"):
            given = headers.get("authorization", "").encode("latin-1", "replace")
            if not hmac.compare_digest(given, f"Bearer {self.access.token}".encode()):
                return problem(
                    401,
                    "A token is needed: send the header 'Authorization: Bearer TOKEN'.",
                    {"WWW-Authenticate": "Bearer"},
                )
        size = headers.get("content-length", "0")
        if size.isdecimal() and int(size) > self.limits.body_bytes:
            return problem(413, self._too_large)
        return None

    @property
    def _too_large(self) -> str:
        return f"The body is too large; {self.limits.body_bytes:,} bytes at most are read."

    def _measured(self, receive: Receive) -> Receive:
        """The body, as far as the limits let it through: a length that is said may be another, or none."""
        read, whole = 0, False

        async def counted() -> Message:
            nonlocal read, whole
            if whole:
                return await receive()  # that the client left
            try:
                message = await asyncio.wait_for(receive(), self.limits.seconds)
            except TimeoutError:
                raise HTTPException(408) from None
            read += len(message.get("body", b""))
            whole = message["type"] != "http.request" or not message.get("more_body", False)
            if read > self.limits.body_bytes:
                raise HTTPException(413)
            return message

        return counted


def _name(host: str) -> str:
    """'localhost' of 'localhost:8000', '::1' of '[::1]:8000'."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
