"""Winoground (arXiv 2204.03162): 400 examples of two pictures and two captions of the same words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image

from boresight.benchmarks.contrast_sets import gather_items, required_text
from boresight.benchmarks.files import PublishedFiles
from boresight.benchmarks.job import BenchmarkJob, BenchmarkResult, count_facts
from boresight.benchmarks.record import PLAIN
from boresight.data.files import finder
from boresight.data.formats.huggingface import load_parquet
from boresight.data.images import decode
from boresight.data.problems import Problem
from boresight.errors import InputError
from boresight.evaluation.composition import evaluate_winoground
from boresight.evaluation.contrasts import Contrast, Contrasts, Picture

SOURCE = "https://huggingface.co/datasets/facebook/winoground (gated: accept its terms first)"
_COLUMNS = ("image_0", "image_1", "caption_0", "caption_1")
_Example = tuple[str, tuple[str, ...], list[Picture | Problem]]
"""An example's number, its two captions, its two pictures."""


def read_winoground(folder: str | Path) -> Contrasts:
    """Winoground; every example is two items in a group of its own, one a picture, both with the same two captions.

    `folder`, its `data/` or its `default/test/` holds parquet files with the pictures in them, or one of the first two
    `examples.jsonl` with `images/<name>.png` beside it (image_0, image_1, caption_0, caption_1). An example one of
    whose pictures is not there is left out and named.
    Raises InputError when the files are missing or torn, a row lacks something, or no picture is there.

    Example:
        evaluate_winoground(encoder, read_winoground("winoground"), editor)
    """
    folders = [Path(folder) / below for below in ("", "data", "default/test")]
    parquet = next((files for each in folders if (files := sorted(each.glob("*.parquet")))), [])
    examples = _from_parquet(parquet, Path(folder)) if parquet else _from_lines(Path(folder))

    def items() -> Iterator[Contrast | Problem]:
        for group, captions, pictures in examples:
            missing = [picture for picture in pictures if isinstance(picture, Problem)]
            if missing:
                yield missing[0]
                continue
            for true, picture in enumerate(pictures):
                assert isinstance(picture, Picture)
                yield Contrast(picture, captions, true, group)

    return gather_items(items(), "Winoground", "unpack images.zip beside examples.jsonl", published=800)


def run_winoground(job: BenchmarkJob) -> BenchmarkResult:
    """Text, image and group score."""
    items = read_winoground(job.folder)
    results = evaluate_winoground(job.encoder, items, job.editor, workers=job.workers)
    scores = {way: result.values for way, result in results.items()}
    facts = count_facts(results[PLAIN], "examples", items.published and items.published // 2)
    return BenchmarkResult(scores=scores, charts=("group",), facts=facts)


def _from_lines(folder: Path) -> Iterator[_Example]:
    files = PublishedFiles(folder, "Winoground", SOURCE)
    file = files.find("examples.jsonl", "data/examples.jsonl", "default/test/*.parquet")
    find = finder([base / below for base in dict.fromkeys((file.parent, folder)) for below in ("images", "")])
    for number, (where, row) in enumerate(files.json_lines(file)):
        pictures: list[Picture | Problem] = []
        for name in (required_text(row, "image_0", where), required_text(row, "image_1", where)):
            path = find(f"{name}.png") or find(name)
            pictures.append(Problem("missing file", f"images/{name}.png") if path is None else Picture(name, path))
        captions = (required_text(row, "caption_0", where), required_text(row, "caption_1", where))
        yield str(row.get("id", number)), captions, pictures


def _from_parquet(parquet: Sequence[Path], folder: Path) -> Iterator[_Example]:
    parts, problems = load_parquet(parquet, folder)
    if problems:
        raise InputError(f"{folder / problems[0].where}; get it anew from {SOURCE}.")
    for split, part in parts.items():
        lacking = [column for column in _COLUMNS if column not in part.column_names]
        if lacking:
            raise InputError(f"The parquet files of {folder} have no column '{lacking[0]}'; Winoground's have.")
        stored = [
            part.select_columns([column]).cast_column(column, ImageFeature(decode=False)) for column in _COLUMNS[:2]
        ]
        texts = part.select_columns([name for name in ("id", *_COLUMNS[2:]) if name in part.column_names])
        for number, row in enumerate(texts):
            where = f"row {number} of the parquet files of {folder}"
            group = str(row.get("id", number))
            pictures = [
                Picture(f"{split} {group}, {column}", partial(_stored, cells, column, number))
                for column, cells in zip(_COLUMNS[:2], stored, strict=True)
            ]
            captions = (required_text(row, "caption_0", where), required_text(row, "caption_1", where))
            yield group, captions, [*pictures]


def _stored(cells: Dataset, column: str, row: int) -> Image.Image:
    return decode(cells[row][column] or {}, f"row {row} of '{column}'")
