"""Files of a source: those below a folder, those that a pattern means, the one that a name in a source means."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from glob import glob
from pathlib import Path

from boresight.data.images import is_picture, is_unread_picture
from boresight.data.problems import Problem
from boresight.errors import InputError

Find = Callable[[str], str | None]
TEXT_SUFFIXES = (".txt", ".text", ".caption", ".captions")  # of files that hold the captions of one picture


def walk(folder: str | os.PathLike[str], problems: list[Problem] | None = None) -> Iterator[str]:
    """Absolute paths of all files below `folder`, sorted within each folder; hidden files and folders are left out.

    Linked folders are walked too, under the name of the link, and each folder once, however many links lead to it.

    Args:
        problems: takes what is there and is not given: folders without the right to list them, pictures of a format
            that Pillow does not draw, links to a folder above, and links to nowhere, but for those with the name of a
            picture, text or shard, which are given for the reader to name.
    """
    top = os.path.abspath(folder)
    home = os.path.realpath(top)
    seen, waiting, problems = {home}, [top], [] if problems is None else problems
    while waiting:
        here = waiting.pop()
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            problems.append(Problem("unreadable folder", f"{os.path.relpath(here, top)}: {error.strerror}"))
            continue
        below = []
        for entry in entries:
            what = None  # is wrong with it
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                target = os.path.realpath(entry.path)
                if target not in seen and f"{home}{os.sep}".startswith(f"{target}{os.sep}"):
                    what = "link to a folder above"
                elif target not in seen and not (entry.is_symlink() and _is_walked(target, home)):
                    seen.add(target)
                    below.append(entry.path)
            elif not entry.is_file() and not _is_named(entry.name):
                what = "link to nowhere" if entry.is_symlink() else "special file"
            elif is_unread_picture(entry.name):
                what = "picture of a format that is not read"
            else:
                yield entry.path
            if what is not None:
                problems.append(Problem(what, os.path.relpath(entry.path, top)))
        waiting += reversed(below)


def _is_named(name: str) -> bool:
    """Whether readers themselves say what is wrong with a file of this name."""
    return is_picture(name) or name.lower().endswith((*TEXT_SUFFIXES, ".tar"))


def _is_walked(folder: str, home: str) -> bool:
    """Whether a folder is met below `home` by itself, hidden folders aside."""
    inside = os.path.relpath(folder, home)
    return not any(part.startswith(".") for part in inside.split(os.sep))


def walk_pictures(folder: str | os.PathLike[str], problems: list[Problem] | None = None) -> Iterator[str]:
    """Those of `walk` whose names are pictures'."""
    return (file for file in walk(folder, problems) if is_picture(file))


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
