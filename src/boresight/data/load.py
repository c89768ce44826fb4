"""`load_collection`: one door to every source of captioned images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, get_args

from datasets import Dataset, DatasetDict

from boresight.data.collection import Collection
from boresight.data.columns import Columns, listed
from boresight.data.detect import FORMATS, Source, detect
from boresight.data.files import folder_of_images
from boresight.data.formats.coco import read_jsons
from boresight.data.formats.huggingface import load_hub, load_parquet, load_saved, read_datasets
from boresight.data.formats.pictures import read_pictures
from boresight.data.formats.tables import read_tables
from boresight.data.formats.tar import read_webdataset
from boresight.data.formats.text_files import read_text_files
from boresight.data.images import UnusablePicture, check_header, decode
from boresight.data.problems import Problem, counted, printable, summary
from boresight.data.splits import normal_split
from boresight.errors import InputError, require_choice
from boresight.prefetch import ahead
from boresight.progress import progress, say

OnError = Literal["skip", "refuse"]
CheckImages = bool | Literal["open"]
_TOGETHER = 128  # pictures that a thread checks at a time
Draft = tuple[Dataset, list[Problem]]


def load_collection(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Dataset | DatasetDict,
    *,
    format: str | None = None,
    images: str | os.PathLike[str] | None = None,
    image_column: str | None = None,
    caption_columns: str | Sequence[str] | None = None,
    id_column: str | None = None,
    split_column: str | None = None,
    split: str | None = None,
    on_error: OnError = "skip",
    check_images: CheckImages = False,
    name: str | None = None,
) -> Collection:
    """Captioned images from a folder, a captions file, tar shards, parquet, or a Hugging Face dataset.

    Captions lose the white space around them and are otherwise untouched; the order of images and captions is kept.
    Splits 'val', 'valid' and 'dev' become 'validation', others keep their names, and 'all' stands for none. Whatever
    cannot be used (a missing file, an empty caption, an image without captions, a caption for an unknown image, a
    duplicate id, a malformed row) is left out, listed in `problems` and summed up in one printed line.

    Example:
        photos = bs.load_collection("photos/")  # pictures with captions.jsonl, metadata.csv, a .txt each, ...
        coco = bs.load_collection("annotations/captions_val2017.json", images="val2017")
        flickr = bs.load_collection("nlphuji/flickr30k", split="test")  # a dataset of the hub

    Relations:
        `boresight.benchmarks` reads published benchmarks as they are published, and checks their counts: use it
        instead where figures are to be compared with a paper's. `train_validation_test` splits what has no splits.

    Args:
        source: a path, a glob or brace pattern of tar or parquet files, the name of a dataset on the hub, a
            `datasets.Dataset` or `DatasetDict`, or a list of files of pictures. Pictures alone, in a folder or a list,
            have no captions: they can be embedded; editors and figures of retrieval need captions.
        format: one of 'jsonl', 'csv', 'tsv', 'token', 'coco', 'karpathy', 'webdataset', 'parquet', 'text-files',
            'pictures', 'saved' and 'hub'; found from what is there if None (`detect` says in which order).
        images: the folder of the pictures, where they do not lie beside their captions.
        image_column, caption_columns, id_column, split_column: names of columns or json keys; usual names are found.
        split: only the images of this split.
        on_error: 'skip' leaves bad rows out; 'refuse' raises on the first kind of trouble.
        check_images: beyond looking whether files are there, 'open' reads the header of every picture, which is quick
            and finds files that are none; True decodes every pixel, which finds everything.
        name: what to call the collection; the source's own name by default.

    Raises:
        InputError: the source does not exist, is ambiguous, has no such columns, or holds nothing usable; or, under
            'refuse', anything in it cannot be used.
    """
    require_choice("on_error", on_error, get_args(OnError))
    if not isinstance(check_images, bool):
        require_choice("check_images", check_images, ("open",))
    if format is not None:
        require_choice("format", format, FORMATS)
    if images is not None:
        folder_of_images(images)
    columns = Columns.of(image=image_column, captions=caption_columns, id=id_column, split=split_column)
    if isinstance(source, (Dataset, DatasetDict)):
        label = name or "the dataset"
        dataset, problems = read_datasets(source, columns, name=label, images=images)
    elif isinstance(source, (str, os.PathLike)):
        detected = detect(source, format)
        label = name or _name_of(source, detected)
        dataset, problems = _read(detected, format, columns, label, images)
        problems = [*(detected.listing.problems if detected.listing else ()), *problems]
    elif _are_files(source):
        label = name or "the pictures"
        dataset, problems = read_pictures(source)
    else:
        raise InputError(
            f"A collection cannot be read from {type(source).__name__}; pass a path, the name of a dataset, or a "
            "datasets.Dataset that is not streamed."
        )
    problems = [Problem(problem.what, printable(problem.where)) for problem in problems]
    _refuse_or_go_on(problems, on_error, label)
    if check_images and len(dataset):
        kept, unreadable = _checked(dataset, check_images)
        _refuse_or_go_on(unreadable, on_error, label)
        problems += unreadable
        dataset = dataset if len(kept) == len(dataset) else dataset.select(kept)
    if not len(dataset):
        raise InputError(f"Nothing of {label} can be used: {summary(problems) or 'it holds no rows'}; mend the source.")
    collection = Collection(dataset, "" if label in ("the dataset", "the pictures") else label, tuple(problems))
    captions = counted(int(collection.counts.sum()), "caption")
    say(f"{label}: {counted(len(collection), 'image')}, {captions}{_from(columns)}.")
    if problems:
        say(f"{label}: skipped {summary(problems)}")
    return collection if split is None else collection.split(normal_split(split))


def _read(
    source: Source, format: str | None, columns: Columns, name: str, images: str | os.PathLike[str] | None
) -> Draft:
    match source.kind:
        case "jsonl" | "csv" | "tsv" | "token" as kind:
            return read_tables(source.files, columns, kind=kind, name=name, images=images, listing=source.listing)
        case "json":
            listing = source.listing
            return read_jsons(source.files, columns, format=format, name=name, images=images, listing=listing)
        case "webdataset":
            return read_webdataset(source.files, columns, name=name, root=source.root)
        case "text-files":
            assert source.listing is not None  # only a folder is read so
            return read_text_files(source.listing, columns, name=name)
        case "pictures":
            columns.check_none_named(f"{name} (pictures alone)")
            need = "editors and figures of retrieval need captions"
            say(f"{name} holds pictures and no captions: they can be embedded; {need}.")
            return read_pictures(source.files, root=source.root)
        case "parquet":
            parts, problems = load_parquet(source.files, source.root)
            bases = [source.root, *dict.fromkeys(file.parent for file in source.files), source.root / "images"]
            dataset, more = read_datasets(parts, columns, name=name, images=images, bases=bases)
            return dataset, problems + more
        case "saved":
            return read_datasets(load_saved(source.root), columns, name=name, images=images)
        case _:
            return read_datasets(load_hub(str(source.root)), columns, name=name, images=images)


def _are_files(source: object) -> bool:
    files = isinstance(source, list | tuple) and all(isinstance(one, str | os.PathLike) for one in source)
    return files and len(source) > 0  # type: ignore[arg-type]


def _checked(dataset: Dataset, how: CheckImages) -> tuple[list[int], list[Problem]]:
    """Rows whose pictures can be read, and a problem for each other one."""
    cells = dataset.select_columns(["id", "image"])
    look = check_header if how == "open" else decode

    def problems(start: int) -> list[Problem | None]:
        some = cells[start : start + _TOGETHER]
        return [problem(identity, cell) for identity, cell in zip(some["id"], some["image"], strict=True)]

    def problem(identity: str, cell: Mapping[str, Any]) -> Problem | None:
        try:
            look(cell, f"'{identity}'")
        except UnusablePicture as error:
            return Problem("unusable image", str(error))
        except InputError:
            return Problem("corrupt image", identity)
        return None

    found: list[Problem | None] = []
    starts, workers = range(0, len(cells), _TOGETHER), min(32, (os.cpu_count() or 1) + 4)
    with (
        closing(ahead(problems, starts, workers=workers, depth=2 * workers)) as blocks,
        progress(total=len(cells), what="checking images", unit="image", delay=1.0) as bar,
    ):
        for block in blocks:
            found += block
            bar.update(len(block))
    return [row for row, one in enumerate(found) if one is None], [one for one in found if one is not None]


def _refuse_or_go_on(problems: Sequence[Problem], on_error: OnError, label: str) -> None:
    if problems and on_error == "refuse":
        raise InputError(f"{label} has {summary(problems)}; mend them, or pass on_error='skip' to leave them out.")


def _from(columns: Columns) -> str:
    """Where captions were read from, for a sentence, and what was left unread."""
    if not columns.read:
        return ""
    unread = columns.unread()
    others = f"; to read {_some(unread)} too, pass caption_columns" if unread else ""
    return f", from {'columns' if len(columns.read) > 1 else 'the column'} {_some(list(columns.read))}{others}"


def _some(names: Sequence[str]) -> str:
    return listed(names[:6]) + (f" and {len(names) - 6} more" if names[6:] else "")


def _name_of(path: str | os.PathLike[str], source: Source) -> str:
    if source.kind == "hub":
        return os.fspath(path)
    return os.path.basename(os.path.abspath(source.root)) if source.is_folder else Path(path).stem
