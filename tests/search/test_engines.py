"""Indexes of every make are asked alike."""

from __future__ import annotations

import inspect

import pytest

from boresight.errors import InputError
from boresight.search import SearchIndex
from boresight.search.engines import Engine, conformed

pa = pytest.importorskip("pyarrow")
MEMBERS = ("__len__", "columns", "add", "update", "remove", "search")


def makes() -> list[type]:
    pytest.importorskip("psycopg", reason="needs psycopg (extra 'postgres')")
    from boresight.search.postgres import PostgresIndex
    from boresight.search.qdrant import QdrantIndex

    return [SearchIndex, PostgresIndex, QdrantIndex]


def test_every_make_has_the_members_of_an_engine() -> None:
    assert {name for name in vars(Engine) if not name.startswith("_")} <= {*MEMBERS}
    for make in makes():
        for name in MEMBERS:
            own, wanted = getattr(make, name), getattr(Engine, name)
            assert callable(own) == callable(wanted), name
            if callable(wanted):
                asked = set(inspect.signature(wanted).parameters)
                assert asked <= set(inspect.signature(own).parameters), (make, name)


def test_columns_are_those_of_the_index() -> None:
    schema = pa.schema([("id", pa.string()), ("year", pa.int16())])
    assert conformed(pa.table({"id": ["a"]}), schema).to_pylist() == [{"id": "a", "year": None}]
    assert conformed(pa.table({"year": [3], "id": ["a"]}), schema).schema == schema
    for bad, said in (({"id": ["a"], "years": [1]}, "year"), ({"id": ["a"], "year": [70_000]}, "does not fit")):
        with pytest.raises(InputError, match=said):
            conformed(pa.table(bad), schema)
