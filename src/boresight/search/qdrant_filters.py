"""Filters as Qdrant reads them: nested conditions, in the form of its REST interface.

Qdrant knows no third value beside true and false: `must_not` lets a missing value through. So each part is kept as two
conditions, where it is true and where it is false, and `not` exchanges them; a missing value is in neither.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from boresight.errors import InputError
from boresight.search.filters import Reader, Side, parsed

_RANGES = {operator.lt: "lt", operator.le: "lte", operator.gt: "gt", operator.ge: "gte"}
_MIRRORED = {operator.lt: operator.gt, operator.le: operator.ge, operator.gt: operator.lt, operator.ge: operator.le}
_OPPOSITE = {operator.lt: operator.ge, operator.le: operator.gt, operator.gt: operator.le, operator.ge: operator.lt}
LARGEST = 2**53
"""Qdrant compares numbers as float64, so larger whole numbers would be taken for their neighbours."""


@dataclass(frozen=True)
class Truth:
    """Conditions that hold where a part of a filter is true, and where it is false."""

    yes: dict[str, Any]
    no: dict[str, Any]


def qdrant_filter(where: str | None, schema: Any) -> dict[str, Any] | None:
    """A filter in the grammar of `boresight.search.filters`; None for all.

    Raises InputError for what Qdrant does not compare: columns with one another, text by < and >, times of day.
    """
    return None if where is None else parsed(where, schema, _QdrantReader).yes


def _every(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"must": parts}


def _any(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"should": parts}


NEVER: dict[str, Any] = {"has_id": []}


class _QdrantReader(Reader):
    def joined(self, every: bool, parts: list[Truth]) -> Truth:
        yes, no = [part.yes for part in parts], [part.no for part in parts]
        return Truth(_every(yes), _any(no)) if every else Truth(_any(yes), _every(no))

    def negated(self, part: Truth) -> Truth:
        return Truth(part.no, part.yes)

    def flag(self, column: str) -> Truth:
        return self._equal(column, True)

    def missing(self, column: str) -> Truth:
        return Truth(_gone(column), _there(column))

    def contained(self, column: str, values: list[Any]) -> Truth:
        tests = [self._equal(column, one).yes for one in values if one is not None]
        tests += [_gone(column)] if None in values else []
        yes = _any(tests) if tests else NEVER
        return Truth(yes, {"must_not": [yes]})

    def compared(self, compare: Callable[[Any, Any], Any], left: Side, right: Side) -> Truth:
        if left.column and right.column:
            raise InputError(f"Qdrant does not compare columns with one another; change the filter '{self.where}'.")
        column, value = (left.column, right.value) if left.column else (right.column, left.value)
        if value is None:
            return Truth(NEVER, NEVER)
        if compare in (operator.eq, operator.ne):
            same = self._equal(column, value)
            return same if compare is operator.eq else self.negated(same)
        compare = compare if left.column else _MIRRORED[compare]
        return Truth(self._range(column, compare, value), self._range(column, _OPPOSITE[compare], value))

    def _equal(self, column: str, value: Any) -> Truth:
        kind = self.schema.field(column).type
        if isinstance(value, str | bool) and (_is(kind, "string") or _is(kind, "boolean")):
            yes = {"key": column, "match": {"value": value}}
        else:
            bound = self._bound(column, value)
            yes = {"key": column, "range": {"gte": bound, "lte": bound}}
        return Truth(yes, {"must": [_there(column)], "must_not": [yes]})

    def _range(self, column: str, compare: Any, value: Any) -> dict[str, Any]:
        return {"key": column, "range": {_RANGES[compare]: self._bound(column, value)}}

    def _bound(self, column: str, value: Any) -> Any:
        import pyarrow as pa

        kind = self.schema.field(column).type
        if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
            return as_time(value.as_py() if isinstance(value, pa.Scalar) else value)
        if isinstance(value, str) or pa.types.is_temporal(kind):
            raise InputError(
                f"Qdrant does not compare the column '{column}', which holds {kind}, by size; change the filter "
                f"'{self.where}'."
            )
        if abs(value) > LARGEST:
            raise InputError(f"Qdrant compares numbers up to {LARGEST:,}; change the filter '{self.where}'.")
        return float(value)


def as_time(value: Any) -> str:
    """A date or time as Qdrant reads it; without a zone it is taken as UTC."""
    import datetime as dt

    if not isinstance(value, dt.datetime):
        value = dt.datetime.combine(value, dt.time())
    return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).isoformat()


def to_payload(value: Any, column: str) -> Any:
    """A value of a column as Qdrant keeps it. Raises InputError for NaN and infinity, which JSON has not."""
    import datetime as dt
    import math

    if isinstance(value, dt.date):
        return as_time(value)
    if isinstance(value, dt.time):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"The column '{column}' holds {value}, which Qdrant does not keep; leave such values empty.")
    return value


def from_payload(value: Any, kind: Any) -> Any:
    """The value of a column of a type of pyarrow, from what Qdrant keeps."""
    import datetime as dt

    import pyarrow as pa

    if value is None or not pa.types.is_temporal(kind):
        return value
    if pa.types.is_time(kind):
        return dt.time.fromisoformat(value)
    time = dt.datetime.fromisoformat(value)
    if pa.types.is_date(kind):
        return time.date()
    return time if kind.tz else time.replace(tzinfo=None)


def payload_kind(kind: Any) -> str | None:
    """What an index of Qdrant is to know of a column; None where it has none of the type."""
    import pyarrow as pa

    kinds = {"keyword": "string", "bool": "boolean", "integer": "integer", "float": "floating"}
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return "datetime"
    return next((name for name, test in kinds.items() if _is(kind, test)), None)


def _gone(column: str) -> dict[str, Any]:
    return {"is_empty": {"key": column}}


def _there(column: str) -> dict[str, Any]:
    return {"must_not": [_gone(column)]}


def _is(kind: Any, name: str) -> bool:
    import pyarrow as pa

    return getattr(pa.types, f"is_{name}")(kind)
