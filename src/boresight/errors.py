"""The two errors a user can meet: one sentence that says what is wrong, where, and the way out; helpers to say it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from textwrap import shorten


class BoresightError(Exception):
    """Base of every error that boresight raises on purpose; the command line prints it and exits with 2."""


class InputError(BoresightError, ValueError):
    """What the user passed cannot be used: a shape, a value, a file, an option."""


class ArtefactError(BoresightError):
    """A folder on disk is missing, torn, of another kind, or was made for another model."""


def first_line(error: BaseException) -> str:
    """The first line of an error that says something, without its stop; the error's type where none does.

    What a library says at length is cut between words, at 400 characters.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shorten(lines[0].rstrip(" .:"), 400, placeholder=" ...") if lines else type(error).__name__


def require_at_least(name: str, value: float, least: float) -> None:
    """Raises InputError unless `value` is `least` or more."""
    if value < least:
        raise InputError(f"{name} is {value}; it must be at least {least}.")


def require_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raises InputError unless `value` is one of `choices`."""
    if value not in (known := list(choices)):
        raise InputError(f"{name}='{value}' is unknown; {one_of(value, known)}.")


def one_of(value: str, known: Iterable[str]) -> str:
    """'choose one of a, b, c'; before it, what may have been meant by `value`: names that begin so, or are alike."""
    names, typed = list(known), value.lower().replace("_", "-").strip()
    alike = [name for name in names if typed and name.replace("_", "-").startswith(typed)]
    alike = alike or get_close_matches(typed, names, 3, 0.7) or get_close_matches(value, names, 3, 0.7)
    meant = f"did you mean {' or '.join(alike[:3])}? If not, " if alike else ""
    return f"{meant}choose one of {', '.join(names)}"
