"""Which columns (or json keys) of a source hold what, and the captions in a cell."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from boresight.errors import InputError

IMAGE = (
    "file_name", "image", "image_path", "image_name", "filename", "filepath", "file", "path", "img", "image_file",
    "jpg", "jpeg", "png", "webp",
)  # fmt: skip
CAPTIONS = (
    "captions", "caption", "texts", "text", "sentences", "sentence", "descriptions", "description", "raw",
    "comments", "comment",
)  # fmt: skip
# That of the picture goes before `id`, which in a table with a caption a row is often the caption's.
ID = ("image_id", "img_id", "imgid", "cocoid", "id", "example_id", "key")
SPLIT = ("split",)
_OPTIONS = {"image": "image_column", "captions": "caption_columns", "id": "id_column", "split": "split_column"}
_NUMBERED = re.compile(r"(.*?)[ _.-]?(\d+)")
_PARTS = re.compile(r"[^a-z]+")
# Last parts of names of columns that are about captions and hold none.
_ABOUT = re.compile(r"ids?|num|number|index|count|len|length|kinds?|type|lang|language|url|source|score|tokens|model")


@dataclass(frozen=True)
class Roles:
    """The columns of a row: candidates for picture, id and split, best first; those of its captions; all others."""

    image: tuple[str, ...]
    captions: tuple[str, ...]
    id: tuple[str, ...]
    split: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """The names to look for, best first; a role that the user named has that name alone.

    Attributes:
        image, id, split: candidate names of one column each.
        captions: candidate names; where the user named them, all of them are read, in that order, also those of keys
            within a column: 'caption.en'.
        named: the roles that the user named, so that a missing column is an error.
        seen: the names of the source so far.
        read: those of them that captions were read from.
    """

    image: Sequence[str] = IMAGE
    captions: Sequence[str] = CAPTIONS
    id: Sequence[str] = ID
    split: Sequence[str] = SPLIT
    named: frozenset[str] = frozenset()
    seen: dict[str, None] = field(default_factory=dict, init=False)
    read: dict[str, None] = field(default_factory=dict, init=False)
    _roles: dict[tuple[str, ...], Roles] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, **names: str | Sequence[str] | None) -> Columns:
        """Columns from the names that the user gave by role; roles without one keep the usual names."""
        given = {
            role: (name,) if isinstance(name, str) else tuple(name) for role, name in names.items() if name is not None
        }
        return cls(**given, named=frozenset(given))

    def roles(self, names: Iterable[str]) -> Roles:
        """What the columns of a row are, from all their names; worked out once for rows of the same names."""
        names = tuple(names)
        known = self._roles.get(names)
        if known is None:
            self.saw(names)
            image, id, split = (self._candidates(role, names) for role in ("image", "id", "split"))
            captions = self.captions_in(names)
            others = tuple(name for name in names if name not in captions)
            known = self._roles[names] = Roles(image, captions, id, split, others)
        return known

    def saw(self, names: Iterable[str]) -> None:
        """Note names of the source that `roles` does not come to see."""
        self.seen.update(dict.fromkeys(names))

    def column(self, role: str, present: Collection[str]) -> str | None:
        """The best of the columns for 'image', 'id', 'split' or 'captions' that is there."""
        return next(iter(self._candidates(role, present)), None)

    def captions_in(self, present: Collection[str]) -> tuple[str, ...]:
        """All named caption columns that are there; or the first known one and those numbered after it.

        `caption`, or `caption_0`, `caption_1`, ..., or `caption`, `caption_2`, ...
        """
        if "captions" in self.named:
            return self._candidates("captions", present)
        families = {name: _family(name) for name in present}
        for one in self.captions:
            members = sorted((number, name) for name, (stem, number) in families.items() if stem == one)
            if members:
                return tuple(name for _, name in members)
        return ()

    def unread(self) -> list[str]:
        """Columns that look as if they held captions, by their names, and were not read."""
        known, read = {*CAPTIONS, "txt"}, {column_of(name, self.seen) for name in self.read}

        def may_hold_captions(name: str) -> bool:
            parts = [part for part in _PARTS.split(name.lower()) if part]
            return bool(known & set(parts)) and not _ABOUT.fullmatch(parts[-1])

        return [name for name in self.seen if name not in read and may_hold_captions(name)]

    def check_named(self, where: str) -> None:
        """Raises InputError when `where`, whose columns were seen, lacks one that the user named."""
        if self.seen:
            self._require_named(sorted(self.seen), where)

    def check_none_named(self, where: str) -> None:
        """Raises InputError when the user named a column of `where`, which has none to choose from."""
        if self.named:
            options = ", ".join(_OPTIONS[role] for role in sorted(self.named))
            raise InputError(f"{where} has no columns to choose from; leave out {options}.")

    def check(self, present: Sequence[str], where: str) -> None:
        """Raises InputError when `where`, whose columns are `present`, lacks one that is named or needed."""
        self._require_named(present, where)
        if self.column("image", present) is None:
            raise InputError(f"{where} has no known image column; name it with image_column: {listed(present)}.")
        if not self.captions_in(present):
            raise InputError(f"{where} has no known caption column; name it with caption_columns: {listed(present)}.")

    def _require_named(self, present: Sequence[str], where: str) -> None:
        for role in sorted(self.named):
            for name in getattr(self, role):
                if (column_of(name, present) if role == "captions" else name) not in present:
                    raise InputError(f"{where} has no column '{name}'; it has {listed(present)}.")

    def _candidates(self, role: str, present: Collection[str]) -> tuple[str, ...]:
        names = getattr(self, role)
        if role in self.named:
            looked = ((name, column_of(name, present) if role == "captions" else name) for name in names)
            return tuple(name for name, column in looked if column in present)
        by_spelling = {name.strip().lower(): name for name in reversed(list(present))}
        return tuple(by_spelling[name] for name in names if name in by_spelling)


def _family(name: str) -> tuple[str, int]:
    """('caption', 2) of 'Caption_2'; a name without a number stands before its numbers."""
    name = name.strip().lower()
    match = _NUMBERED.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, -1)


def listed(names: Iterable[str]) -> str:
    """The names in quotes, for a sentence; 'none' where there are none."""
    return ", ".join(f"'{name}'" for name in names) or "none"


def captions_of(values: Mapping[str, Any], used: Sequence[str]) -> tuple[list[Any], bool]:
    """The captions in the columns `used` of a row, and whether they are a list, not one caption of maybe more."""
    cells = [cell_of(values, column) for column in used]
    if len(cells) == 1:
        texts = texts_in(cells[0], used[0])
        return texts, not (isinstance(cells[0], str) or (isinstance(cells[0], Mapping) and len(texts) == 1))
    filled = [(cell, column) for cell, column in zip(cells, used, strict=True) if cell is not None and cell != ""]
    return [text for cell, column in filled for text in texts_in(cell, column)], True


def column_of(name: str, present: Collection[str]) -> str:
    """The column that a name of captions stands in: 'caption' for 'caption.en', unless there is one called so."""
    return name if name in present else name.partition(".")[0]


def cell_of(values: Mapping[str, Any], name: str) -> Any:
    """What stands under a name: for 'caption.en' under the key 'en' in the column 'caption', lists looked into."""
    column = column_of(name, values)
    return _under(values.get(column), name[len(column) + 1 :].split(".") if column != name else [])


def _under(cell: Any, keys: Sequence[str]) -> Any:
    if not keys:
        return cell
    if isinstance(cell, (list, tuple)):
        return [_under(part, keys) for part in cell]
    return _under(cell.get(keys[0]), keys[1:]) if isinstance(cell, Mapping) else None


@dataclass(frozen=True)
class Keyed:
    """In place of a caption, the keys of an object of which none is known to hold one: languages, for example."""

    keys: tuple[str, ...]
    column: str

    def __str__(self) -> str:
        """What is wrong, as the kind of a problem."""
        some = listed(self.keys[:6]) + (", ..." if self.keys[6:] else "")
        return f"caption for each of the keys {some}, to be chosen as in caption_columns='{self.column}.{self.keys[0]}'"


def texts_in(cell: Any, column: str | None = None) -> list[Any]:
    """The captions of a cell in order: a string, a list of them, or objects with `raw`, `caption` or `text`.

    An object with other keys is `Keyed` where there is a choice: `column` is how the user would name the cell.
    """
    if isinstance(cell, str):
        return [cell]
    if isinstance(cell, (list, tuple)):
        if set(map(type, cell)) == {str}:
            return list(cell)
        return [text for part in cell for text in ([None] if part is None else texts_in(part, column))]
    if isinstance(cell, Mapping):
        key = next((key for key in ("raw", "caption", "text") if key in cell), None)
        if key is None:
            return [Keyed(tuple(map(str, cell)), column)] if cell and column else [None]
        return texts_in(cell[key], column and f"{column}.{key}") or [None]
    return [] if cell is None else [cell]
