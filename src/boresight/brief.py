"""What a prompt and a notebook show of an object: one short line, and a small table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from html import escape
from typing import Any

from boresight.tables import html_table

WIDEST = 60  # characters of one part


def brief(value: Any) -> str:
    """A value in at most 60 characters: an array by its type and shape, many things by their number.

    Example:
        >>> brief(numpy.zeros((3, 2))), brief(["a"] * 1000), brief({"a": 1}), brief("word " * 50)
        ('float64 (3, 2)', '1,000 str', "{'a': 1}", "'word word word word word word word word word word word ...'")
    """
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, str):
        said = repr(value[:WIDEST])
        return said if len(value) <= WIDEST and len(said) <= WIDEST else f"{said[: WIDEST - 4]}...'"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return _fitting("{" + ", ".join(f"{name!r}: {brief(one)}" for name, one in _first(value.items())) + "}", value)
    if isinstance(value, Sequence):
        return _fitting(f"[{', '.join(map(brief, _first(value)))}]", value)
    said = repr(value) if not is_dataclass(value) or isinstance(value, Brief) else type(value).__name__
    plain = len(said) <= WIDEST and " at 0x" not in said and "\n" not in said
    return said if plain else getattr(value, "__name__", type(value).__name__)


def _first(values: Any) -> list[Any]:
    """Enough of them to fill the line; a long column on disk is not read whole."""
    return [one for one, _ in zip(values, range(WIDEST // 3), strict=False)]


def _fitting(said: str, values: Any) -> str:
    """What was said, where it fits and is all; else how many there are, and of what."""
    if len(said) <= WIDEST and len(values) <= WIDEST // 3:
        return said
    kinds = {type(one).__name__ for one in _first(values.values() if isinstance(values, Mapping) else values)}
    return f"{len(values):,} {kinds.pop() if len(kinds) == 1 else 'things'}"


def frequencies(values: Sequence[str]) -> str:
    """How often each stands there, the first five: 'train 4,000, test 1,000'."""
    each = Counter(values)
    shown = [f"{name} {count:,}" for name, count in each.most_common(5)]
    return ", ".join([*shown, *([f"{len(each) - 5:,} more"] if len(each) > 5 else [])])


def spelled(of: object, parts: Mapping[str, str]) -> str:
    """'Name(part=..., part=...)', on one line."""
    line = f"{type(of).__name__}({', '.join(f'{name}={said}' for name, said in parts.items())})"
    return " ".join(line.split())


class Brief:
    """For a dataclass with `repr=False`: each field in a few characters. A class may say `_parts` of its own."""

    def _parts(self) -> dict[str, str]:
        """What is shown, by name."""
        return {one.name: brief(getattr(self, one.name)) for one in fields(self) if one.repr}  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return spelled(self, self._parts())

    def _repr_html_(self) -> str:
        """For a notebook; whatever comes from data is escaped."""
        if type(self).__str__ is object.__str__:
            return html_table(("", ""), self._parts().items(), type(self).__name__)
        return f"<pre>{escape(str(self))}</pre>"
