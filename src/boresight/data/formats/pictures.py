"""Pictures alone, without captions: a folder of them, or a list of files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from boresight.data.assemble import Table
from boresight.data.images import is_picture
from boresight.data.problems import Problem, is_unicode
from boresight.data.splits import NO_SPLIT, split_of_path

if TYPE_CHECKING:
    from datasets import Dataset


def read_pictures(
    files: Iterable[str | os.PathLike[str]], *, root: Path | None = None
) -> tuple[Dataset, list[Problem]]:
    """One image a file, without captions. Ids are the paths below `root`, or as they were given; each counts once.

    Below a root, files without the name of a picture are set aside.
    """
    table, problems, ids = Table(), [], set()
    for file in files:
        path = os.path.abspath(os.path.expanduser(file))
        identity = os.fspath(file) if root is None else os.path.relpath(path, os.path.abspath(root))
        if root is not None and not is_picture(path):
            problems.append(Problem("other file", identity))
        elif not os.path.isfile(path):
            problems.append(Problem("missing file", identity))
        elif not is_unicode(path):
            problems.append(Problem("malformed row", f"{identity}: its file name is not Unicode"))
        elif identity in ids:
            problems.append(Problem("duplicate id", identity))
        else:
            ids.add(identity)
            split = NO_SPLIT if root is None else split_of_path(identity)
            table.add_image(identity, {"bytes": None, "path": path}, split, {})
    return table.finish(), problems
