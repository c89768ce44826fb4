"""Files of a source: those below a folder, those that a pattern means, the one that a name in a source means."""

from __future__ import annotations

import codecs
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import glob
from pathlib import Path

from boresight.data.images import is_picture, is_unread_picture, suffixes
from boresight.data.problems import Problem
from boresight.errors import InputError

Find = Callable[[str], str | None]
TEXT_SUFFIXES = (".txt", ".text", ".caption", ".captions")  # of files that hold the captions of one picture


@dataclass(frozen=True)
class Beside:
    """Text files and jsons by their path without suffix, in the order of the listing; and pictures."""

    texts: dict[str, list[str]]
    infos: dict[str, str]
    pictures: list[str]


@dataclass(frozen=True, eq=False)
class Listing:
    """The files below a folder, listed once for all who ask.

    Attributes:
        folder: its absolute path.
        files: their absolute paths, in the order of `walk`.
        broken: those of them that are links to nowhere.
        problems: what `walk` does not give.
    """

    folder: str
    files: list[str]
    broken: frozenset[str]
    problems: tuple[Problem, ...]

    @cached_property
    def beside(self) -> Beside:
        """Pictures, and the files of captions that may lie beside them."""
        beside, drawn = Beside(defaultdict(list), {}, []), suffixes()
        for file in self.files:
            stem, dot, suffix = file.rpartition(".")
            suffix = dot + suffix.lower()
            if suffix in drawn:
                beside.pictures.append(file)
            elif suffix in TEXT_SUFFIXES:
                beside.texts[stem].append(file)
            elif suffix == ".json":
                beside.infos[stem] = file
        return beside

    @classmethod
    def of(cls, folder: str | os.PathLike[str]) -> Listing:
        """The files below `folder` as they are now."""
        problems: list[Problem] = []
        broken: set[str] = set()
        files = list(walk(folder, problems, broken))
        return cls(os.path.abspath(folder), files, frozenset(broken), tuple(problems))


def walk(
    folder: str | os.PathLike[str], problems: list[Problem] | None = None, broken: set[str] | None = None
) -> Iterator[str]:
    """Absolute paths of all files below `folder`, sorted within each folder; hidden files and folders are left out.

    Linked folders are walked too, under the name of the link, and each folder once, however many links lead to it.

    Args:
        problems: takes what is there and is not given: folders without the right to list them, pictures of a format
            that Pillow does not draw, links to a folder above, and links to nowhere, but for those with the name of a
            picture, text or shard, which are given for the reader to name.
        broken: takes these last.
    """
    top = os.path.abspath(folder)
    home = os.path.realpath(top)
    seen, waiting = {home}, [top]
    problems, broken = [] if problems is None else problems, set() if broken is None else broken

    def note(what: str, path: str) -> None:
        problems.append(Problem(what, os.path.relpath(path, top)))

    while waiting:
        here = waiting.pop()
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            problems.append(Problem("unreadable folder", f"{os.path.relpath(here, top)}: {error.strerror}"))
            continue
        below = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_file():
                if is_unread_picture(entry.name):
                    note("picture of a format that is not read", entry.path)
                else:
                    yield entry.path
            elif entry.is_dir():
                target = os.path.realpath(entry.path)
                if target not in seen and f"{home}{os.sep}".startswith(f"{target}{os.sep}"):
                    note("link to a folder above", entry.path)
                elif target not in seen and not (entry.is_symlink() and _is_walked(target, home)):
                    seen.add(target)
                    below.append(entry.path)
            elif is_picture(entry.name) or entry.name.lower().endswith((*TEXT_SUFFIXES, ".tar")):
                broken.add(entry.path)
                yield entry.path
            else:
                note("link to nowhere" if entry.is_symlink() else "special file", entry.path)
        waiting += reversed(below)


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


def finder(bases: Sequence[Path], listing: Listing | None = None) -> Find:
    """A function from a picture's name in a source to its absolute path, tried below each base in turn; else None.

    Forgives what moving data between systems does: Windows separators, composed against decomposed accents, and a
    name that begins with the name of the base itself ('val2014/a.jpg' below '.../val2014').

    Args:
        listing: of the source's folder: a file that it lists need not be looked up, and a name without a folder that
            is found below no base is that of the one picture of this name in it, at any depth.
    """
    roots = [os.path.abspath(base) for base in bases]
    listed = frozenset() if listing is None else frozenset(listing.files) - listing.broken
    starts = [f"{root}{os.sep}" for root in roots]
    by_name: dict[str, str] = {}

    def there(root: str, name: str) -> str | None:
        file = os.path.normpath(os.path.join(root, name))
        return file if file in listed or os.path.isfile(file) else None

    def anywhere(name: str) -> str | None:
        if not by_name:
            for file in listed:  # a name that two files have names neither
                base = os.path.basename(file)
                by_name[base] = "" if base in by_name else file
        return by_name.get(name) or None

    def find(name: str) -> str | None:
        for start in starts:  # most names are as the folder lists them
            if (own := start + name) in listed:
                return own
        if not name or "\0" in name:
            return None
        for spelling in _spellings(name):
            for root in roots:
                if file := there(root, spelling):
                    return file
                inside = spelling.partition("/")[0] == os.path.basename(root)
                if inside and (file := there(os.path.dirname(root), spelling)):
                    return file
        return next((file for spelling in _spellings(name) if (file := anywhere(spelling))), None) if listed else None

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


def encoding_of(start: bytes) -> tuple[str, str]:
    """The encoding of a text file that starts so, and what becomes of its errors.

    Bytes that are not UTF-8 become lone surrogates, so that only the rows that hold them are set aside. UTF-16 knows no
    such escape: of a file cut in the middle of a character the rest is a replacement character.
    """
    wide = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return ("utf-16", "replace") if wide else ("utf-8-sig", "surrogateescape")


def lines_of(data: bytes) -> list[str]:
    """The lines of a text file that are not blank, as `encoding_of` says."""
    # For ASCII the codecs of Python would take longer than all the rest.
    text = data.decode("ascii") if data.isascii() else data.decode(*encoding_of(data))
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return [line for line in text.split("\n") if line.strip()]


def key_of(name: str) -> str:
    r"""One spelling for a relative path: './a//b.jpg' and 'a\b.jpg' are both 'a/b.jpg'."""
    name = name.replace("\\", "/")
    plain = "//" not in name and "./" not in name and not name.endswith(("/", "."))
    return name if plain else os.path.normpath(name)
