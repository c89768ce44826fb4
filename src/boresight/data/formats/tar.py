"""WebDataset shards: tar files whose members share a key, `000017.jpg` with `000017.txt` or `000017.json`.

As a collection only the headers and the texts are read; a picture is stored as its place in the tar file and read when
asked for. As a stream (`open_stream`, `members`) a shard is read from front to back, from a disk or an address.
"""

from __future__ import annotations

import json
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Self

from boresight.data.assemble import assemble
from boresight.data.columns import Columns
from boresight.data.files import lines_of
from boresight.data.formats.text_files import captions_beside
from boresight.data.images import is_picture, orientation_in
from boresight.data.problems import Problem
from boresight.data.rows import SourceRow
from boresight.data.splits import normal_split, split_of_file
from boresight.errors import InputError, first_line
from boresight.progress import progress

if TYPE_CHECKING:
    from datasets import Dataset

DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, OverflowError, MemoryError)
_Scan = tuple[list[tarfile.TarInfo], str | None, str | None]
FURTHER = "further picture of a sample (its name ends at the first dot)"
AMBIGUOUS = "sample with several pictures (its name ends at the first dot)"
DUPLICATE = "duplicate member"
_TEXTS = ("txt", "caption", "captions")


class _DamagedHeader(tarfile.ReadError):
    pass


class _Member(tarfile.TarInfo):
    """`tarfile` ends in silence at a header that is cut off or damaged; here it raises as for cut contents."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            member = super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the blocks of zeros at its end
            raise
        except tarfile.HeaderError as error:
            if tar.offset == 0:  # at the first header it does not end in silence
                raise
            raise _DamagedHeader(f"cut off or damaged: {error}") from error
        if not 0 <= member.size < 1 << 60:  # no seek reaches there, or it never ends
            raise tarfile.ReadError(f"damaged: {member.name} has a size of {member.size}")
        return member


def open_stream(handle: IO[bytes], shard: str) -> tarfile.TarFile:
    """A tar file, compressed or not, whose reading raises one of DAMAGE where it is damaged, never ends in silence.

    Raises InputError when it is none from the beginning.
    """
    try:
        if handle.seekable():
            return tarfile.open(fileobj=handle, mode="r:*", tarinfo=_Member)
        return tarfile.open(fileobj=handle, mode="r|*", tarinfo=_Member, bufsize=1 << 20)
    except DAMAGE as error:
        # The lines behind the first name each compression tried.
        raise InputError(f"The shard {shard} is no tar file ({first_line(error)}); restore it, then resume.") from error


def members(tar: tarfile.TarFile) -> Iterator[tuple[int, str, str, tarfile.TarInfo]]:
    """The files of a tar, each with the number of its sample, its key and its suffix."""
    index, last = -1, None
    for member in tar:
        if member.isfile() and not is_shadow(member.name):
            key, suffix = key_and_suffix(member.name)
            index, last = index + (key != last), key
            yield index, key, suffix, member


def is_shadow(member: str) -> bool:
    """Whether a member is what tar on macOS writes before each file of a disk ('._a.jpg' before 'a.jpg'): no data."""
    return os.path.basename(member).startswith("._")


def key_and_suffix(member: str) -> tuple[str, str]:
    """('train/000017', 'seg.png') of 'train/000017.seg.png', as WebDataset splits names."""
    folder, name = os.path.split(os.path.normpath(member))
    stem, _, suffix = name.partition(".")
    return os.path.join(folder, stem), suffix.lower()


def picture_in(suffixes: Iterable[str], sample: str, shard: str = "") -> tuple[str | None, list[Problem]]:
    """Which member of a sample is its picture, and a problem for each other picture.

    Of several it is the one without a dot in its suffix: 'png' before 'seg.png'. Where each has one ('v2.png' and
    'v3.png', of dog.v2.png and dog.v3.png), nothing tells to which of them the captions belong, so there is none.
    """
    pictures = sorted((one for one in suffixes if is_picture(f".{one}")), key=lambda suffix: suffix.count("."))
    inside = f" in {shard}" if shard else ""
    if len(pictures) > 1 and "." in pictures[0]:
        some = ",".join(pictures[:3]) + (",..." if pictures[3:] else "")
        return None, [Problem(AMBIGUOUS, f"{sample}.{{{some}}}{inside}")]
    return next(iter(pictures), None), [Problem(FURTHER, f"{sample}.{one}{inside}") for one in pictures[1:]]


def read_webdataset(
    shards: Sequence[Path], columns: Columns, *, name: str, root: Path
) -> tuple[Dataset, list[Problem]]:
    """Tar shards as a collection. An id is the shard's path below `root`, without '.tar', and the key within it.

    Captions come from the caption columns among the json's keys where the user named them; else from a list in the
    json's `captions`; else from the lines of the text file; else from the json's caption. The split is the json's,
    else that of the shard's folder or name. Of a truncated shard, what is whole is kept.
    """

    def rows() -> Iterator[SourceRow | Problem]:
        for shard in progress(shards, what="scanning shards", unit="shard", delay=1.0):
            file = os.path.abspath(shard)
            label = os.path.relpath(file, root)
            try:
                scan = _scan(file)
            except FileNotFoundError:
                yield Problem("missing shard", label)
            except OSError as error:
                yield Problem("unreadable shard", f"{label}: {error.strerror}")
            else:
                yield from _rows_of_shard(file, scan, label, columns)
        columns.check_named(name)

    return assemble(rows(), lambda file: file, name=name)


def _rows_of_shard(shard: str, scan: _Scan, label: str, columns: Columns) -> Iterator[SourceRow | Problem]:
    """The samples of a shard."""
    split, (whole, damage, broken) = split_of_file(label), scan
    if damage is not None:
        yield Problem("truncated shard", f"{label}: {damage}")
    samples: dict[str, dict[str, tarfile.TarInfo]] = {}
    for member in whole:
        key, suffix = key_and_suffix(member.name)
        parts = samples.setdefault(key, {})
        if suffix in parts:
            yield Problem(DUPLICATE, f"{member.name} in {label}")
        else:
            parts[suffix] = member
    with open(shard, "rb") as handle:
        for key, parts in samples.items():
            row, problems = _row(_Sample(handle, shard, label, key, parts), columns, split)
            yield from problems
            # A sample that the damage left incomplete is named by it already.
            if row is not None and (key != broken or (isinstance(row, SourceRow) and row.captions)):
                yield row


def _scan(shard: str) -> _Scan:
    """The whole files of a tar, what is wrong with it if anything, and the key of the sample that suffers from it."""
    with open(shard, "rb") as handle:
        if handle.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
            raise InputError(
                f"{shard} is compressed, so its pictures cannot be read in place; unpack it to a plain tar."
            )
    size, last = os.path.getsize(shard), "the beginning"
    whole: list[tarfile.TarInfo] = []
    try:
        with tarfile.open(shard, "r:", tarinfo=_Member) as tar:
            for member in tar:
                last = member.name
                if member.isfile() and not member.issparse() and not is_shadow(last):
                    if member.offset_data + member.size > size:
                        return whole, f"{last} is cut off", key_and_suffix(last)[0]
                    whole.append(member)
        return whole, None, None
    except _DamagedHeader:
        damage = f"it is cut off or damaged after {last}"
    except tarfile.TarError as error:
        damage = f"after {last}: {error}"
    return whole, damage, key_and_suffix(whole[-1].name)[0] if whole else None


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


def _row(sample: _Sample, columns: Columns, split: str) -> tuple[SourceRow | Problem | None, list[Problem]]:
    """The row of a sample, or what is wrong with it; and what is left out of it, which may be all."""
    where = f"{sample.key} in {sample.label}"
    info: dict[str, Any] = {}
    if "json" in sample.parts:
        try:
            content = json.loads(sample.read("json"))
        except (ValueError, RecursionError) as error:
            return Problem("malformed row", f"{where}: no json ({error})"), []
        info = content if isinstance(content, dict) else {}
    columns.saw([*sample.parts, *info])
    left_out: list[Problem] = []
    if "image" in columns.named:
        picture = columns.column("image", sample.parts)
    else:
        picture, left_out = picture_in(sample.parts, sample.key, sample.label)
    texts = _TEXTS if "captions" not in columns.named else [one for one in columns.captions if one not in info]
    lines = {one: lines_of(sample.read(one)) or [""] for one in texts if one in sample.parts}
    captions, used = captions_beside(info, lines, columns)
    if picture is None:
        what = "caption for an unknown image" if captions else "malformed row"
        return (None, left_out) if left_out else (Problem(what, f"{where} has no picture"), [])
    identity = info.get(columns.id[0]) if "id" in columns.named else None
    own = columns.column("split", [name for name, value in info.items() if value])
    path = f"{os.path.splitext(sample.label)[0]}/{sample.key}"
    row = SourceRow(
        key=path,
        path=sample.shard,
        captions=captions,
        where=where,
        id=None if identity is None else str(identity),
        split=split if own is None else normal_split(info[own]),
        offset=sample.parts[picture].offset_data,
        size=sample.parts[picture].size,
        orientation=orientation_in(info.get("exif")),
        extras={name: value for name, value in info.items() if name not in used and name != own},
    )
    return row, left_out
