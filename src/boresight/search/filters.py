"""Filters: which images may be answers, by their columns, as a short expression that runs no code."""

from __future__ import annotations

import ast
import keyword
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boresight.errors import InputError, first_line, one_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

LONGEST = 2000  # characters
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_HELP = "write such as: year > 2020 and place in ['Rome', 'Oslo'] and not (author is None)."


def matching(table: pa.Table, where: str | pc.Expression) -> np.ndarray:
    """(N,) bool, the rows of a table that a filter lets through. A row whose value is missing fails a comparison.

    Args:
        where: a pyarrow expression, or text: comparisons (== != < <= > >=, chained too) of column names with numbers,
            strings and True or False; `in` and `not in` with a list; `is None`, `is not None`; joined by `and`, `or`,
            `not` and brackets. Dates are compared with strings such as '2024-05-01'. A column whose name is no word
            of Python's is written column('such a name').

    Raises:
        InputError: text that is no such expression, a column that there is not, values that do not compare.

    Example:
        matching(table, "year > 2020 and split == 'test'")
    """
    import numpy as np
    import pyarrow as pa
    from pyarrow import dataset

    expression = parsed(where, table.schema) if isinstance(where, str) else where
    row = "row" + "_" * max(map(len, table.column_names), default=0)  # none of the columns
    numbered = table.append_column(row, pa.array(np.arange(table.num_rows)))
    try:
        # A dataset reads the columns that the expression names, and no others.
        rows = dataset.dataset(numbered).to_table(columns=[row], filter=expression)[row].to_numpy()
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        said = " ".join(str(where).split())
        raise InputError(f"The filter '{said}' cannot be used ({first_line(error)}); {_HELP}") from error
    chosen = np.zeros(table.num_rows, dtype=bool)
    chosen[rows] = True
    return chosen


def parsed(where: str, schema: pa.Schema, reader: type[Reader] | None = None) -> Any:
    """The text as a pyarrow expression, or as what another `reader` makes of it. Raises InputError as `matching`."""
    if len(where) > LONGEST:
        raise InputError(f"The filter has {len(where):,} characters; {LONGEST:,} at most are read.")
    import pyarrow as pa

    unread = (SyntaxError, ValueError, RecursionError, MemoryError)
    no_value = (OverflowError, TypeError, pa.ArrowException)  # a number that no column holds, a list of several kinds
    try:
        return (reader or Reader)(where, schema).read(ast.parse(where.strip(), mode="eval").body)
    except (*unread, *no_value) as error:
        if isinstance(error, InputError):
            raise
        odd = [name for name in schema.names if not name.isidentifier() or keyword.iskeyword(name)]
        named = f"column({odd[0]!r}) is the column of that name; {_HELP}" if odd else _HELP
        raise InputError(f"The filter '{' '.join(where.split())}' cannot be read; {named}") from error


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a column by its name, or a value."""

    column: str = ""
    value: Any = None


class Reader:
    """Reads the text of a filter. What it makes of each part is a pyarrow expression; engines make their own of it.

    A subclass overrides `joined`, `negated`, `flag`, `missing`, `contained` and `compared`. Columns go by their names
    and values as they are written, those of dates as scalars of pyarrow.
    """

    def __init__(self, where: str, schema: pa.Schema) -> None:
        self.where, self.schema = where, schema

    def joined(self, every: bool, parts: list[Any]) -> Any:
        """All of the parts hold, or any of them."""
        joined = parts[0]
        for each in parts[1:]:
            joined = joined & each if every else joined | each
        return joined

    def negated(self, part: Any) -> Any:
        """The part is false; it is neither true nor false where a value is missing."""
        return ~part

    def flag(self, column: str) -> Any:
        """A column of True and False is True."""
        import pyarrow.compute as pc

        return pc.field(column)

    def missing(self, column: str) -> Any:
        """A column has no value."""
        import pyarrow.compute as pc

        return pc.field(column).is_null()

    def contained(self, column: str, values: list[Any]) -> Any:
        """A column has one of the values; false where it has none."""
        import pyarrow as pa
        import pyarrow.compute as pc

        kind = self.schema.field(column).type
        if not values:
            return pc.field(column).isin(pa.array([], kind))
        if pa.types.is_integer(kind):  # one number with a fraction would make floats of all, which are not exact
            values = [one for one in values if not isinstance(one, float) or one.is_integer()]
            values = [int(one) if isinstance(one, float) else one for one in values]
            return self.contained(column, []) if not values else pc.field(column).isin(values)
        return pc.field(column).isin(values)

    def compared(self, compare: Callable[[Any, Any], Any], left: Side, right: Side) -> Any:
        """compare: of the module `operator`. One side at least is a column."""
        import pyarrow as pa
        import pyarrow.compute as pc

        kinds = [self.schema.field(one.column).type for one in (left, right) if one.column]
        fractions = any(pa.types.is_floating(kind) for kind in kinds) or isinstance(left.value or right.value, float)
        sides = []
        for one in (left, right):
            side = pc.field(one.column) if one.column else pc.scalar(one.value)
            if one.column and fractions and pa.types.is_integer(self.schema.field(one.column).type):
                side = side.cast(pa.float64(), safe=False)  # else large ones are refused
            sides.append(side)
        return compare(*sides)

    def read(self, node: ast.expr) -> Any:
        """What is made of a part of the text. Raises InputError where it is not in the grammar."""
        if isinstance(node, ast.BoolOp):
            return self.joined(isinstance(node.op, ast.And), [self.read(each) for each in node.values])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return self.negated(self.read(node.operand))
        if isinstance(node, ast.Compare):
            pairs = zip([node.left, *node.comparators], node.ops, node.comparators, strict=False)
            return self.joined(True, [self._one(left, op, right) for left, op, right in pairs])
        if (name := self._name(node)) is not None:
            return self.flag(self._column(name))
        raise self._unread(node)

    def _one(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Any:
        name = self._name(left)
        if isinstance(op, ast.Is | ast.IsNot) and name is not None and self._literal(right) is None:
            missing = self.missing(self._column(name))
            return missing if isinstance(op, ast.Is) else self.negated(missing)
        if isinstance(op, ast.In | ast.NotIn) and name is not None and isinstance(right, ast.List | ast.Tuple):
            column = self._column(name)
            found = self.contained(column, [self._value(self._literal(each), column) for each in right.elts])
            return found if isinstance(op, ast.In) else self.negated(found)
        compare = _COMPARISONS.get(type(op))
        names = [name, self._name(right)]
        known = [self._column(each) for each in names if each is not None]
        if compare is None or not known:
            raise self._unread(left)
        sides = [
            Side(column=own) if own is not None else Side(value=self._value(self._literal(each), known[0]))
            for own, each in zip(names, (left, right), strict=True)
        ]
        if any(not side.column and side.value is None for side in sides):
            raise InputError(f"Nothing is equal to None in the filter '{self.where}'; write {known[0]} is None.")
        return self.compared(compare, *sides)

    def _name(self, node: ast.expr) -> str | None:
        """The column that is named, or None."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "column":
            given = node.args[0] if len(node.args) == 1 and not node.keywords else None
            if isinstance(given, ast.Constant) and isinstance(given.value, str):
                return given.value
        return node.id if isinstance(node, ast.Name) else None

    def _literal(self, node: ast.expr) -> Any:
        negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
        inner = node.operand if isinstance(node, ast.UnaryOp) and negative else node
        if not isinstance(inner, ast.Constant) or not isinstance(inner.value, str | int | float | bool | None):
            raise self._unread(node)
        return -inner.value if negative else inner.value  # type: ignore[operator]

    def _value(self, value: Any, column: str) -> Any:
        import numpy as np
        import pyarrow as pa

        kind = self.schema.field(column).type
        if pa.types.is_float32(kind) and isinstance(value, float):
            return float(np.float32(value))  # as the column rounded its own
        if pa.types.is_string(kind) != isinstance(value, str) and not (pa.types.is_temporal(kind) or value is None):
            wanted = f"text, such as {column} == '{value}'" if pa.types.is_string(kind) else f"{kind}, not text"
            raise InputError(f"The column '{column}' holds {wanted}; change the filter '{self.where}'.")
        if pa.types.is_temporal(kind) and isinstance(value, str):
            try:
                return pa.scalar(value).cast(kind)
            except pa.ArrowException as error:
                raise InputError(f"'{value}' is no {kind} for the column '{column}'; {_HELP}") from error
        return value

    def _column(self, name: str) -> str:
        if name not in self.schema.names:
            raise InputError(f"The index has no column '{name}'; {one_of(name, self.schema.names)}.")
        return name

    def _unread(self, node: ast.expr) -> InputError:
        part = ast.get_source_segment(self.where.strip(), node) or self.where
        return InputError(f"'{part}' in the filter '{self.where}' is not read; {_HELP}")
