"""The journal of an embedding run: what it is, which parts are finished, and that nobody else writes there."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from boresight.errors import ArtefactError
from boresight.storage import MANIFEST

JOURNAL = "journal.jsonl"
_LABELS = {
    "encoder_fingerprint": "an encoder of fingerprint",
    "computed_in": "an encoder computing in",
    "collection": "a collection whose ids, splits and captions hash to",
    "dtype": "dtype",
    "tokens": "tokens =",
    "long_text": "long_text =",
}
_BEFORE = {"long_text": "truncate"}  # what folders of older versions, which do not say, were made with


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns a failed write into ArtefactError: a full disk, a read-only place."""
    try:
        yield
    except OSError as error:
        raise ArtefactError(
            f"Cannot write {folder} ({error.strerror or error}); what was finished is kept: free space or gain the "
            "right to write there, and run the same again."
        ) from error


class Journal:
    """Lines of json in `folder`: the run's identity, then one line a finished part, each forced to the disk.

    A torn last line, left by a kill, is dropped. The open file is locked, so that a second run is refused.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder = folder
        with writing(folder):
            if (
                folder.is_dir()
                and any(folder.iterdir())
                and not any((folder / f).exists() for f in (JOURNAL, MANIFEST))
            ):
                raise ArtefactError(
                    f"{folder} holds files that boresight did not write; choose an empty or new folder."
                )
            folder.mkdir(parents=True, exist_ok=True)
            self._handle = (folder / JOURNAL).open("a+b")
        try:
            _lock(self._handle, folder)
            lines, valid = whole_lines(self._handle)
            with writing(folder):
                self._handle.truncate(valid)
            if lines:
                refuse_other_run(folder, lines[0], identity)
            self.parts: list[dict[str, Any]] = lines[1:]
            if not lines:
                self._write(identity)
        except BaseException:
            self._close()
            raise

    def add(self, part: dict[str, Any]) -> None:
        """Record a finished part; its rows must already be on the disk."""
        self._write(part)
        self.parts.append(part)

    def remove(self) -> None:
        """Delete the journal, after the manifest has taken its place."""
        with writing(self.folder):
            (self.folder / JOURNAL).unlink(missing_ok=True)

    def _write(self, line: dict[str, Any]) -> None:
        with writing(self.folder):
            self._handle.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            self._handle.flush()
            os.fsync(self._handle.fileno())

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # after a failed write, closing fails once more
            self._handle.close()


def refuse_other_run(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises ArtefactError when `folder` was made from something else than this run would make it from."""
    for key, label in _LABELS.items():
        made = before.get(key, _BEFORE.get(key))
        if made != now[key]:
            raise ArtefactError(
                f"{folder} was made with {label} {made} and this run has {now[key]}; "
                "choose another folder, or delete this one to start again."
            )


def _lock(handle: IO[bytes], folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not a POSIX system: two runs at once are then not noticed
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ArtefactError(
            f"Another run is writing {folder}; wait for it to end, or choose another folder."
        ) from error


def whole_lines(handle: IO[bytes]) -> tuple[list[dict[str, Any]], int]:
    """The journal's lines up to the first torn one, and how many bytes they take."""
    handle.seek(0)
    lines: list[dict[str, Any]] = []
    valid = 0
    for raw in handle:
        try:
            line = json.loads(raw) if raw.endswith(b"\n") else None
        except (json.JSONDecodeError, UnicodeDecodeError):
            line = None
        if not isinstance(line, dict):
            break
        lines.append(line)
        valid += len(raw)
    return lines, valid
