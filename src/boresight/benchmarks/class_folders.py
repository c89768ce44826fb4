"""Zero-shot classification of a folder with a folder of pictures for each class, ImageNet's layout."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boresight.benchmarks.job import BenchmarkJob, BenchmarkResult, left_out, long_captions, stamp
from boresight.benchmarks.record import PLAIN
from boresight.data.assemble import Table
from boresight.data.collection import Collection
from boresight.data.columns import listed
from boresight.data.files import walk
from boresight.data.images import is_picture
from boresight.data.problems import Problem, is_unicode, printable, summary
from boresight.data.splits import FOLDERS
from boresight.errors import InputError
from boresight.evaluation.zero_shot import TEMPLATES, evaluate_zero_shot
from boresight.progress import say

_DIGITS = re.compile(r"(\d+)")
_WORDNET = re.compile(r"n\d{8}")
_IN_FRONT = re.compile(r"^(?:n\d{8}|\d+)[-._ ]+(?=.)")  # of 'n02085620-Chihuahua' and '001.Black_footed_Albatross'
_KEYED = re.compile(r"([^\s,:]+)[\s,:]+(.+)")
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


def read_class_folders(folder: str | Path, names: Sequence[str] | str | Path | None = None) -> LabelledImages:
    """`<folder>/<class>/**/*.jpg`, the layout of torchvision's ImageFolder: classes are the folders in sorted order.

    Folders named by whole numbers are in the order of these numbers.

    Args:
        names: what to call the classes, or a file with one a line: a must where folders are called n01440764. Where
            each folder's name has digits and begins a line ('n01440764 tench', as in ImageNet's own list), it is called
            by the rest of that line, and lines of no folder are of no concern; else names are in the order of the
            folders. Left out, the folders' names with spaces for underscores; where each has a number of its own in
            front ('001.Albatross'), without it.

    A class folder without pictures stays a class that can be mistaken for the true one. Files that are no pictures of a
    class are named in `pictures.problems`.
    Raises InputError when there is no folder, no picture, another number of names than of folders, an empty name or
    none where it is a must, an order of names that is not clear, or when the folders are splits.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"There is no folder {folder}; pass the one that holds a folder for each class.")
    folders = sorted(below.name for below in root.iterdir() if below.is_dir() and not below.name.startswith("."))
    if all(name.isdecimal() for name in folders):
        folders.sort(key=int)
    if folders and {name.lower() for name in folders} <= FOLDERS:
        raise InputError(f"The folders of {folder} are splits, {listed(folders)}; pass one of them.")
    classes = _own_names(folders, root) if names is None else _given_names(folders, names, root)
    loose = sorted(file.name for file in root.iterdir() if is_picture(file.name) and not file.is_dir())
    problems = [Problem("picture outside of the class folders", printable(name)) for name in loose]
    table, labels = Table(), []
    for label, name in enumerate(folders):
        below: list[Problem] = []
        files = []
        for file in walk(root / name, below):
            where = os.path.relpath(file, root / name)
            if not is_picture(file):
                below.append(Problem("other file", where))
            elif not is_unicode(file):
                below.append(Problem("file name that is not Unicode", where))
            else:
                files.append(file)
        problems += [] if files else [Problem(EMPTY_CLASS, printable(name))]
        problems += [Problem(one.what, printable(f"{name}/{one.where}")) for one in below]
        for file in files:
            table.add_image(os.path.relpath(file, root), {"bytes": None, "path": file}, "all", {})
        labels += [label] * len(files)
    if not labels:
        raise InputError(f"{folder} holds no folder with pictures; pass the one that holds a folder for each class.")
    if problems:
        say(f"{root.name}: {summary(problems)}")
    return LabelledImages(Collection(table.finish(), root.name, tuple(problems)), np.array(labels, np.int64), classes)


def _own_names(folders: Sequence[str], root: Path) -> list[str]:
    """Names of classes from those of their folders."""
    bare = [name for name in folders if _WORDNET.fullmatch(name)]
    if bare:
        raise InputError(
            f"{len(bare)} of the {len(folders)} class folders of {root} are called by numbers of WordNet "
            f"({listed(bare[:3])}), which are no words; pass classes, a file with lines like '{bare[0]} tench'."
        )
    numbers = [match[0] for match in map(_IN_FRONT.match, folders) if match]
    # A number in front of some folders alone, or of several the same, is part of the name: the aircraft 707-320.
    numbered = len(set(numbers)) == sum(not name.isdecimal() for name in folders)
    return [(_IN_FRONT.sub("", name) if numbered else name).replace("_", " ") for name in folders]


def _given_names(folders: Sequence[str], names: Sequence[str] | str | Path, root: Path) -> list[str]:
    """Names of classes from a list, or from the lines of a file."""
    source = names if isinstance(names, (str, Path)) else "the list of classes"
    lines = _lines_of(names) if isinstance(names, (str, Path)) else [name.strip() for name in names]
    if "" in lines:
        raise InputError(f"Name {lines.index('') + 1} in {source} is empty; every class needs one.")
    begun = {match[1]: match[2] for match in map(_KEYED.fullmatch, lines) if match}
    # A folder whose name is words may begin the longer name of its class.
    if all(_DIGITS.search(name) for name in folders) and begun.keys() >= set(folders):
        return [begun[name] for name in folders]
    if len(lines) != len(folders):
        raise InputError(f"There are {len(lines)} names for the {len(folders)} class folders of {root}.")
    in_order = sorted(folders, key=_with_numbers)
    if in_order != folders:
        raise InputError(
            f"The order of the class folders of {root} is not clear, {listed(folders[:3])} or {listed(in_order[:3])}; "
            f"write the name of its folder before each class in {source}, as in '{folders[0]} {lines[0]}'."
        )
    pairs = [f"'{name}' is '{line}'" for name, line in zip(folders[:3], lines, strict=False)]
    say(f"{root.name}: class folder {', '.join(pairs)}{', ...' if folders[3:] else ''}.")
    return lines


def _with_numbers(name: str) -> list[int | str]:
    """To sort by: 'c2' before 'c10'."""
    return [int(part) if part.isdecimal() else part for part in _DIGITS.split(name)]


def read_lines(file: str | Path) -> list[str]:
    """The lines of a file that are not blank, without the space around them: templates.

    Raises InputError when it cannot be read as UTF-8 or holds none.
    """
    return [line for line in _lines_of(file) if line]


def _lines_of(file: str | Path) -> list[str]:
    """The lines of a file, blank ones at its end aside, without the space around them; raises as `read_lines`.

    A file of json is a list of them.
    """
    try:
        text = Path(file).read_text(encoding="utf-8-sig").rstrip()
        lines = json.loads(text) if Path(file).suffix.lower() == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}); pass a text file with one entry a line.") from error
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        of = f" but an object with {listed(sorted(lines))}" if isinstance(lines, dict) else ""
        raise InputError(f"{file} is no list of strings{of}; write those that are wanted to a file of their own.")
    if not lines:
        raise InputError(f"{file} is empty; write one entry a line.")
    return [line.strip() for line in lines]


def run_class_folders(job: BenchmarkJob) -> BenchmarkResult:
    """Top-1, top-5 and the mean over classes."""
    labelled = read_class_folders(job.folder, job.classes)
    templates = TEMPLATES if job.templates is None else read_lines(job.templates)
    pictures, labels, classes = labelled.pictures, labelled.labels, labelled.classes
    results = evaluate_zero_shot(job.encoder, pictures, labels, classes, templates, job.editor, workers=job.workers)
    scores = {way: result.values for way, result in results.items()}
    plain = results[PLAIN]
    empty = [problem.where for problem in plain.problems if problem.what == EMPTY_CLASS]
    facts = {
        **long_captions(plain.counts.get("cut captions", 0)),
        "images": f"{plain.counts['images']:,}",
        "classes": f"{len(classes):,}{f', without pictures: {listed(empty)}' if empty else ''}",
        "templates": f"{len(templates)}{'' if job.templates is None else f', of {job.templates.name}'}",
        **left_out([problem for problem in plain.problems if problem.what != EMPTY_CLASS]),
    }
    data = stamp([classes, labels.tolist(), pictures.ids])
    return BenchmarkResult(scores=scores, charts=("top-1",), data=data, facts=facts)
