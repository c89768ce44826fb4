"""Which columns (or json keys) of a source hold what, and the captions in a cell."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boresight.errors import InputError

IMAGE = ("file_name", "image", "image_path", "filename", "filepath", "file", "path", "img", "image_file")
CAPTIONS = ("captions", "caption", "texts", "text", "sentences", "descriptions", "description", "raw")
ID = ("id", "image_id", "cocoid", "img_id", "imgid", "example_id", "key")
SPLIT = ("split",)
_OPTIONS = {"image": "image_column", "captions": "caption_columns", "id": "id_column", "split": "split_column"}
_NUMBERED = re.compile(r"(?:caption|text)_?(\d+)")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The names to look for, best first; a role that the user named has that name alone.

    Attributes:
        image, id, split: candidate names of one column each.
        captions: candidate names; where the user named them, all of them are read, in that order.
        named: the roles that the user named, so that a missing column is an error.
    """

    image: Sequence[str] = IMAGE
    captions: Sequence[str] = CAPTIONS
    id: Sequence[str] = ID
    split: Sequence[str] = SPLIT
    named: frozenset[str] = frozenset()

    @classmethod
    def of(cls, **names: str | Sequence[str] | None) -> Columns:
        """Columns from the names that the user gave by role; roles without one keep the usual names."""
        given = {
            role: (name,) if isinstance(name, str) else tuple(name) for role, name in names.items() if name is not None
        }
        return cls(**given, named=frozenset(given))

    def column(self, role: str, present: Collection[str]) -> str | None:
        """The best of the columns for 'image', 'id', 'split' or 'captions' that is there."""
        return next((name for name in getattr(self, role) if name in present), None)

    def captions_in(self, present: Collection[str]) -> tuple[str, ...]:
        """All named caption columns that are there; or the first known one; or `caption_0`, `caption_1`, ..."""
        if "captions" in self.named:
            return tuple(name for name in self.captions if name in present)
        first = self.column("captions", present)
        if first is not None:
            return (first,)
        numbered = [(int(match[1]), name) for name in present if (match := _NUMBERED.fullmatch(name))]
        return tuple(name for _, name in sorted(numbered))

    def check_named(self, present: Collection[str], where: str) -> None:
        """Raises InputError when `where`, whose columns are `present`, lacks one that the user named."""
        for role in sorted(self.named):
            for name in getattr(self, role):
                if name not in present:
                    raise InputError(f"{where} has no column '{name}'; it has {listed(present)}.")

    def check_none_named(self, where: str) -> None:
        """Raises InputError when the user named a column of `where`, which has none to choose from."""
        if self.named:
            options = ", ".join(_OPTIONS[role] for role in sorted(self.named))
            raise InputError(f"{where} has no columns to choose from; leave out {options}.")

    def check(self, present: Sequence[str], where: str) -> None:
        """Raises InputError when `where`, whose columns are `present`, lacks one that is named or needed."""
        self.check_named(present, where)
        if self.column("image", present) is None:
            raise InputError(f"{where} has no known image column; name it with image_column: {listed(present)}.")
        if not self.captions_in(present):
            raise InputError(f"{where} has no known caption column; name it with caption_columns: {listed(present)}.")


def listed(names: Iterable[str]) -> str:
    """The names in quotes, for a sentence; 'none' where there are none."""
    return ", ".join(f"'{name}'" for name in names) or "none"


def texts_in(cell: Any) -> list[Any]:
    """The captions of a cell in order: a string, a list of them, or objects with `raw`, `caption` or `text`."""
    if isinstance(cell, (list, tuple)):
        return [text for part in cell for text in ([None] if part is None else texts_in(part))]
    if isinstance(cell, Mapping):
        return texts_in(next((cell[key] for key in ("raw", "caption", "text") if key in cell), None)) or [None]
    return [] if cell is None else [cell]
