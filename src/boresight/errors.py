"""The two errors a user can meet. Each carries one sentence: what is wrong, where, and the way out."""

from __future__ import annotations


class BoresightError(Exception):
    """Base of every error that boresight raises on purpose; the command line prints it and exits with 2."""


class InputError(BoresightError, ValueError):
    """What the user passed cannot be used: a shape, a value, a file, an option."""


class ArtefactError(BoresightError):
    """A folder on disk is missing, torn, of another kind, or was made for another model."""
