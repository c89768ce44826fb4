"""Rows of a source, and which of them are of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from boresight.data.columns import Keyed
from boresight.data.files import Find
from boresight.data.problems import Problem, counted, is_unicode
from boresight.data.splits import NO_SPLIT
from boresight.progress import say


@dataclass(slots=True)
class SourceRow:
    """One row of a source: a picture and what is written about it.

    Attributes:
        key: what tells this picture from others in the source: its relative path or its number there.
        path: the picture's file as the source names it, or the file that holds it.
        captions: as they stand there: strings, and None or other things where a caption should be.
        where: how to name the row to the user.
        whole: the row holds a list of captions: word for word the same in another row of its image, that one is a
            duplicate. A single caption may well stand twice.
        id: the image's id where the source gives one; else `key` serves.
        offset, size: start and length in bytes of the picture within a tar file.
        file: the picture's file, where the reader has looked for it.
        orientation: EXIF's number for how to turn the picture, where it was said elsewhere than in its file.
    """

    key: str
    path: str
    captions: Sequence[Any]
    where: str
    whole: bool = True
    id: str | None = None
    split: str = NO_SPLIT
    offset: int | None = None
    size: int | None = None
    file: str | None = None
    orientation: int | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """The id of its image."""
        return self.id or self.key


def clean(captions: Sequence[Any], where: str) -> tuple[list[str], list[Problem]]:
    """Captions without surrounding white space, otherwise untouched; and those that are empty or no text."""
    texts: list[str] = []
    problems: list[Problem] = []
    for caption in captions:
        text = caption.strip() if isinstance(caption, str) else ""
        if text and is_unicode(text):
            texts.append(text)
        elif caption is None or (isinstance(caption, str) and not text):
            problems.append(Problem("empty caption", where))
        elif isinstance(caption, Keyed):
            problems.append(Problem(str(caption), where))
        else:
            problems.append(Problem("malformed caption", f"{where}: {str(caption)[:40]}"))
    return texts, problems


class Join:
    """Joins rows to images: an image is a picture in a split, however many rows it has, and whatever their ids.

    A row that names no split joins the picture's rows in any. The picture is its file, by whatever spelling of its
    name; or the row's key, where it lies inside the source. Ids have to differ within a split alone.

    Attributes:
        problems: what was set aside.
        ids_restart: some id stands for different images in different splits.
        in_several_splits: ids of images whose picture stands in an earlier split too.
    """

    def __init__(self, find: Find, *, bare: bool = False) -> None:
        """Nothing is joined yet.

        Args:
            find: gives the file of a picture's name in the source, None when there is none.
            bare: keep an image whose captions are all empty: it has none then, and is in the gallery.
        """
        self._bare = bare
        self.problems: list[Problem] = []
        self.ids_restart = False
        self.in_several_splits: list[str] = []
        self._find = find
        self._splits: list[str] = []  # of each image
        self._pictures: dict[str, str | None] = {}  # from a key
        # From a picture or an id to its image; those of a further split under both.
        self._numbers: dict[str | tuple[str, str], int] = {}
        self._ids: dict[str | tuple[str, str], int] = {}
        self._aside: set[tuple[str, str]] = set()  # split and picture
        self._lists: set[int] = set()

    def __call__(self, row: SourceRow) -> tuple[int, str, list[str]] | None:
        """The number of the row's image, counted from 0 in the order of first mention; its picture; its captions.

        None for a row that is set aside.
        """
        key, identity = row.key, row.id or row.key
        picture = key if row.offset is not None else self._pictures.get(key)
        if picture is None:
            picture = self._look(row)
            if picture is None:
                return None
        number = self._numbers.get(picture)
        if number is not None and row.split not in (NO_SPLIT, self._splits[number]):
            number = self._numbers.get((row.split, picture))
        if number is None:
            if (row.split, picture) in self._aside:
                return None
            problem = self._wrong(row, identity, picture)
            if problem is not None:
                self.problems.append(problem)
                self._aside.add((row.split, picture))
                return None
        texts, wrong = clean(row.captions, row.where)
        if number is not None and row.whole and hash((number, *texts)) in self._lists:
            self.problems.append(Problem("duplicate row", f"{identity}, {row.where}"))
            return None
        if not row.captions:
            wrong = [Problem("image without captions", f"{row.path}, {row.where}" if row.path else row.where)]
        self.problems += wrong
        if not texts and not (self._bare and row.captions):
            return None
        if number is None:
            number = self._add(row.split, identity, picture)
        if row.whole:
            self._lists.add(hash((number, *texts)))
        return number, picture, texts

    def pictures(self) -> set[str]:
        """The files of all pictures that rows named, usable or not."""
        return {picture for picture in self._pictures.values() if picture is not None}

    def say(self, name: str) -> None:
        """One line for each thing about the source `name` that is no problem and may be a surprise."""
        if self.ids_restart:
            say(f"{name}: ids repeat from split to split, so each is written behind its split, as in 'test/0'.")
        shared = self.in_several_splits
        if shared:
            some = ", ".join(shared[:3]) + (", ..." if shared[3:] else "")
            say(
                f"{name}: {counted(len(shared), 'picture')} {'stands' if len(shared) == 1 else 'stand'} in several "
                f"splits ({some}): what is fitted on one of these splits is not new in the other."
            )

    def _look(self, row: SourceRow) -> str | None:
        """The file of a picture that was not found so far; that it is not there is said once."""
        if row.key in self._pictures:
            return None
        picture = self._pictures[row.key] = row.file or self._find(row.path)
        if picture is None:
            self.problems.append(Problem("missing file", row.path))
        return picture

    def _wrong(self, row: SourceRow, identity: str, picture: str) -> Problem | None:
        """What keeps the image of this row, the first for it, out of the collection."""
        known = self._ids.get(identity)
        if known is not None and (self._splits[known] == row.split or (row.split, identity) in self._ids):
            return Problem("duplicate id", f"{identity}, {row.where}")
        if not is_unicode(identity + picture):
            return Problem("malformed row", f"{row.where}: its id or file name is not Unicode")
        return None

    def _add(self, split: str, identity: str, picture: str) -> int:
        number = len(self._splits)
        self._splits.append(split)
        if self._numbers.setdefault(picture, number) != number:
            self.in_several_splits.append(identity)
            self._numbers[split, picture] = number
        if self._ids.setdefault(identity, number) != number:
            self.ids_restart = True
            self._ids[split, identity] = number
        return number
