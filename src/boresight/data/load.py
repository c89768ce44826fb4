"""`load_collection`: one door to every source of captioned images."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, get_args

from datasets import Dataset, DatasetDict

from boresight.data.assemble import printable
from boresight.data.collection import Collection, Problem
from boresight.data.columns import Columns
from boresight.data.detect import FORMATS, Found, detect
from boresight.data.files import folder_of_images
from boresight.data.formats.coco import read_coco
from boresight.data.formats.huggingface import read_datasets
from boresight.data.formats.karpathy import read_karpathy
from boresight.data.formats.opening import open_hub, open_parquet, open_saved
from boresight.data.formats.tables import read_tables
from boresight.data.formats.tar import read_webdataset
from boresight.data.formats.text_files import read_text_files
from boresight.data.images import check_header, decode
from boresight.data.splits import normal_split
from boresight.errors import InputError
from boresight.progress import progress, say

OnError = Literal["skip", "refuse"]
CheckImages = Literal["none", "open", "decode"]
Draft = tuple[Dataset, list[Problem]]


def load_collection(
    source: str | os.PathLike[str] | Dataset | DatasetDict,
    *,
    format: str | None = None,
    images: str | os.PathLike[str] | None = None,
    image_column: str | None = None,
    caption_columns: str | Sequence[str] | None = None,
    id_column: str | None = None,
    split_column: str | None = None,
    split: str | None = None,
    on_error: OnError = "skip",
    check_images: CheckImages = "none",
    name: str | None = None,
) -> Collection:
    """Captioned images from a folder, a captions file, tar shards, parquet, or a Hugging Face dataset.

    Captions lose the white space around them and are otherwise untouched; the order of images and captions is kept.
    Splits 'val', 'valid' and 'dev' become 'validation', others keep their names, and 'all' stands for none. Whatever
    cannot be used (a missing file, an empty caption, an image without captions, a caption for an unknown image, a
    duplicate id, a malformed row) is left out, listed in `problems` and summed up in one printed line.

    Args:
        source: a path, a glob or brace pattern of tar or parquet files, the name of a dataset on the hub, or a
            `datasets.Dataset` or `DatasetDict`.
        format: one of 'jsonl', 'csv', 'tsv', 'coco', 'karpathy', 'webdataset', 'parquet', 'text-files', 'saved' and
            'hub'; found from what is there if None (`detect` says in which order).
        images: the folder of the pictures, where they do not lie beside their captions.
        image_column, caption_columns, id_column, split_column: names of columns or json keys; usual names are found.
        split: only the images of this split.
        on_error: 'skip' leaves bad rows out; 'refuse' raises on the first kind of trouble.
        check_images: beyond the existence of files, 'open' reads every picture's header, 'decode' every pixel.
        name: what to call the collection; the source's own name by default.

    Raises:
        InputError: the source does not exist, is ambiguous, has no such columns, or holds nothing usable; or, under
            'refuse', anything in it cannot be used.
    """
    _one_of("on_error", on_error, get_args(OnError))
    _one_of("check_images", check_images, get_args(CheckImages))
    if format is not None:
        _one_of("format", format, FORMATS)
    if images is not None:
        folder_of_images(images)
    columns = Columns.of(image_column, caption_columns, id_column, split_column)
    if isinstance(source, (Dataset, DatasetDict)):
        label = name or "the dataset"
        dataset, problems = read_datasets(source, columns, name=label, images=images)
    elif isinstance(source, (str, os.PathLike)):
        found = detect(source, format)
        label = name or _name_of(source, found)
        dataset, problems = _read(found, format, columns, label, images)
    else:
        raise InputError(
            f"A collection cannot be read from {type(source).__name__}; pass a path, the name of a dataset, or a "
            "datasets.Dataset that is not streamed."
        )
    problems = [Problem(problem.what, printable(problem.where)) for problem in problems]
    _refuse_or_go_on(problems, on_error, label)
    if check_images != "none" and len(dataset):
        kept, unreadable = _checked(dataset, check_images)
        _refuse_or_go_on(unreadable, on_error, label)
        problems += unreadable
        dataset = dataset if len(kept) == len(dataset) else dataset.select(kept)
    if not len(dataset):
        raise InputError(f"Nothing of {label} can be used: {summary(problems) or 'it holds no rows'}; mend the source.")
    if problems:
        say(f"{label}: skipped {summary(problems)}")
    collection = Collection(dataset, "" if label == "the dataset" else label, tuple(problems))
    return collection if split is None else collection.split(normal_split(split))


def _read(
    found: Found, format: str | None, columns: Columns, name: str, images: str | os.PathLike[str] | None
) -> Draft:
    match found.kind:
        case "jsonl" | "csv" | "tsv":
            folder = found.root if found.is_folder else None
            return read_tables(found.files, columns, kind=found.kind, name=name, images=images, folder=folder)
        case "json":
            file = found.files[0]
            content = _read_json(file)
            is_coco = isinstance(content, dict) and "annotations" in content
            if format == "coco" or (format is None and is_coco):
                columns.check_none_named(f"The COCO json {file.name}")
                return read_coco(content, file, name=name, images=images)
            return read_karpathy(content, file, columns, name=name, images=images)
        case "webdataset":
            return read_webdataset(found.files, columns, name=name, root=found.root)
        case "text-files":
            columns.check_none_named(f"{name} (a text file for each picture)")
            return read_text_files(found.root, name=name)
        case "parquet":
            parts, problems = open_parquet(found.files, found.root)
            bases = [found.root, *dict.fromkeys(file.parent for file in found.files), found.root / "images"]
            dataset, more = read_datasets(parts, columns, name=name, images=images, bases=bases)
            return dataset, problems + more
        case "saved":
            return read_datasets(open_saved(found.root), columns, name=name, images=images)
        case _:
            return read_datasets(open_hub(str(found.root)), columns, name=name, images=images)


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read as json ({error}); mend or fetch it again.") from error


def _checked(dataset: Dataset, how: CheckImages) -> tuple[list[int], list[Problem]]:
    """Rows whose pictures can be read, and a problem for each other one."""
    cells = dataset.select_columns(["id", "image"])
    check = check_header if how == "open" else decode

    def trouble(row: dict[str, Any]) -> str | None:
        try:
            check(row["image"], row["id"])
        except InputError as error:
            return str(error)
        return None

    kept, problems = [], []
    with (
        progress(total=len(dataset), what="checking images", unit="image", delay=1.0) as bar,
        ThreadPoolExecutor() as threads,
    ):
        for start in range(0, len(cells), 64):
            rows = [cells[row] for row in range(start, min(start + 64, len(cells)))]
            for row, wrong in enumerate(threads.map(trouble, rows), start):
                if wrong is None:
                    kept.append(row)
                else:
                    problems.append(Problem("corrupt image", rows[row - start]["id"]))
            bar.update(len(rows))
    return kept, problems


def summary(problems: Sequence[Problem]) -> str:
    """'3 rows: 2 missing files (a.jpg, b.jpg), 1 empty caption (row 17)'; at most three examples of each."""
    by_kind: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        by_kind[problem.what].append(problem.where)
    parts = []
    for what, places in by_kind.items():
        # 'image without captions' has its plural in the middle.
        plural = re.sub(r"^(.*?)(?= without | for |$)", r"\1s", what, count=1)
        examples = ", ".join(places[:3]) + (", ..." if len(places) > 3 else "")
        parts.append(f"{len(places)} {what if len(places) == 1 else plural} ({examples})")
    rows = "row" if len(problems) == 1 else "rows"
    return f"{len(problems)} {rows}: {', '.join(parts)}" if problems else ""


def _refuse_or_go_on(problems: Sequence[Problem], on_error: OnError, label: str) -> None:
    if problems and on_error == "refuse":
        raise InputError(f"{label} has {summary(problems)}; mend them, or pass on_error='skip' to leave them out.")


def _one_of(option: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InputError(f"{option}='{value}' is unknown; choose one of {', '.join(choices)}.")


def _name_of(source: str | os.PathLike[str], found: Found) -> str:
    if found.kind == "hub":
        return os.fspath(source)
    return os.path.basename(os.path.abspath(found.root)) if found.is_folder else Path(source).stem
