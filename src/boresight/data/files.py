"""Files of a source: those below a folder, those that a pattern means, the one that a name in a source means."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from glob import glob
from pathlib import Path

from boresight.data.images import is_picture
from boresight.errors import InputError

Find = Callable[[str], str | None]


def walk(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Absolute paths of all files below `folder`, sorted within each folder; hidden files and folders are left out."""
    for parent, folders, files in os.walk(os.path.abspath(folder)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(parent, name) for name in sorted(files) if not name.startswith("."))


def walk_pictures(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Those of `walk` whose names are pictures'."""
    return (file for file in walk(folder) if is_picture(file))


def expand(pattern: str) -> list[Path]:
    """The files that a glob and brace pattern means: 'shards/{00000..00012}.tar', 'train-*.tar', '{a,b}.tar'."""
    files: list[Path] = []
    for one in braced(pattern):
        matches = sorted(glob(one, recursive=True))
        files += [Path(file) for file in matches] if matches or re.search(r"[*?\[]", one) else [Path(one)]
    return files


def braced(pattern: str) -> list[str]:
    """What the braces of a pattern stand for; nothing else in it has a meaning."""
    brace = re.search(r"\{([^{}]*)\}", pattern)
    if brace is None:
        return [pattern]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", brace[1])
    if span:
        low, high = int(span[1]), int(span[2])
        width = len(span[1]) if span[1].startswith("0") or len(span[1]) == len(span[2]) else 0
        choices = [f"{number:0{width}d}" for number in range(low, high + 1)]
    else:
        choices = brace[1].split(",")
    return [whole for one in choices for whole in braced(pattern[: brace.start()] + one + pattern[brace.end() :])]


def folder_of_images(images: str | os.PathLike[str]) -> Path:
    """`images` as a folder. Raises InputError when it is none."""
    if not Path(images).is_dir():
        raise InputError(f"The image folder {images} does not exist; pass the folder that holds the pictures.")
    return Path(images)


def finder(bases: Sequence[Path]) -> Find:
    """A function from a picture's name in a source to its absolute path, tried below each base in turn; else None.

    Forgives what moving data between systems does: Windows separators, composed against decomposed accents, and a
    name that begins with the name of the base itself ('val2014/a.jpg' below '.../val2014').
    """
    roots = [os.path.abspath(base) for base in bases]

    def find(name: str) -> str | None:
        if not name or "\0" in name:
            return None
        for spelling in _spellings(name):
            for root in roots:
                file = os.path.normpath(os.path.join(root, spelling))
                if os.path.isfile(file):
                    return file
                if spelling.split("/")[0] == os.path.basename(root):
                    file = os.path.normpath(os.path.join(os.path.dirname(root), spelling))
                    if os.path.isfile(file):
                        return file
        return None

    return find


def _spellings(name: str) -> Iterator[str]:
    yield name
    others = (
        name.strip(),
        name.replace("\\", "/"),
        unicodedata.normalize("NFC", name),
        unicodedata.normalize("NFD", name),
    )
    yield from dict.fromkeys(other for other in others if other != name)


def key_of(name: str) -> str:
    r"""One spelling for a relative path: './a//b.jpg' and 'a\b.jpg' are both 'a/b.jpg'."""
    return os.path.normpath(name.replace("\\", "/"))
