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

    So does a later read from an address where the transfer broke and cannot go on.
    """
    if is_address(shard):
        return io.BufferedReader(_Download(shard, _ask(shard, 0)), 1 << 20)
    try:
        return open(shard, "rb")
    except OSError as error:
        raise _unopened(shard, error) from error


class _Download(io.RawIOBase):
    """A file at an address. A server that knows no ranges is read anew up to where the transfer broke."""

    def __init__(self, address: str, answer: HTTPResponse) -> None:
        self._address, self._answer, self._at = address, answer, 0
        self._size = _told_size(answer)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wrong: Exception | None = None
        for pause in (0, *_PAUSES):
            try:
                if wrong is not None:
                    time.sleep(pause)
                    self._reopen()
                count = self._answer.readinto(buffer)
                if count or not self._answer.length:
                    self._at += count
                    return count
                wrong = EOFError(f"the transfer ends after {self._at:,} bytes")
            except (OSError, HTTPException) as error:
                wrong = error
        assert wrong is not None
        raise _unopened(self._address, wrong) from wrong

    def close(self) -> None:
        self._answer.close()
        super().close()

    def _reopen(self) -> None:
        self._answer.close()
        self._answer = _ask(self._address, self._at)
        if _told_size(self._answer) != self._size:
            raise _unopened(self._address, ValueError("it changed while it was read"))
        skip = 0 if self._answer.status == 206 else self._at
        while skip:
            passed = len(self._answer.read(min(skip, 1 << 20)))
            if not passed:
                raise ConnectionError("the transfer broke again")
            skip -= passed


def _ask(address: str, start: int) -> HTTPResponse:
    ranges = {"Range": f"bytes={start}-"} if start else {}
    for pause in (*_PAUSES, None):
        try:
            return urlopen(Request(address, headers=ranges), timeout=_TIMEOUT)
        except (OSError, HTTPException, ValueError) as error:
            code = getattr(error, "code", 500)
            passing = (code >= 500 or code in _BUSY) and not isinstance(error, ValueError)
            if pause is None or not passing:
                raise _unopened(address, error) from error
            time.sleep(pause)
    raise AssertionError


def _told_size(answer: HTTPResponse) -> str | None:
    """Of the whole file, where the server tells it."""
    if answer.status == 206:
        return answer.headers.get("Content-Range", "").rpartition("/")[2]
    return answer.headers.get("Content-Length")


def _unopened(shard: str, error: Exception) -> InputError:
    return InputError(f"The shard {shard} cannot be opened ({error}); restore it, then resume.")
