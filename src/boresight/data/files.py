"""Files of a source: the pictures below a folder, and the file that a name in a source means."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
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
    return (file for file in walk(folder) if is_picture(file))


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
    """One spelling for a relative path: './a//b.jpg' and 'a\\b.jpg' are both 'a/b.jpg'."""
    return os.path.normpath(name.replace("\\", "/"))
