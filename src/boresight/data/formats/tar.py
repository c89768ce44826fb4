"""WebDataset shards: tar files whose members share a key, `000017.jpg` with `000017.txt` or `000017.json`.

Only the headers and the texts are read; a picture is stored as its place in the tar file and read when asked for.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any, BinaryIO

from datasets import Dataset

from boresight.data.assemble import Row, assemble
from boresight.data.collection import Problem
from boresight.data.columns import Columns, texts_in
from boresight.data.formats.text_files import lines_of
from boresight.data.images import is_picture
from boresight.data.splits import NO_SPLIT, normal_split, split_of_name, split_of_path
from boresight.errors import InputError
from boresight.progress import progress

_BLOCK = 512
_TEXTS = ("txt", "caption", "captions")


def expand(pattern: str) -> list[Path]:
    """The files that a glob and brace pattern means: 'shards/{00000..00012}.tar', 'train-*.tar', '{a,b}.tar'."""
    files: list[Path] = []
    for one in braced(pattern):
        found = sorted(glob(one, recursive=True))
        files += [Path(file) for file in found] if found or re.search(r"[*?\[]", one) else [Path(one)]
    return files


def braced(pattern: str) -> list[str]:
    """What the braces of a pattern stand for; nothing else in it has a meaning."""
    brace = re.search(r"\{([^{}]*)\}", pattern)
    if brace is None:
        return [pattern]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", brace[1])
    if span:
        low, high = int(span[1]), int(span[2])
        width = len(span[1]) if span[1].startswith("0") or len(span[1]) == len(span[2]) else 0
        choices = [f"{number:0{width}d}" for number in range(low, high + 1)]
    else:
        choices = brace[1].split(",")
    return [whole for one in choices for whole in braced(pattern[: brace.start()] + one + pattern[brace.end() :])]


def read_webdataset(
    shards: Sequence[Path], columns: Columns, *, name: str, root: Path | None = None
) -> tuple[Dataset, list[Problem]]:
    """Tar shards as a collection. An id is the shard's path below `root`, without '.tar', and the key within it.

    Captions come from the caption columns among the json's keys where the user named them; else from a list in the
    json's `captions`; else from the lines of the text file; else from the json's caption. The split is the json's,
    else that of the shard's folder or name. Of a truncated shard, what is whole is kept.
    """
    if root is None:
        root = Path(os.path.commonpath([os.path.abspath(shard.parent) for shard in shards]))

    def rows() -> Iterator[Row | Problem]:
        seen: set[str] = set()
        for shard in progress(shards, what="scanning shards", unit="shard", delay=1.0):
            label = os.path.relpath(os.path.abspath(shard), root)
            try:
                with open(shard, "rb"):
                    pass
            except FileNotFoundError:
                yield Problem("missing shard", label)
            except OSError as error:
                yield Problem("unreadable shard", f"{label}: {error.strerror}")
            else:
                yield from _rows_of_shard(os.path.abspath(shard), label, columns, seen)
        if seen:
            columns.check_named(sorted(seen), name)

    return assemble(rows(), lambda file: file, name=name)


def _rows_of_shard(shard: str, label: str, columns: Columns, seen: set[str]) -> Iterator[Row | Problem]:
    """The samples of a shard; adds the names of their members and json keys to `seen`."""
    split = split_of_path(label)
    split = split_of_name(Path(label).stem) if split == NO_SPLIT else split
    members, damage, broken = _scan(shard)
    if damage is not None:
        yield Problem("truncated shard", f"{label}: {damage}")
    samples: dict[str, dict[str, tarfile.TarInfo]] = {}
    for member in members:
        key, suffix = key_and_suffix(member.name)
        parts = samples.setdefault(key, {})
        if suffix in parts:
            yield Problem("duplicate id", f"{member.name} in {label}")
        else:
            parts[suffix] = member
    with open(shard, "rb") as handle:
        for key, parts in samples.items():
            row = _row(_Sample(handle, shard, label, key, parts), columns, split, seen)
            # A sample that the damage left incomplete is named by it already.
            if key != broken or (isinstance(row, Row) and row.captions):
                yield row


def _scan(shard: str) -> tuple[list[tarfile.TarInfo], str | None, str | None]:
    """The whole files of a tar, what is wrong with it if anything, and the key of the sample that suffers from it."""
    with open(shard, "rb") as handle:
        start = handle.read(6)
        if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
            raise InputError(
                f"{shard} is compressed, so its pictures cannot be read in place; unpack it to a plain tar."
            )
        size = handle.seek(0, os.SEEK_END)
        members: list[tarfile.TarInfo] = []
        last = "the beginning"
        try:
            with tarfile.open(shard, "r:") as tar:
                while (member := tar.next()) is not None:
                    last = member.name
                    if member.isfile() and not member.issparse():
                        if member.offset_data + member.size > size:
                            return members, f"{last} is cut off", key_and_suffix(member.name)[0]
                        members.append(member)
                # `tarfile` ends silently at a damaged header; a whole tar ends with blocks of zeros.
                handle.seek(tar.offset)
                if handle.read(_BLOCK) == bytes(_BLOCK):
                    return members, None, None
                damage = f"it is cut off or damaged after {last}"
        except tarfile.TarError as error:
            damage = f"after {last}: {error}"
    return members, damage, key_and_suffix(members[-1].name)[0] if members else None


def key_and_suffix(member: str) -> tuple[str, str]:
    """('train/000017', 'seg.png') of 'train/000017.seg.png', as WebDataset splits names."""
    folder, name = os.path.split(os.path.normpath(member))
    stem, _, suffix = name.partition(".")
    return os.path.join(folder, stem), suffix.lower()


@dataclass(frozen=True)
class _Sample:
    handle: BinaryIO
    shard: str
    label: str
    key: str
    parts: Mapping[str, tarfile.TarInfo]

    def read(self, suffix: str) -> bytes:
        self.handle.seek(self.parts[suffix].offset_data)
        return self.handle.read(self.parts[suffix].size)


def _row(sample: _Sample, columns: Columns, split: str, seen: set[str]) -> Row | Problem:
    where = f"{sample.key} in {sample.label}"
    info: dict[str, Any] = {}
    if "json" in sample.parts:
        try:
            content = json.loads(sample.read("json"))
        except (ValueError, RecursionError) as error:
            return Problem("malformed row", f"{where}: no json ({error})")
        info = content if isinstance(content, dict) else {}
    seen.update(sample.parts, info)
    picture = _picture(sample.parts, columns)
    captions = _captions(sample, info, columns)
    if picture is None:
        return Problem("caption for an unknown image" if captions else "malformed row", f"{where} has no picture")
    identity = info.get(columns.id[0]) if "id" in columns.named else None
    used = columns.captions_in(info)
    own = columns.split_in([name for name, value in info.items() if value])
    path = f"{os.path.splitext(sample.label)[0]}/{sample.key}"
    return Row(
        key=path,
        path=sample.shard,
        captions=captions,
        where=where,
        id=None if identity is None else str(identity),
        split=split if own is None else normal_split(info[own]),
        offset=sample.parts[picture].offset_data,
        size=sample.parts[picture].size,
        extras={name: value for name, value in info.items() if name not in used and name != own},
    )


def _picture(parts: Mapping[str, tarfile.TarInfo], columns: Columns) -> str | None:
    if "image" in columns.named:
        return next((suffix for suffix in columns.image if suffix in parts), None)
    pictures = [suffix for suffix in parts if is_picture(f".{suffix}")]
    return min(pictures, key=lambda suffix: suffix.count("."), default=None)


def _captions(sample: _Sample, info: Mapping[str, Any], columns: Columns) -> list[Any]:
    if "captions" in columns.named:
        cells = [info[name] if name in info else _lines(sample, (name,)) for name in columns.captions]
        return [text for cell in cells for text in texts_in(cell)]
    cells = [info[name] for name in columns.captions_in(info)]
    if any(isinstance(cell, list) for cell in cells) or len(cells) > 1:
        return texts_in([cell for cell in cells if cell is not None])
    return _lines(sample, _TEXTS) or texts_in(cells)


def _lines(sample: _Sample, suffixes: Sequence[str]) -> list[str]:
    suffix = next((one for one in suffixes if one in sample.parts), None)
    return [] if suffix is None else lines_of(sample.read(suffix)) or [""]
