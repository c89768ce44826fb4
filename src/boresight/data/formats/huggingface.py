"""Hugging Face datasets: in hand, saved to a folder, from the hub, or made of parquet files."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Image, concatenate_datasets, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError

from boresight.data.assemble import FIXED, CaptionLists, assemble, dataset_of
from boresight.data.columns import Columns, captions_of, column_of
from boresight.data.files import finder, folder_of_images
from boresight.data.formats.tables import row_of
from boresight.data.images import orientation_in
from boresight.data.picture_keys import picture_keys
from boresight.data.problems import Problem, counted
from boresight.data.rows import Join, SourceRow
from boresight.data.splits import normal_split, split_of_file
from boresight.errors import InputError, first_line
from boresight.progress import say

Parts: TypeAlias = Mapping[str, Dataset] | Dataset
_BATCH = 1000
_FAILURES = (OSError, ValueError, KeyError, RuntimeError, pa.ArrowException, DatasetsError)


def read_datasets(
    parts: Parts,
    columns: Columns,
    *,
    name: str,
    images: str | os.PathLike[str] | None = None,
    bases: Sequence[Path] = (Path(),),
) -> tuple[Dataset, list[Problem]]:
    """A dataset, or several by split, as a collection; pictures inside it stay where they are, on disk if they are.

    A split column goes before the name of the part: several sets of the hub hold all splits in one. Ids are the id
    column, else the pictures' paths where these are unique, else split and row number.

    Args:
        images: folder of the pictures, where the image column holds paths.
        bases: where such paths start from otherwise.
    """
    if isinstance(parts, Dataset):
        parts = {"": parts}
    ready = {split: _with_images(part, columns, _label(name, split)) for split, part in parts.items()}
    # Selections keep all cells of what they were made from, so a column is compared with its own length.
    cells = [_cells(part, columns, "bytes") for part in ready.values()]
    if any(column.null_count < len(column) for column in cells):
        return _embedded(ready, columns, name)
    roots = [folder_of_images(images)] if images is not None else list(bases)
    return assemble(_rows(ready, columns, name, roots[0]), finder(roots), name=name)


def load_parquet(files: Sequence[Path], root: Path) -> tuple[dict[str, Dataset], list[Problem]]:
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
            problems.append(Problem("unreadable file", f"{label}: {first_line(error)}"))
            continue
        groups[split_of_file(label)].append(glob.escape(str(file)))
    if not groups:
        raise InputError(f"No parquet file of {root} can be read, the first: {problems[0].where}; fetch them again.")
    parts = {}
    for split, paths in groups.items():
        try:
            parts[split] = load_dataset("parquet", data_files=paths, split="train")
        except _FAILURES as error:
            cause = error.__cause__ or error
            raise InputError(f"The parquet files of {root} cannot be read together ({first_line(cause)}).") from error
    return parts, problems


def load_saved(folder: Path) -> Parts:
    """What `save_to_disk` wrote to `folder`."""
    try:
        return load_from_disk(str(folder))
    except _FAILURES as error:
        raise InputError(
            f"{folder} is no whole dataset of save_to_disk ({first_line(error)}); save it again."
        ) from error


def load_hub(name: str) -> Parts:
    """All splits of a dataset on the hub, or in its cache."""
    try:
        return load_dataset(name)
    except _FAILURES as error:
        raise InputError(
            f"'{name}' is no path here, and no dataset of the hub that can be loaded ({first_line(error)}); check the "
            "name, or pass what datasets.load_dataset returns."
        ) from error


def _label(name: str, split: str) -> str:
    return f"split '{split}' of {name}" if split else name


def _with_images(dataset: Dataset, columns: Columns, label: str) -> Dataset:
    """The same dataset with its image column as bytes and paths, undecoded."""
    columns.check(dataset.column_names, label)
    image = _image(dataset, columns)
    try:
        return dataset.with_format(None).cast_column(image, Image(decode=False))
    except (pa.ArrowException, ValueError, TypeError) as error:
        kind = dataset.features[image]
        raise InputError(
            f"The column '{image}' of {label} holds {kind}, not pictures or their paths; name another as image_column."
        ) from error


def _image(dataset: Dataset, columns: Columns) -> str:
    column = columns.column("image", dataset.column_names)
    assert column is not None  # Columns.check has seen to it
    return column


def _cells(dataset: Dataset, columns: Columns, field: str) -> pa.ChunkedArray:
    return pc.struct_field(dataset.data.column(_image(dataset, columns)), field)


def _rows(parts: Mapping[str, Dataset], columns: Columns, name: str, root: Path) -> Iterator[SourceRow | Problem]:
    for split, part in parts.items():
        image = _image(part, columns)
        for number, values in enumerate(_dictionaries(part)):
            path = (values[image] or {}).get("path")
            values[image] = os.path.relpath(path, root) if path and Path(path).is_relative_to(root) else path
            yield row_of(values, f"row {number} of {_label(name, split)}", columns, above="", split=normal_split(split))


def _dictionaries(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Rows as they are stored, pictures undecoded, with the names of class labels instead of their numbers."""
    labels = {name: feature for name, feature in dataset.features.items() if isinstance(feature, ClassLabel)}
    for batch in dataset.with_format("arrow").iter(_BATCH):
        for values in batch.to_pylist():
            for name, feature in labels.items():
                number = values[name]
                values[name] = feature.names[number] if number is not None and number >= 0 else None
            yield values


def _embedded(parts: Mapping[str, Dataset], columns: Columns, name: str) -> tuple[Dataset, list[Problem]]:
    """The pictures' bytes as they lie there, joined by the columns of a collection; then the first row of each image.

    Rows of one picture, byte for byte, are one image within a split, as `boresight.data.rows.Join` says. Ids tell equal
    pictures apart only where the user named their column, or where a row holds a list of captions: the id of a row
    with one caption may be the caption's.
    """
    # A selection or shuffle is made real first, because columns cannot be joined to it.
    flat = {split: part.flatten_indices() if part._indices is not None else part for split, part in parts.items()}
    first, *others = (part.features for part in flat.values())
    common = [column for column, feature in first.items() if all(other.get(column) == feature for other in others)]
    join, captions = Join(lambda path: path), CaptionLists()
    images = [part.data.column(_image(part, columns)) for part in flat.values()]
    keys = dict(zip(flat, picture_keys(images), strict=True))
    ids = _ids(flat, columns, keys)
    splits: list[str] = []  # of every row
    firsts: list[int] = []  # the first row of each image
    numbers: dict[tuple[str, str], int] = {}  # of each picture's first image, where rows hold lists of captions
    repeated: set[tuple[str, str]] = set()
    pictures = []
    for split, part in flat.items():
        columns.saw(part.column_names)
        image, used = _image(part, columns), columns.captions_in(part.column_names)
        columns.read.update(dict.fromkeys(used))
        own_id, own_split = columns.column("id", part.column_names), columns.column("split", part.column_names)
        extras = [column for column in common if column not in (image, *used, own_id, own_split, *FIXED)]
        picture = part.select_columns([image, *extras])
        pictures.append(picture if image == "image" else picture.rename_column(image, "image"))
        holders = dict.fromkeys(column_of(name, part.column_names) for name in used)
        small = part.select_columns([*holders, *([own_split] if own_split else [])])
        rows = zip(_dictionaries(small), keys[split], ids[split], _paths(part, columns), strict=True)
        for number, (values, key, identity, path) in enumerate(rows):
            where = f"row {number} of {_label(name, split)}"
            splits.append(normal_split((values[own_split] if own_split else None) or split))
            if key is None:
                join.problems.append(Problem("missing file", f"{path or 'no picture'}, {where}"))
                continue
            texts, whole = captions_of(values, used)
            picture_key = (splits[-1], key)
            if own_id is not None and (whole or "id" in columns.named):
                key = f"{key} {identity}"
            row = SourceRow(key, path or "", texts, where, whole, identity, splits[-1], offset=0)
            if joined := join(row):
                at, _, texts = joined
                if at == len(firsts):
                    firsts.append(len(splits) - 1)
                captions.add(firsts[at], texts)
                if whole and numbers.setdefault(picture_key, at) != at:
                    repeated.add(picture_key)
    join.say(name)
    if repeated and "id" not in columns.named:
        say(
            f"{name}: {counted(len(repeated), 'picture')}, the same byte for byte, under several ids are an image for "
            "each id; where an id is a caption's, leave that column out."
        )
    own = pa.array([identity for values in ids.values() for identity in values], pa.string())
    if join.ids_restart:
        own = pc.binary_join_element_wise(pa.array(splits, pa.string()), own, "/")
    table = pa.table({"id": own, "captions": captions.finish(len(splits)), "split": pa.array(splits, pa.string())})
    dataset = _turned(concatenate_datasets([concatenate_datasets(pictures), dataset_of(table)], axis=1))
    dataset = dataset.select_columns([*FIXED, *(column for column in dataset.column_names if column not in FIXED)])
    return dataset if len(firsts) == len(dataset) else dataset.select(firsts), join.problems


def _turned(dataset: Dataset) -> Dataset:
    """With the orientation of its pictures in their cells, where img2dataset kept it in a column `exif`."""
    kept = dataset.with_format("arrow")["exif"][:].to_pylist() if "exif" in dataset.column_names else []
    turns = [orientation_in(exif) for exif in kept]
    if not any(turns):
        return dataset
    table, start, chunks = dataset.data.table, 0, []
    for chunk in table.column("image").chunks:
        turn = pa.array(turns[start : start + len(chunk)], pa.int8())
        fields = [pc.struct_field(chunk, "bytes"), pc.struct_field(chunk, "path"), turn]
        chunks.append(pa.StructArray.from_arrays(fields, ["bytes", "path", "orientation"], mask=chunk.is_null()))
        start += len(chunk)
    return dataset_of(table.set_column(table.column_names.index("image"), "image", pa.chunked_array(chunks)))


def _paths(part: Dataset, columns: Columns) -> list[str | None]:
    return _cells(part, columns, "path").to_pylist()


def _ids(
    parts: Mapping[str, Dataset], columns: Columns, keys: Mapping[str, Sequence[str | None]]
) -> dict[str, list[str]]:
    paths = {split: _paths(part, columns) for split, part in parts.items()}
    pairs = {pair for split, values in paths.items() for pair in zip(values, keys[split], strict=True)}
    named, pictures = ({pair[side] for pair in pairs} for side in (0, 1))
    one_to_one = len(named) == len(pictures) == len(pairs) and not named & {None, ""}
    ids = {}
    for split, part in parts.items():
        column = columns.column("id", part.column_names)
        numbered = [f"{normal_split(split)}/{row}" for row in range(len(part))]
        others = [path or "" for path in paths[split]] if one_to_one else numbered
        given = others if column is None else part.with_format("arrow")[column][:].to_pylist()
        ids[split] = [other if one in (None, "") else str(one) for one, other in zip(given, others, strict=True)]
    return ids
