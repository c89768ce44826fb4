"""Pictures with a class each: a folder a class, or a dataset with a class label; and lists of names and templates."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Image

from boresight.data.assemble import CAPTIONS_TYPE, Table, dataset_of
from boresight.data.collection import Collection
from boresight.data.columns import listed
from boresight.data.files import walk_pictures
from boresight.data.problems import Problem, is_unicode, printable, summary
from boresight.data.splits import FOLDERS
from boresight.errors import InputError
from boresight.progress import say

EMPTY_CLASS = "class without pictures"  # it stays a class; nothing is left out


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """N pictures of C classes.

    Attributes:
        pictures: N images without captions.
        labels: (N,) int64 in [0, C), the class of each.
        classes: C names as they are put into a sentence.
    """

    pictures: Collection
    labels: np.ndarray
    classes: list[str]

    def __len__(self) -> int:
        return len(self.labels)


def read_class_folders(folder: str | Path, names: Sequence[str] | str | Path | None = None) -> LabelledImages:
    """`<folder>/<class>/**/*.jpg`, the layout of torchvision's ImageFolder: classes are the folders in sorted order.

    Args:
        names: what to call the classes, in that order, or a file with one a line (`read_lines`): a must where folders
            are called n01440764. Left out, the folders' names with spaces for underscores.

    A class folder without pictures stays a class that can be mistaken for the true one.
    Raises InputError when there is no folder, no picture, another number of names than of folders, or when the
    folders are splits.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"There is no folder {folder}; pass the one that holds a folder for each class.")
    folders = sorted(place.name for place in root.iterdir() if place.is_dir() and not place.name.startswith("."))
    if folders and {name.lower() for name in folders} <= FOLDERS:
        raise InputError(f"The folders of {folder} are splits, {listed(folders)}; pass one of them.")
    classes = [name.replace("_", " ") for name in folders]
    if names is not None:
        classes = read_lines(names) if isinstance(names, (str, Path)) else list(names)
        if len(classes) != len(folders):
            raise InputError(f"There are {len(classes)} names for the {len(folders)} class folders of {folder}.")
    table, labels, problems = Table(), [], []
    for label, name in enumerate(folders):
        found = list(walk_pictures(root / name))
        files, strange = ([file for file in found if is_unicode(file) is readable] for readable in (True, False))
        problems += [] if files else [Problem(EMPTY_CLASS, printable(name))]
        problems += [Problem("file name that is not Unicode", printable(file)) for file in strange]
        for file in files:
            table.add_image(os.path.relpath(file, root), {"bytes": None, "path": file}, "all", {})
        labels += [label] * len(files)
    if not labels:
        raise InputError(f"{folder} holds no folder with pictures; pass the one that holds a folder for each class.")
    if problems:
        say(f"{root.name}: {summary(problems)}")
    return LabelledImages(Collection(table.finish(), root.name, tuple(problems)), np.array(labels, np.int64), classes)


def read_class_dataset(
    dataset: Dataset, *, image_column: str | None = None, label_column: str | None = None, name: str = ""
) -> LabelledImages:
    """One split of a Hugging Face dataset with a column of pictures and one of class labels.

    Pictures stay where they are; rows without a label (-1 or null, as in hidden test sets) are left out and named.
    Raises InputError when there is not exactly one such column and none is named, or no row has a label.
    """
    if not isinstance(dataset, Dataset):
        raise InputError(f"A dataset of one split is needed, not {type(dataset).__name__}; pass dataset['test'].")
    image = _column(dataset, Image, image_column, "image_column")
    label = _column(dataset, ClassLabel, label_column, "label_column")
    classes = [one.replace("_", " ") for one in dataset.features[label].names]
    flat = dataset.flatten_indices() if dataset._indices is not None else dataset
    flat = flat.with_format(None).cast_column(image, Image(decode=False))
    found = flat[label][:]
    n = len(flat)
    columns = {
        "id": pa.array([str(row) for row in range(n)], pa.string()),
        "image": flat.data.column(image),
        "captions": pa.array([[]] * n, CAPTIONS_TYPE),
        "split": pa.array([str(dataset.split or "all")] * n, pa.string()),
    }
    rows = [row for row, number in enumerate(found) if number is not None and number >= 0]
    problems = [Problem("row without a label", str(row)) for row in sorted(set(range(n)) - set(rows))]
    if not rows:
        raise InputError(f"No row of {name or 'the dataset'} has a class in '{label}'; take a split with labels.")
    if problems:
        say(f"{name or 'the dataset'}: left out {summary(problems)}")
    whole = Collection(dataset_of(pa.table(columns)), name, tuple(problems))
    labels = np.array([found[row] for row in rows], np.int64)
    return LabelledImages(whole.select(rows) if problems else whole, labels, classes)


def read_lines(file: str | Path) -> list[str]:
    """The lines of a file that are not blank, without the space around them: class names in order, or templates.

    Raises InputError when it cannot be read as UTF-8 or holds none.
    """
    try:
        lines = [line.strip() for line in Path(file).read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}); pass a text file with one entry a line.") from error
    found = [line for line in lines if line]
    if not found:
        raise InputError(f"{file} is empty; write one entry a line.")
    return found


def _column(dataset: Dataset, kind: type, named: str | None, option: str) -> str:
    present = [name for name, feature in dataset.features.items() if isinstance(feature, kind)]
    if named is None and len(present) == 1:
        return present[0]
    if named in present:
        return str(named)
    what = f"no column '{named}' of {kind.__name__}" if named else f"{len(present)} columns of {kind.__name__}"
    raise InputError(f"The dataset has {what}; name one of {listed(present)} as {option}.")
