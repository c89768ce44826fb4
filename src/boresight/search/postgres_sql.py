"""The edited score, and filters, as SQL. Values are bound parameters; names are quoted by psycopg."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from psycopg import sql

from boresight.editing.scoring import MIN_LENGTH
from boresight.search.filters import Reader, Side, parsed
from boresight.search.postgres_types import dense, sql_type, weights
from boresight.search.segments import Layout
from boresight.search.sides import Column

SMALLEST = 1e-18
"""Smaller numbers are 0 in gates and in vectors: pgvector refuses products that underflow, and no score sees them."""
_SIGNS = {
    operator.eq: "=",
    operator.ne: "<>",
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
}


@dataclass(frozen=True)
class Part:
    """SQL with the parameters that its placeholders stand for."""

    text: Any
    values: tuple[Any, ...] = ()


def score_sql(columns: Sequence[Column], layout: Layout) -> Part:
    """The score of a row of the table: what `boresight.search.scan` computes for one query."""
    terms: list[Any] = []
    values: list[Any] = []
    for column in columns:
        one = _column_sql(column, layout)
        terms.append(one.text)
        values += one.values
    bias = sum(column.bias for column in columns)
    if layout.biased and bias:
        terms.append(sql.SQL("(%s::float8 * -_bias)"))
        values.append(bias)
    terms.append(sql.SQL("%s::float8"))
    values.append(float(sum(column.constant for column in columns)))
    return Part(sql.SQL(" + ").join(terms), tuple(values))


def _column_sql(column: Column, layout: Layout) -> Part:
    vector = dense_name(layout.dense[column.matrix], layout)
    terms = [sql.SQL("-({} <#> %s)").format(vector)]
    values: list[Any] = [dense(column.dense[None], "vector")[0]]
    for name, latent in zip(layout.values, column.latent, strict=True):
        for part in weights(latent) if latent is not None else ():
            terms.append(sql.SQL("-(%s <#> {})").format(sql.Identifier(f"_{name}")))
            values.append(part)
    text: Any = sql.SQL("({})").format(sql.SQL(" ").join(terms))
    if column.gate is not None and column.exponent:
        gate = np.where(np.abs(column.gate) < SMALLEST, 0, column.gate)
        text = sql.SQL("({} / power(greatest(vector_norm({} * %s), %s), %s))").format(text, vector)
        values += [dense(gate[None], "vector")[0], MIN_LENGTH, float(column.exponent)]
    return Part(text, tuple(values))


def dense_name(name: str, layout: Layout) -> Any:
    """A column of vectors, in float32: a query rounded to float16 would give other scores."""
    quoted = sql.Identifier(f"_{name}")
    return quoted if layout.dtype == "float32" else sql.SQL("{}::vector").format(quoted)


def where_sql(where: Any, schema: Any) -> Part:
    """A filter in the grammar of `boresight.search.filters`; rows whose value is missing fail, as there."""
    return Part(sql.SQL("TRUE")) if where is None else parsed(where, schema, _SqlReader)


def table_sql(table: Any, layout: Layout, schema: Any) -> Any:
    """The statement that makes the table of an index.

    Rows are kept whole on their page up to its size: moved out of line, as PostgreSQL does from 2 kB on, a vector costs
    eight times as much to read.
    """
    kind = "vector" if layout.dtype == "float32" else "halfvec"
    own = [f"_{name} {kind}({layout.width}) NOT NULL" for name in layout.dense]
    own += [f"_{name} sparsevec({layout.n_latents}) NOT NULL" for name in layout.values]
    own += ["_norm real NOT NULL", *(["_bias real NOT NULL"] if layout.biased else [])]
    users = [
        sql.SQL("{} {}").format(sql.Identifier(field.name), sql.SQL(sql_type(field)))
        for field in schema
        if field.name not in ("id", "split", "captions")
    ]
    columns = [
        sql.SQL("_row bigint GENERATED ALWAYS AS IDENTITY"),
        sql.SQL('id text COLLATE "C" PRIMARY KEY'),
        sql.SQL('split text COLLATE "C"'),
        sql.SQL("captions text[]"),
        *(sql.SQL(text) for text in own),
        *users,
    ]
    return sql.SQL("CREATE TABLE {} ({}) WITH (toast_tuple_target = 8160)").format(table, sql.SQL(", ").join(columns))


class _SqlReader(Reader):
    def joined(self, every: bool, parts: list[Part]) -> Part:
        text = sql.SQL(" AND " if every else " OR ").join([part.text for part in parts])
        return Part(sql.SQL("({})").format(text), tuple(value for part in parts for value in part.values))

    def negated(self, part: Part) -> Part:
        return Part(sql.SQL("(NOT {})").format(part.text), part.values)

    def flag(self, column: str) -> Part:
        return Part(sql.Identifier(column))

    def missing(self, column: str) -> Part:
        return Part(sql.SQL("({} IS NULL)").format(sql.Identifier(column)))

    def contained(self, column: str, values: list[Any]) -> Part:
        import pyarrow as pa

        name, given = sql.Identifier(column), [self._bound(one) for one in values if one is not None]
        if not pa.types.is_boolean(self.schema.field(column).type):
            given = [int(one) if isinstance(one, bool) else one for one in given]
        tests = []
        if given:
            places = sql.SQL(", ").join(sql.Placeholder() * len(given))
            tests.append(sql.SQL("({0} IS NOT NULL AND {0} IN ({1}))").format(name, places))
        if len(given) < len(values):
            tests.append(sql.SQL("{} IS NULL").format(name))
        return Part(sql.SQL("({})").format(sql.SQL(" OR ").join(tests or [sql.SQL("FALSE")])), tuple(given))

    def compared(self, compare: Callable[[Any, Any], Any], left: Side, right: Side) -> Part:
        texts = [sql.Identifier(one.column) if one.column else sql.Placeholder() for one in (left, right)]
        values = tuple(self._bound(one.value) for one in (left, right) if not one.column)
        text = sql.SQL("({} {} {})").format(texts[0], sql.SQL(_SIGNS[compare]), texts[1])
        floats = [sql.Identifier(one.column) for one in (left, right) if one.column and self._floats(one.column)]
        if floats and compare is not operator.ne:  # PostgreSQL takes NaN for the largest number, equal to itself
            numbers = sql.SQL(" AND ").join([sql.SQL("{} <> 'NaN'").format(name) for name in floats])
            text = sql.SQL("({} AND {})").format(text, numbers)
        return Part(text, values)

    def _floats(self, column: str) -> bool:
        import pyarrow as pa

        return pa.types.is_floating(self.schema.field(column).type)

    def _bound(self, value: Any) -> Any:
        import pyarrow as pa

        return value.as_py() if isinstance(value, pa.Scalar) else value
