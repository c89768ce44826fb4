"""What a collection's further columns say of each picture: class names, colours, tags."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from boresight.data.assemble import FIXED
from boresight.data.collection import Collection
from boresight.errors import InputError


def labels_in(collection: Collection, name: str) -> list[list[str]]:
    """The values of each image under `name`, as text, each once, in order; none where the cell is empty.

    name: a column, whose cells hold a value, a list of them, or JSON; the keys inside follow after dots, and a list is
    looked into: `class`, `attributes.colour`, `attributes.objects.shape`.

    Raises InputError for a column that is not there, naming those that are, for a key that no image has, naming those
    that stand in its place, and for a cell that is not JSON or holds no plain value under `name`.
    """
    known = [one for one in collection.dataset.column_names if one not in FIXED]
    column, *keys = [name] if name in known else name.split(".")
    if column not in known:
        raise InputError(
            f"{collection.name or 'The collection'} has no column '{column}' for labels; there are "
            f"{', '.join(known) or 'none beside image, captions and split'}."
        )
    labels, met = [], set()
    for identity, cell in zip(collection.ids, collection.dataset[column][:], strict=True):
        where = f"the label '{name}' of image '{identity}'"
        if keys:
            cell = _parsed(cell, where)
            met |= set(_keys(cell, keys[:-1]))
        labels.append(list(dict.fromkeys(_text(value, where) for value in _under(cell, keys))))
    if not any(labels):
        there = f"; there are {', '.join(sorted(met)) or 'no keys at all'}" if keys else ""
        raise InputError(f"No image has a label '{name}'{there}.")
    return labels


def _parsed(cell: Any, where: str) -> Any:
    if not isinstance(cell, str):
        return cell
    try:
        return json.loads(cell) if cell.strip() else None
    except json.JSONDecodeError as error:
        raise InputError(f"Of {where} the column does not hold JSON ({error}); name the column alone.") from error


def _under(cell: Any, keys: Sequence[str]) -> Iterator[Any]:
    """What stands under the keys, lists looked into; nothing for None and ''."""
    if isinstance(cell, list):
        for each in cell:
            yield from _under(each, keys)
    elif keys:
        if isinstance(cell, dict):
            yield from _under(cell.get(keys[0]), keys[1:])
    elif cell is not None and cell != "":
        yield cell


def _keys(cell: Any, keys: Sequence[str]) -> Iterator[str]:
    return (key for each in _under(cell, keys) if isinstance(each, dict) for key in each)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str | int | float | bool):
        inside = f"; it has the keys {', '.join(value)}, which follow after a dot" if isinstance(value, dict) else ""
        raise InputError(f"{where[0].upper()}{where[1:]} is a {type(value).__name__}, not a plain value{inside}.")
    return str(value)
