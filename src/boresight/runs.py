"""Work that fills a folder and may be stopped at any moment: what made it, which parts are finished, one writer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from boresight.errors import ArtefactError
from boresight.storage import MANIFEST, writing

JOURNAL = "journal.jsonl"
GO_ON = "what was finished is kept: free space or gain the right to write there, and run the same again."


class Run:
    """A begun run, as `open_run` gives it; its journal holds lines of json: what made it, then each finished part.

    Attributes:
        path: the folder or file that the run fills.
        parts: what was given to `add`, by earlier calls and this one, in order.
    """

    def __init__(self, path: Path, journal: Path, handle: IO[bytes], parts: list[dict[str, Any]]) -> None:
        self.path = path
        self.parts = parts
        self._journal = journal
        self._handle = handle

    def add(self, part: Mapping[str, Any]) -> None:
        """Record a finished part, forced to the disk; what it stands for must be there already."""
        self._write(part)
        self.parts.append(dict(part))

    def finish(self) -> None:
        """Delete the journal, where something else in the folder says from now on that the run is whole."""
        with writing(self.path, GO_ON):
            self._journal.unlink(missing_ok=True)

    def _write(self, line: Mapping[str, Any]) -> None:
        with writing(self.path, GO_ON):
            self._handle.write(json_line(line))
            self._handle.flush()
            os.fsync(self._handle.fileno())


@contextmanager
def open_run(
    path: str | Path,
    made_from: Mapping[str, Any],
    labels: Mapping[str, str] | None = None,
    *,
    journal: Path | None = None,
    start_over: bool = False,
) -> Iterator[Run]:
    """The run that fills `path`: a new one, or the one that was stopped there, to go on after its last part.

    Example:
        with open_run(folder, {"model": model.fingerprint, "seed": 0}, {"model": "a model of fingerprint"}) as run:
            for row in range(len(run.parts), rows):
                run.add({"row": row, "score": score(row)})

    Args:
        path: a folder, which is made where it is missing; or a file, when `journal` names another place.
        made_from: whatever the result depends on, for json.
        labels: the entries of `made_from` that another run may not differ in, and how the sentence of refusal names
            them; None: all of them by their own names.
        journal: the file to keep; by default `journal.jsonl` in the folder. A last line torn by a kill is dropped.
        start_over: where another run left its parts, forget these instead of refusing; and take a folder that holds
            other things too.

    Raises:
        ArtefactError: made from something else, not by boresight, being written by another run, or not writable.
    """
    path = Path(path)
    file = path / JOURNAL if journal is None else journal
    if not start_over:
        _refuse_foreign(path, file)
    with writing(path, GO_ON):
        file.parent.mkdir(parents=True, exist_ok=True)
    with one_writer(path, _lock_of(file)), _opened(file, path) as handle:
        lines, valid = whole_lines(handle)
        same = json.loads(json.dumps(made_from))
        if lines and start_over and lines[0] != same:
            lines, valid = [], 0
        with writing(path, GO_ON):
            handle.truncate(valid)
        run = Run(path, file, handle, lines[1:])
        if lines:
            refuse_other_run(path, lines[0], same, labels)
        else:
            run._write(same)
        yield run


def refuse_other_run(
    path: Path, before: Mapping[str, Any], now: Mapping[str, Any], labels: Mapping[str, str] | None = None
) -> None:
    """Raises ArtefactError, naming what differs, when `path` was made from something else than `now`; see `open_run`.

    For what is finished, `before` is what its manifest says.
    """
    for key, label in (labels or {key: f"{key} =" for key in now}).items():
        if before.get(key) != now[key]:
            raise ArtefactError(
                f"{path} was made with {label} {before.get(key)} and this run has {now[key]}; "
                f"choose another {_kind(path)}, or delete this one to start again."
            )


@contextmanager
def one_writer(path: Path, lock: Path) -> Iterator[None]:
    """Holds the file `lock`, which goes with the block, or at the latest with the process. ArtefactError if held."""
    from filelock import FileLock, Timeout  # brings asyncio, which whoever writes nothing need not wait for

    held = FileLock(lock, blocking=False)
    with writing(path, GO_ON):
        lock.touch()  # where this may not be written, filelock would take it for held
    try:
        held.acquire()
    except Timeout as error:
        raise ArtefactError(
            f"Another run is writing {path}; wait for it to end, or choose another {_kind(path)}."
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink()  # while it is held: whoever waits for it looks whether it is still there
        held.release()


def _kind(path: Path) -> str:
    return "folder" if path.is_dir() else "file"


def json_line(entry: Mapping[str, Any]) -> bytes:
    """A line of json, in UTF-8."""
    # A file name that is no valid unicode holds lone surrogates, which become escapes that json reads.
    return json.dumps(entry, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def parsed_line(raw: bytes) -> dict[str, Any] | None:
    """What `json_line` wrote; None for a line that is torn or something else."""
    try:
        line = json.loads(raw) if raw.endswith(b"\n") else None
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    return line if isinstance(line, dict) else None


def whole_lines(handle: IO[bytes]) -> tuple[list[dict[str, Any]], int]:
    """The lines of json in a file up to the first torn one, and how many bytes they take."""
    handle.seek(0)
    lines: list[dict[str, Any]] = []
    valid = 0
    for raw in handle:
        if (line := parsed_line(raw)) is None:
            break
        lines.append(line)
        valid += len(raw)
    return lines, valid


def _refuse_foreign(path: Path, journal: Path) -> None:
    if journal.exists() or (path / MANIFEST).exists():
        return
    if path.is_file() and path.stat().st_size:
        raise ArtefactError(f"{path} was not written by boresight; choose another file.")
    if path.is_dir() and any(entry != _lock_of(journal) for entry in path.iterdir()):
        raise ArtefactError(f"{path} holds files that boresight did not write; choose an empty or new folder.")


def _lock_of(journal: Path) -> Path:
    return journal.with_name(f".{journal.name}.lock")


@contextmanager
def _opened(journal: Path, path: Path) -> Iterator[IO[bytes]]:
    with writing(path, GO_ON):
        handle = journal.open("a+b")
    try:
        yield handle
    finally:
        with suppress(OSError):  # after a failed write, closing fails once more
            handle.close()
