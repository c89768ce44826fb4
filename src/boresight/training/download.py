"""A shard read from front to back, on disk or over http, where a transfer that breaks goes on at the same byte."""

from __future__ import annotations

import io
import time
from http.client import HTTPException, HTTPResponse
from typing import IO, Any
from urllib.request import Request, urlopen

from boresight.errors import InputError

_TIMEOUT = 60.0
_PAUSES = (1, 4, 16)  # seconds before an address that does not answer is asked again
_BUSY = (408, 429)  # too slow, too many requests


def is_address(shard: str) -> bool:
    """Whether a shard is named by an address and not by a path."""
    return "://" in shard


def open_shard(shard: str) -> IO[bytes]:
    """A path or an http(s) address. Raises InputError when it cannot be opened.

    Of an address the first read does so, and a later one where the transfer broke and cannot go on.
    """
    if is_address(shard):
        return io.BufferedReader(_Download(shard), 1 << 20)
    try:
        return open(shard, "rb")
    except OSError as error:
        raise _unopened(shard, error) from error


class _Download(io.RawIOBase):
    """A file at an address. A server that knows no ranges is read anew up to where the transfer broke."""

    def __init__(self, address: str) -> None:
        self._address, self._at = address, 0
        self._answer: HTTPResponse | None = None
        self._size: str | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        for pause in (*_PAUSES, None):
            try:
                answer = self._answer or self._ask()
                count = answer.readinto(buffer)
                if not count and answer.length:
                    raise EOFError(f"the transfer ends after {self._at:,} bytes")
                self._at += count
                return count
            except (OSError, HTTPException, ValueError, EOFError) as error:
                self._hang_up()
                code = getattr(error, "code", 500)
                passing = (code >= 500 or code in _BUSY) and not isinstance(error, ValueError)
                if pause is None or not passing:
                    raise _unopened(self._address, error) from error
                time.sleep(pause)
        raise AssertionError

    def close(self) -> None:
        self._hang_up()
        super().close()

    def _ask(self) -> HTTPResponse:
        """An answer that goes on where the last one broke."""
        ranges = {"Range": f"bytes={self._at}-"} if self._at else {}
        answer: HTTPResponse = urlopen(Request(self._address, headers=ranges), timeout=_TIMEOUT)
        self._answer = answer
        partial = answer.status == 206
        whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
        size = whole if partial else answer.headers.get("Content-Length")
        if self._at and size != self._size:
            raise ValueError("it changed while it was read")
        self._size, skip = size, 0 if partial else self._at
        while skip:
            passed = len(answer.read(min(skip, 1 << 20)))
            if not passed:
                raise ConnectionError("the transfer broke again")
            skip -= passed
        return answer

    def _hang_up(self) -> None:
        if self._answer is not None:
            self._answer.close()
        self._answer = None


def _unopened(shard: str, error: Exception) -> InputError:
    return InputError(f"The shard {shard} cannot be opened ({error}); restore it, then resume.")
