"""What an evaluation gives: figures by flat name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from boresight.brief import Brief, brief
from boresight.data.problems import Problem
from boresight.errors import InputError
from boresight.tables import html_table, table


@dataclass(frozen=True, repr=False)
class Scores(Brief):
    """Figures of one evaluation, in percent where their documentation says nothing else.

    Attributes:
        values: name of a figure, say 'T2I R@1' -> value.
        main: the name of the one to quote where there is room for one.
        name: what was measured.
        counts: what it was measured on, say 'images' -> how many.
        chance: name of a figure -> what a score that knows nothing gets, where that is known.
        problems: what was left out.
    """

    values: Mapping[str, float]
    main: str
    name: str
    counts: Mapping[str, int] = field(default_factory=dict)
    chance: Mapping[str, float] = field(default_factory=dict)
    problems: Sequence[Problem] = ()

    def __getitem__(self, measure: str) -> float:
        """Raises InputError for a figure that there is none of, naming those there are."""
        if measure not in self.values:
            raise InputError(f"There is no '{measure}' of {self.name}; choose from {', '.join(self.values)}.")
        return self.values[measure]

    @property
    def title(self) -> str:
        """'holiday: 50 images, 170 captions'."""
        return f"{self.name}: {', '.join(f'{count:,} {what}' for what, count in self.counts.items())}"

    def to_dict(self) -> dict[str, Any]:
        """Values and counts by name, as json can hold them."""
        return {**self.values, **self.counts}

    def _parts(self) -> dict[str, str]:
        return {"name": brief(self.name), **{name: f"{value:.2f}" for name, value in self.values.items()}}

    def _table(self) -> tuple[Sequence[str], Sequence[Sequence[str]], str]:
        """Headings, rows and title, for `table` and `html_table`."""
        columns = {"value": self.values, **({"chance": self.chance} if self.chance else {})}
        rows = [
            [name, *(f"{column[name]:.2f}" if name in column else "" for column in columns.values())]
            for name in self.values
        ]
        return ["", *columns], rows, self.title

    def __str__(self) -> str:
        return table(*self._table())

    def _repr_html_(self) -> str:
        """The table, for a notebook."""
        return html_table(*self._table())


def percent(marks: Tensor) -> float:
    """How many of the marks, booleans, are set; NaN of none."""
    return 100 * float(marks.double().mean())
