"""Who may ask the service, and how much."""

from __future__ import annotations

from dataclasses import dataclass

from boresight.errors import require_at_least

OWN_HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one request, and all together, may ask for."""

    k: int = 200
    """Most answers to one query."""
    batch: int = 64
    """Most queries in one request."""
    body_bytes: int = 16_000_000
    """Largest body of a request."""
    pixels: int = 40_000_000
    """Most pixels of an uploaded picture, and of one that is shown whole."""
    seconds: float = 30.0
    """Longest that a request may take; what a stopping service waits for its last requests, too."""
    at_once: int = 128
    """Most requests that are worked on at once; the next is told to come back."""

    def __post_init__(self) -> None:
        for name in ("k", "batch", "body_bytes", "pixels", "at_once"):
            require_at_least(name, getattr(self, name), 1)
        require_at_least("seconds", self.seconds, 0.001)


@dataclass(frozen=True)
class Access:
    """Who is answered.

    Attributes:
        token: that every request but for the page itself must bear; None: none.
        hosts: names that the service may be asked under; empty: any. Names guard a service on this machine against web
            pages that point a name of their own to it.
    """

    token: str | None = None
    hosts: tuple[str, ...] = OWN_HOSTS
