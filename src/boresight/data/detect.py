"""What kind of source a path is."""

from __future__ import annotations

import glob
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from boresight.data.files import TEXT_SUFFIXES, Listing, expand
from boresight.data.formats.tables import kind_of_text
from boresight.data.formats.text_files import holds_text_files
from boresight.data.images import is_picture
from boresight.data.problems import counted
from boresight.data.splits import FOLDERS, without_split
from boresight.errors import InputError

FORMATS = (
    "jsonl",
    "csv",
    "tsv",
    "token",
    "coco",
    "karpathy",
    "webdataset",
    "parquet",
    "text-files",
    "pictures",
    "saved",
    "hub",
)
_SUFFIXES = {kind: kind for kind in ("jsonl", "csv", "tsv", "json", "parquet", "token")}
_SUFFIXES |= {"jsonlines": "jsonl", "ndjson": "jsonl", "tar": "webdataset"}
_OTHERS = (
    ".xml",
    ".yaml",
    ".yml",
    ".xls",
    ".xlsx",
    ".ods",
    ".arrow",
    ".pkl",
    ".gz",
    ".bz2",
    ".xz",
    ".zst",
    ".zip",
    ".7z",
)
_MAY_HOLD_CAPTIONS = (*TEXT_SUFFIXES, *(f".{one}" for one in _SUFFIXES), *_OTHERS)
_STEMS = FOLDERS | {"captions", "metadata"}
_KINDS = {"coco": "json", "karpathy": "json"}
_CAPTIONS_KEY = re.compile(rb'"(captions?|texts?|sentences?|descriptions?|raw)"')


@dataclass(frozen=True)
class Source:
    """A kind of source ('json' is told apart further by content), its files, and the folder above them.

    Attributes:
        listing: of the folder, where that is what the user named; None for a dataset saved by `save_to_disk`.
    """

    kind: str
    files: tuple[Path, ...]
    root: Path
    is_folder: bool = False
    listing: Listing | None = None


def detect(source: str | os.PathLike[str], format: str | None = None) -> Source:
    """What `source` is; with `format`, only that is looked for.

    A file goes by its suffix, a text file by its first line, a pattern by the suffix of its files. A folder is, in this
    order: a dataset saved by `save_to_disk`; what its one kind of caption files says (`captions`, `metadata` or the
    name of a split, as jsonl, csv or tsv, also in folders named as splits; json with captions; tar shards; parquet);
    pictures with a text or json beside each; the one table in it or in a folder of it, whatever its name;
    pictures, where no other file could hold captions. A name that is no path is a dataset of the hub.

    Raises InputError when nothing fits, or more than one thing does.
    """
    path = Path(os.path.expanduser(source))
    kind = _KINDS.get(format, format) if format is not None else None
    if kind == "hub":
        return Source("hub", (), path)
    if path.is_dir():
        return _in_folder(path, kind)
    if path.is_file():
        return Source(kind or _kind_of_file(path), (path,), path.parent)
    if re.search(r"[*?\[{]", str(path)):
        return _in_pattern(str(path), kind)
    if format is None and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(source)) and _suffix(path) not in _SUFFIXES:
        return Source("hub", (), path)
    raise InputError(f"{source} does not exist; check the path.")


def _suffix(path: Path) -> str:
    return path.suffix[1:].lower()


def _kind_of_file(file: Path) -> str:
    kind = _SUFFIXES.get(_suffix(file))
    if is_picture(file.name):
        raise InputError(f"{file} is one picture; pass its folder, or a list of pictures' files.")
    if kind is None and _suffix(file) in ("txt", "text"):
        kind = kind_of_text(file)
    if kind is None:
        raise InputError(f"{file} has no suffix that says what it is; pass format, one of {', '.join(FORMATS)}.")
    return kind


def _in_pattern(pattern: str, kind: str | None) -> Source:
    files = tuple(expand(pattern))
    if not files:
        raise InputError(f"No file matches {pattern}; check the pattern.")
    root = Path(os.path.commonpath([file.absolute().parent for file in files]))
    kinds = {kind} if kind else {_kind_of_file(file) for file in files}
    if kinds not in ({"webdataset"}, {"parquet"}, {"json"}):
        raise InputError(
            f"{pattern} matches files that are not all tar shards, all parquet or all json; narrow the pattern."
        )
    return Source(kinds.pop(), files, root)


def _in_folder(folder: Path, kind: str | None) -> Source:
    if kind in (None, "saved") and ((folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()):
        return Source("saved", (folder,), folder, True)
    listing = Listing.of(folder)
    readings = _of_kind(_readings(listing), kind)
    if not readings and kind in (None, "text-files") and holds_text_files(listing):
        return Source("text-files", (), folder, True, listing)
    readings = _one_year(readings or _of_kind(_lone_tables(listing), kind), folder)
    if len(readings) > 1:
        ways = [f"{os.path.relpath(name, listing.folder)} ({one})" for (one, name) in sorted(readings)]
        listed = ", ".join(ways[:3]) + (f" and {len(ways) - 3} more" if ways[3:] else "")
        or_format = ", or a format" if len({one for one, _ in readings}) > 1 else ""
        raise InputError(f"{folder} can be read in several ways: {listed}; pass one of them{or_format}.")
    for (one, _), files in readings.items():
        return Source(one, tuple(Path(file) for file in files), folder, True, listing)
    pictures = sum(is_picture(file) for file in listing.files)
    captions = any(file.lower().endswith(_MAY_HOLD_CAPTIONS) for file in listing.files)
    if kind in (None, "pictures") and pictures and (kind or not captions):
        return Source("pictures", tuple(map(Path, listing.files)), folder, True, listing)
    alone = f"; format='pictures' embeds its {counted(pictures, 'picture')} without any" if pictures else ""
    raise InputError(
        f"{folder} holds no captions{f' as {kind}' if kind else ''}: neither captions.jsonl, metadata.csv or their "
        f"like, nor COCO or Karpathy json, tar shards, parquet, or a .txt beside each picture{alone}."
    )


# From a kind, and a name or pattern below the folder that the user can pass instead, to the files of one reading.
_Readings = dict[tuple[str, str], list[str]]


def _of_kind(readings: _Readings, kind: str | None) -> _Readings:
    return {key: files for key, files in readings.items() if kind in (None, key[0])}


def _readings(listing: Listing) -> _Readings:
    """The ways to read a folder."""
    tables: dict[tuple[str, str, bool], list[str]] = defaultdict(list)
    readings: _Readings = defaultdict(list)
    files = [(file, kind) for file in listing.files if (kind := _SUFFIXES.get(file.rpartition(".")[2].lower()))]
    data = {os.path.splitext(file)[0] for file, kind in files if kind == "webdataset"}
    kinds = {kind for _, kind in files}
    if "parquet" in kinds:  # img2dataset's 00000.parquet is the index of 00000/
        data |= {os.path.dirname(file) for file in listing.files}
    pictures = {file.rpartition(".")[0] for file in listing.beside.pictures} if "json" in kinds else set()
    for file, kind in files:
        path, (above, name) = os.path.splitext(file)[0], os.path.split(file)
        inside, stem = os.path.relpath(above, listing.folder), os.path.basename(path).lower()
        at_top = inside == "."
        if kind == "webdataset" or (kind == "parquet" and path not in data):
            readings[kind, listing.folder].append(file)
        elif kind == "json":
            in_annotations = inside == "annotations" and stem.startswith("captions")
            if in_annotations or (at_top and path not in pictures and _holds_captions(file)):
                readings[kind, os.path.join(above, without_split(name))].append(file)
        elif kind not in ("parquet", "token") and (at_top or inside.lower() in FOLDERS) and stem in _STEMS:
            tables[kind, "split" if stem in FOLDERS else stem, at_top].append(file)
    for (kind, _, _), some in tables.items():
        readings[kind, some[0]] = some
    return readings


def _one_year(readings: _Readings, folder: Path) -> _Readings:
    """Of COCO's captions of 2014 and 2017 those whose pictures are there, where that tells."""

    def is_there(pattern: str) -> bool:
        end = re.split(r"[_\-.]", os.path.splitext(os.path.basename(pattern))[0])[-1]
        return any(glob.glob(os.path.join(glob.escape(str(folder)), base, end)) for base in ("", "images"))

    with_pictures = {key: files for key, files in readings.items() if "*" in key[1] and is_there(key[1])}
    return with_pictures if len(with_pictures) == 1 and {kind for kind, _ in readings} == {"json"} else readings


def _lone_tables(listing: Listing) -> _Readings:
    """Tables by any name, at the top or one folder below: those that name columns, or else any."""
    known: _Readings = {}
    others: _Readings = {}
    for file in listing.files:
        suffix = file.rpartition(".")[2].lower()
        if file.count(os.sep) - listing.folder.count(os.sep) > 2 or ".lemma." in os.path.basename(file):
            continue
        if suffix in ("csv", "tsv", "txt", "token"):
            kind = kind_of_text(Path(file))
            if kind is not None:
                known[kind, file] = [file]
            elif suffix in ("csv", "tsv"):
                others[suffix, file] = [file]
        elif suffix in ("jsonl", "jsonlines", "ndjson"):
            others["jsonl", file] = [file]
        elif suffix == "json" and _names_pictures(file):
            others["json", file] = [file]
    return known or others


def _holds_captions(file: str) -> bool:
    """Whether a json has a key of captions anywhere; it may be long, and its captions at its end."""
    with open(file, "rb") as handle:
        tail = b""
        while block := handle.read(1 << 20):
            if _CAPTIONS_KEY.search(tail + block):
                return True
            tail = block[-32:]
    return False


def _names_pictures(file: str) -> bool:
    """Whether a json begins with an object whose first key is the name of a picture."""
    with open(file, "rb") as handle:
        first = re.match(rb'\s*\{\s*"([^"]+)"\s*:', handle.read(4096))
    return first is not None and is_picture(first[1].decode("utf-8", "replace"))
