"""What composition is measured on: pictures, each with true captions among others of nearly the same words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from boresight.brief import Brief
from boresight.data.images import decode
from boresight.data.problems import Problem
from boresight.errors import InputError


@dataclass(frozen=True)
class Picture:
    """A picture that is read when asked for, and every time anew.

    Attributes:
        name: what tells it from the other pictures of its benchmark, and names it to the user.
        source: its file, or what gives the picture when it is called.
        box: (left, top, width, height) in pixels of the part that counts; None for the whole.
    """

    name: str
    source: str | Path | Callable[[], Image.Image]
    box: tuple[float, float, float, float] | None = None

    def open(self) -> Image.Image:
        """The picture, upright, RGB, cut to its box; what of the box lies beyond the picture is black.

        Raises InputError when it cannot be read, or its box and it have nothing in common; ArtefactError when the place
        of its file went away.
        """
        picture = self.source() if callable(self.source) else decode({"path": str(self.source)}, f"'{self.source}'")
        if self.box is None:
            return picture
        left, top, width, height = (round(value) for value in self.box)
        right, bottom = left + width, top + height
        if min(right, picture.width) <= max(left, 0) or min(bottom, picture.height) <= max(top, 0):
            raise InputError(f"The box {self.box} of '{self.name}' shows nothing of the picture; mend or drop the row.")
        return picture.crop((left, top, right, bottom))


@dataclass(frozen=True)
class Contrast:
    """A picture with one true caption, or a few, among several.

    Attributes:
        captions: at least two.
        true: which of them is true, or which of them are.
        group: whose accuracy it counts towards: a kind of change, a relation; of Winoground the example.
    """

    picture: Picture
    captions: tuple[str, ...]
    true: int | tuple[int, ...]
    group: str

    def __post_init__(self) -> None:
        count = len(self.captions)
        if count < 2 or not set(self.right) < set(range(count)) or not 0 < len(set(self.right)) == len(self.right):
            raise InputError(
                f"'{self.picture.name}' has {count} captions of which number {self.true} is true; give it at least "
                "two, and the number of one of them, or of some but not all."
            )

    @property
    def right(self) -> tuple[int, ...]:
        """The numbers of the true captions."""
        return (self.true,) if isinstance(self.true, int) else self.true

    @property
    def wrong(self) -> tuple[int, ...]:
        """The numbers of the others."""
        return tuple(number for number in range(len(self.captions)) if number not in self.right)


@dataclass(frozen=True, repr=False)
class Contrasts(Brief):
    """A benchmark: its items, and which groups its published figure is a mean over.

    Attributes:
        items: those whose pictures are there.
        name: what to call it.
        problems: what was left out, one entry each.
        outside_macro: groups that the macro mean leaves out.
        fewest: items that a group must have to stand in the macro mean.
        published: items where it is published; None for what is not known.
    """

    items: Sequence[Contrast]
    name: str = ""
    problems: Sequence[Problem] = ()
    outside_macro: frozenset[str] = frozenset()
    fewest: int = 1
    published: int | None = None

    def __len__(self) -> int:
        return len(self.items)
