"""Artefacts on disk: a folder with `manifest.json` and `tensors.safetensors`, written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from boresight.errors import ArtefactError, InputError, first_line

FORMAT = 2
MANIFEST = "manifest.json"
TENSORS = "tensors.safetensors"
_ABANDONED = 3600.0  # seconds


def fingerprint(tensors: Mapping[str, torch.Tensor]) -> str:
    """Hex digest (16 characters) of names, shapes, dtypes and bytes; equal tensors give equal digests."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def nearest(folder: Path) -> Path:
    """`folder` itself, or the nearest place above it that is there, whatever it is."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))


def check_place(folder: str | Path, kind: str) -> None:
    """Raises ArtefactError unless `folder` is new, empty, or holds an artefact of this kind, to be replaced."""
    with writing(folder):
        path = Path(folder)
        if path.exists() and not path.is_dir():
            raise ArtefactError(f"{folder} is a file, not a folder; choose another place to write to.")
        if (path / MANIFEST).exists():
            read_manifest(path, kind)
        elif path.is_dir() and any(path.iterdir()):
            raise ArtefactError(f"{folder} holds files that boresight did not write; choose an empty or new folder.")


@contextlib.contextmanager
def writing(path: str | Path, way_out: str = "free space or choose a folder you may write to.") -> Iterator[None]:
    """Turns a failed write into ArtefactError: a full disk, a read-only folder."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # a full disk is the second where safetensors writes
        reason = getattr(error, "strerror", None) or error
        raise ArtefactError(f"Cannot write {path} ({reason}); {way_out}") from error


@contextlib.contextmanager
def replacing_folder(folder: str | Path, kind: str) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place when the block ends without an error.

    Until then whatever stood at `folder` is untouched, so a full disk, a kill or Ctrl-C loses nothing.
    Raises ArtefactError when the place cannot be written or holds anything but an artefact of this kind.
    """
    check_place(folder, kind)
    with writing(folder):
        target = Path(folder).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield staging
            for file in staging.rglob("*"):
                if file.is_file():
                    file.chmod(0o644)  # like `mkdtemp`, safetensors writes for the owner alone
                    sync(file)
            staging.chmod(0o755)
            _take_place(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _take_place(staging: Path, folder: Path) -> None:
    if not folder.exists():
        staging.rename(folder)
        return
    old = staging.with_name(staging.name + ".old")
    folder.rename(old)
    try:
        staging.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def put_back(folder: str | Path) -> None:
    """Mend what a kill in `replacing_folder` left: a folder that stands aside takes its place again, leftovers go.

    Half-written folders go when nothing in them has changed for an hour, since another run may be writing one. For
    places that are boresight's own: what looks like a leftover is not looked into. Raises ArtefactError when the
    place cannot be written.
    """
    target = Path(folder).resolve()
    if not target.parent.is_dir():
        return
    ours = re.compile(rf"\.{re.escape(target.name)}\.[a-z0-9_]{{8}}(\.old)?")
    left = sorted((each for each in target.parent.iterdir() if ours.fullmatch(each.name)), key=_changed, reverse=True)
    with writing(folder):
        for each in left:
            aside = each.name.endswith(".old")
            if aside and not target.exists():
                each.rename(target)
            elif aside or time.time() - _changed(each) > _ABANDONED:
                shutil.rmtree(each, ignore_errors=True)


def _changed(folder: Path) -> float:
    """When the folder or a file in it was last written to; 0 where it is gone meanwhile."""
    times = [0.0]
    for each in (folder, *folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            times.append(each.stat().st_mtime)
    return max(times)


def sync(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to the disk, so that a rename after it never exposes a torn file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def replacing_file(file: Path) -> Iterator[Path]:
    """A temporary name beside `file` that takes its place, forced to the disk, when the block ends without an error."""
    temporary = file.with_name(f".{file.name}.part")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(file)
        sync(file.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def replace_file(file: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises ArtefactError when the folder cannot be written."""
    with writing(file, "choose a folder you may write to."):
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(file) as temporary:
            temporary.write_bytes(data)


def replace_text(file: Path, text: str) -> None:
    """`replace_file` with text, as UTF-8."""
    replace_file(file, text.encode())


def replace_json(file: Path, value: Any) -> None:
    """`replace_file` with json, in the order given."""
    replace_text(file, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_json(file: Path, value: Any) -> None:
    """Indented json in UTF-8, names sorted, so that equal values give equal files."""
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def save_artefact(
    folder: str | Path, kind: str, tensors: Mapping[str, torch.Tensor], manifest: Mapping[str, Any]
) -> None:
    """Write an artefact atomically. `kind`, the format, the version and the fingerprint join the manifest."""
    cpu: dict[str, torch.Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().contiguous()
        # safetensors refuses tensors that share memory, as tied weights do.
        shared = flat.untyped_storage().data_ptr() in storages
        cpu[name] = flat.clone() if shared else flat
        storages.add(cpu[name].untyped_storage().data_ptr())
    with replacing_folder(folder, kind) as staging:
        save_file(cpu, staging / TENSORS)
        stamp = {"kind": kind, "format": FORMAT, "boresight": version("boresight"), "fingerprint": fingerprint(cpu)}
        write_json(staging / MANIFEST, {**manifest, **stamp})


def read_manifest(folder: str | Path, kind: str | None = None) -> dict[str, Any]:
    """The manifest of an artefact, of this kind if one is named.

    Raises ArtefactError when it is missing, torn, of another kind or of another format.
    """
    wanted, folder = kind or "artefact", Path(folder)
    file = folder / MANIFEST
    if not file.is_file():
        raise ArtefactError(f"{folder} is no boresight {wanted}: it has no {MANIFEST}; check the path.")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise ArtefactError(f"{file} cannot be read ({error}); make the {wanted} again.") from error
    present = manifest.get("kind") if isinstance(manifest, dict) else None
    if present is None or (kind is not None and present != kind):
        what = (
            f"an artefact of kind '{present}', not '{wanted}'" if present else "a manifest that boresight did not write"
        )
        raise ArtefactError(f"{folder} holds {what}; give another folder.")
    if manifest.get("format") != FORMAT:
        raise ArtefactError(
            f"{folder} was written in format {manifest.get('format')} and this version reads {FORMAT}; "
            "make it again by the command that wrote it."
        )
    return manifest


@contextlib.contextmanager
def as_said(folder: str | Path, again: str = "fit") -> Iterator[None]:
    """Turns what making an object of a manifest and tensors that do not fit raises into ArtefactError."""
    try:
        yield
    except (KeyError, TypeError, RuntimeError, InputError) as error:
        reason = first_line(error)
        raise ArtefactError(f"{folder} does not hold what its manifest says ({reason}); {again} it again.") from error


def load_artefact(folder: str | Path, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and manifest of an artefact. Raises ArtefactError when torn, altered or of another kind."""
    manifest = read_manifest(folder, kind)
    file = Path(folder) / TENSORS
    if not file.is_file():
        raise ArtefactError(f"{folder} lacks {TENSORS}; make the {kind} again.")
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ArtefactError(f"{file} is torn or no safetensors file ({error}); make the {kind} again.") from error
    if fingerprint(tensors) != manifest.get("fingerprint"):
        raise ArtefactError(f"{file} does not match its manifest; make the {kind} again.")
    return tensors, manifest
