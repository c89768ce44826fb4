"""Opening Hugging Face datasets: parquet files, a folder written by `save_to_disk`, a name on the hub."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError

from boresight.data.collection import Problem
from boresight.data.splits import NO_SPLIT, split_of_name, split_of_path
from boresight.errors import InputError

Parts: TypeAlias = Mapping[str, Dataset] | Dataset
_FAILURES = (OSError, ValueError, KeyError, RuntimeError, pa.ArrowException, DatasetsError)


def open_parquet(files: Sequence[Path], root: Path) -> tuple[dict[str, Dataset], list[Problem]]:
    """Datasets by split, which the first folder below `root` names or else the file's name ('train-00000-of-00003').

    `datasets` keeps an Arrow copy in its cache, memory-mapped, so that pictures are not held in memory.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    problems = []
    for file in files:
        label = os.path.relpath(file, root)
        try:
            pq.read_schema(file)
        except (OSError, pa.ArrowException) as error:
            problems.append(Problem("unreadable file", f"{label}: {_line(error)}"))
            continue
        split = split_of_path(label)
        groups[split_of_name(file.stem) if split == NO_SPLIT else split].append(glob.escape(str(file)))
    if not groups:
        raise InputError(f"No parquet file of {root} can be read, the first: {problems[0].where}; fetch them again.")
    parts = {}
    for split, paths in groups.items():
        try:
            parts[split] = load_dataset("parquet", data_files=paths, split="train")
        except _FAILURES as error:
            cause = error.__cause__ or error
            raise InputError(f"The parquet files of {root} cannot be read together ({_line(cause)}).") from error
    return parts, problems


def open_saved(folder: Path) -> Parts:
    """What `save_to_disk` wrote to `folder`."""
    try:
        return load_from_disk(str(folder))
    except _FAILURES as error:
        raise InputError(f"{folder} is no whole dataset of save_to_disk ({_line(error)}); save it again.") from error


def open_hub(name: str) -> Parts:
    """All splits of a dataset on the hub, or in its cache."""
    try:
        return load_dataset(name)
    except _FAILURES as error:
        raise InputError(
            f"'{name}' is no path here, and no dataset of the hub that can be loaded ({_line(error)}); check the name, "
            "or pass what datasets.load_dataset returns."
        ) from error


def _line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
