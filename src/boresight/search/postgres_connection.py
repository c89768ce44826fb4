"""Connections to PostgreSQL: what the server says becomes one sentence, and the password is in none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from boresight.errors import ArtefactError, InputError, first_line
from boresight.search.postgres_types import version_of

MANIFESTS = "boresight_indexes"
"""The table that says what every index of a database is."""
OLDEST = (0, 8)
"""pgvector with `sparsevec`, and with scans of a graph that go on until a filter has let enough through."""
_WAIT = 10  # seconds for a connection


@contextmanager
def connected(url: str, place: str) -> Iterator[Any]:
    """A connection, its transaction committed at the end. Errors of the server become one sentence."""
    try:
        waiting = {} if "connect_timeout" in psycopg.conninfo.conninfo_to_dict(url) else {"connect_timeout": _WAIT}
        connection = psycopg.connect(url, **waiting)
    except psycopg.Error as error:
        raise ArtefactError(
            f"The server of {place} cannot be reached ({first_line(error)}); check that it runs, and the url."
        ) from error
    try:
        with connection:
            yield connection
    except psycopg.errors.UniqueViolation as error:
        raise InputError(f"{place} has one of these ids already; use update, which replaces them.") from error
    except psycopg.errors.UndefinedTable as error:
        raise ArtefactError(f"{place} is not there any more; make it again with PostgresIndex.create.") from error
    except psycopg.errors.DataError as error:
        raise InputError(f"{place} does not take these values ({first_line(error)}); change them.") from error
    except psycopg.Error as error:
        raise ArtefactError(f"{place} refused ({first_line(error)}); nothing was changed.") from error


def require_pgvector(connection: Any, place: str, *, install: bool = False) -> None:
    """Raises ArtefactError where pgvector is missing, and cannot be installed, or is too old."""
    found = version_of(connection)
    if found is None and install:
        try:
            with connection.transaction():
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except psycopg.Error as error:
            raise ArtefactError(
                f"The database of {place} has no pgvector, and it cannot be installed ({first_line(error)}); "
                "install pgvector on the server, and let an owner of the database run CREATE EXTENSION vector."
            ) from error
        found = version_of(connection)
    if found is None:
        raise ArtefactError(f"The database of {place} has no pgvector; let its owner run CREATE EXTENSION vector.")
    if found < OLDEST:
        said, oldest = (".".join(map(str, each)) for each in (found, OLDEST))
        raise ArtefactError(
            f"The database of {place} has pgvector {said} and {oldest} is needed, for sparse vectors; update pgvector, "
            "then run ALTER EXTENSION vector UPDATE."
        )


def checked_name(table: str) -> str:
    """The name of a table. Raises InputError for one that is no word, too long, or ours."""
    if not table.isidentifier() or len(table.encode()) > 50 or table == MANIFESTS:
        raise InputError(f"'{table}' is no name for the table; take a word of letters, digits and '_', not too long.")
    return table


def place_of(url: str, table: str) -> str:
    """Where an index is, without a password."""
    try:
        said = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error as error:
        raise InputError("This is no url of a PostgreSQL database; write such as postgresql://user@host/name.") from (
            error
        )
    return f"table '{table}' of {said.get('host', 'localhost')}/{said.get('dbname', '')}"
