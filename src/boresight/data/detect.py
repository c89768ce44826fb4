"""What kind of source a path is."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from boresight.data.files import expand, walk
from boresight.data.formats.tables import holds_text_files
from boresight.data.problems import Problem
from boresight.data.splits import FOLDERS
from boresight.errors import InputError

FORMATS = ("jsonl", "csv", "tsv", "coco", "karpathy", "webdataset", "parquet", "text-files", "saved", "hub")
_SUFFIXES = {kind: kind for kind in ("jsonl", "csv", "tsv", "json", "parquet")}
_SUFFIXES |= {"jsonlines": "jsonl", "ndjson": "jsonl", "tar": "webdataset"}
_STEMS = FOLDERS | {"captions", "metadata"}
_KINDS = {"coco": "json", "karpathy": "json"}


@dataclass(frozen=True)
class Source:
    """A kind of source ('json' is COCO or Karpathy, told apart by content), its files, and the folder above them.

    Attributes:
        problems: what below a folder could not be walked or read, see `boresight.data.files.walk`.
    """

    kind: str
    files: tuple[Path, ...]
    root: Path
    is_folder: bool = False
    problems: tuple[Problem, ...] = ()


def detect(source: str | os.PathLike[str], format: str | None = None) -> Source:
    """What `source` is; with `format`, only that is looked for.

    A file goes by its suffix, a pattern by the suffix of its files. A folder is, in this order: a dataset saved by
    `save_to_disk`; what its one kind of caption files says (`captions`, `metadata` or the name of a split, as jsonl,
    csv or tsv, also in folders named as splits; COCO or Karpathy json; tar shards; parquet); pictures with text
    files. A name that is no path is a dataset of the hub.

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
    if kind is None:
        raise InputError(f"{file} has no suffix that says what it is; pass format, one of {', '.join(FORMATS)}.")
    return kind


def _in_pattern(pattern: str, kind: str | None) -> Source:
    files = tuple(expand(pattern))
    if not files:
        raise InputError(f"No file matches {pattern}; check the pattern.")
    root = Path(os.path.commonpath([file.absolute().parent for file in files]))
    kinds = {kind} if kind else {_kind_of_file(file) for file in files}
    if kinds not in ({"webdataset"}, {"parquet"}):
        raise InputError(f"{pattern} matches files that are not all tar shards or all parquet; narrow the pattern.")
    return Source(kinds.pop(), files, root)


def _in_folder(folder: Path, kind: str | None) -> Source:
    if kind in (None, "saved") and ((folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()):
        return Source("saved", (folder,), folder, True)
    problems: list[Problem] = []
    walked = list(walk(folder, problems))
    readings = {key: files for key, files in _readings(folder, walked).items() if kind in (None, key[0])}
    if len(readings) > 1:
        listed = ", ".join(f"{files[0].relative_to(folder)} ({one})" for (one, _), files in readings.items())
        raise InputError(f"{folder} can be read in several ways: {listed}; pass one of the files, or a format.")
    for (one, _), files in readings.items():
        return Source(one, tuple(files), folder, True, tuple(problems))
    if kind in (None, "text-files") and holds_text_files(walked):
        return Source("text-files", (), folder, True, tuple(problems))
    raise InputError(
        f"{folder} holds no captions{f' as {kind}' if kind else ''}: neither captions.jsonl, metadata.csv or their "
        "like, nor COCO or Karpathy json, tar shards, parquet, or a .txt beside each picture."
    )


def _readings(folder: Path, walked: Sequence[str]) -> dict[tuple[str, str], list[Path]]:
    """The ways to read a folder, by kind and what sets two of one kind apart, each with its files."""
    readings: dict[tuple[str, str], list[Path]] = defaultdict(list)
    files = [Path(file) for file in walked if _suffix(Path(file)) in _SUFFIXES]
    shards = {file.with_suffix("") for file in files if _suffix(file) == "tar"}
    root = Path(os.path.abspath(folder))
    for file in files:
        kind, stem, inside = _SUFFIXES[_suffix(file)], file.stem.lower(), file.parent.relative_to(root)
        at_top = inside == Path()
        if kind == "webdataset" or (kind == "parquet" and file.with_suffix("") not in shards):
            # A parquet file beside a shard of the same name is only the shard's index.
            readings[kind, ""].append(folder / inside / file.name)
        elif kind == "json":
            in_annotations = str(inside) == "annotations" and stem.startswith("captions")
            if in_annotations or (at_top and _looks_like_captions(file)):
                readings[kind, file.name].append(folder / inside / file.name)
        elif kind != "parquet" and (at_top or str(inside).lower() in FOLDERS) and stem in _STEMS:
            what = "split" if stem in FOLDERS else stem
            readings[kind, f"{what} {'at top' if at_top else 'by folder'}"].append(folder / inside / file.name)
    return readings


def _looks_like_captions(file: Path) -> bool:
    with open(file, "rb") as handle:
        head = handle.read(1 << 16)
    return any(key in head for key in (b'"images"', b'"annotations"', b'"image"', b'"caption"'))
