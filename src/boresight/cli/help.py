"""What --help says of an option that may be left out: its own words, and neither {None} nor (default: None)."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

_NAMES = {str: "STR", Path: "PATH", int: "INT", float: "FLOAT"}


def in_words(command: type) -> type:
    """The dataclass `command`, and those in it, with its options that default to None or nothing shown so."""
    hints = get_type_hints(command, include_extras=True)
    for each in fields(command):
        hint = hints[each.name]
        bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if isinstance(bare, type) and is_dataclass(bare):
            in_words(bare)
        elif each.default in (None, ()):
            shown = tyro.conf.arg(help_behavior_hint="", metavar=_metavar(bare))
            command.__annotations__[each.name] = Annotated[hint, shown]
    return command


def _metavar(hint: Any) -> str | None:
    """How the values of an optional type are written; None where tyro's own way will do."""
    given = [each for each in get_args(hint) if each is not NoneType]
    if NoneType not in get_args(hint):
        return None
    if any(get_origin(each) is Literal for each in given):
        return "{" + ",".join(str(value) for each in given for value in get_args(each) or (_NAMES[each],)) + "}"
    parts = [part for each in given for part in (get_args(each) or (each,)) if part is not Ellipsis]
    return " ".join(_NAMES[part] for part in parts)
