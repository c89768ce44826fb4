"""Figures of attribution methods: the value of every pair, their means, and means over several seeds, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from boresight.errors import InputError
from boresight.tables import Spread


@dataclass(frozen=True)
class Measure:
    """How a table shows a measure: its heading, with the direction that is better, and its digits."""

    heading: str
    digits: int = 3


GROUNDED = {
    "pointing_game": Measure("pointing ↑"),
    "energy_in_mask": Measure("energy ↑"),
    "iou": Measure("IoU ↑"),
    "roc_auc": Measure("AUC ↑"),
    "target_vs_distractor": Measure("target against distractor ↑"),
    "swap_test": Measure("swap ↑"),
}
FAITHFUL = {
    "mismatch": Measure("mismatch ↑"),
    "deletion_mean": Measure("deletion, mean ↓"),
    "insertion_mean": Measure("insertion, mean ↑"),
    "deletion_blur": Measure("deletion, blur ↓"),
    "insertion_blur": Measure("insertion, blur ↑"),
    "image_drop": Measure("Conf-Drop ↓", 2),
    "image_increase": Measure("Conf-Increase ↑", 1),
    "image_seconds": Measure("s a pair", 4),
}
TEXTUAL = {
    "phrase_auc": Measure("true against false phrase ↑"),
    "top_word": Measure("top word true ↑"),
    "top_word_chance": Measure("chance of that"),
    "text_deletion": Measure("deletion ↓"),
    "text_insertion": Measure("insertion ↑"),
    "text_drop": Measure("Conf-Drop ↓", 2),
    "text_increase": Measure("Conf-Increase ↑", 1),
    "text_seconds": Measure("s a pair", 4),
}
MEASURES: Mapping[str, Measure] = {**GROUNDED, **FAITHFUL, **TEXTUAL}


@dataclass(frozen=True, eq=False)
class AttributionFigures:
    """What `evaluate_attribution` found.

    Attributes:
        name: of the pairs.
        values: method -> measure, one of MEASURES -> (P,) float64, a value a pair.
    """

    name: str
    values: Mapping[str, Mapping[str, Tensor]]

    def mean(self, method: str, measure: str) -> float:
        """Over the pairs. Raises InputError for what was not measured."""
        return float(self._of(method, measure).mean())

    def error(self, method: str, measure: str) -> float:
        """Standard error of the mean, over the pairs alone: chance within a method is the same for all of them."""
        values = self._of(method, measure)
        return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan

    def measures(self) -> list[str]:
        """All that was measured, in the order of MEASURES."""
        return [measure for measure in MEASURES if any(measure in found for found in self.values.values())]

    def table(self, measures: Sequence[str] | None = None) -> str:
        """Markdown, a row a method: mean ± standard error over the pairs.

        Raises InputError for a measure that was not taken.
        """

        def cell(method: str, measure: str) -> str:
            return Spread(self.mean(method, measure), self.error(method, measure)).text(MEASURES[measure].digits)

        return _table(list(self.values), self.measures() if measures is None else measures, cell)

    def to_dict(self) -> dict[str, Any]:
        found = {row: {key: told.tolist() for key, told in by.items()} for row, by in self.values.items()}
        return {"name": self.name, "values": found}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> AttributionFigures:
        return cls(
            value["name"],
            {
                row: {key: torch.tensor(told, dtype=torch.float64) for key, told in by.items()}
                for row, by in value["values"].items()
            },
        )

    def _of(self, method: str, measure: str) -> Tensor:
        if measure not in self.values.get(method, {}):
            raise InputError(
                f"There is no '{measure}' of '{method}' for {self.name}; it has the methods {', '.join(self.values)} "
                f"and the measures {', '.join(self.measures())}."
            )
        return self.values[method][measure]


@dataclass(frozen=True, eq=False)
class AttributionRuns:
    """The same methods and measures, one `AttributionFigures` a seed."""

    runs: Sequence[AttributionFigures]

    def __post_init__(self) -> None:
        if not self.runs:
            raise InputError("There are no runs to join; pass the figures of at least one seed.")

    def spread(self, method: str, measure: str) -> Spread:
        """Over the seeds, of the means over pairs. Raises InputError for what some seed lacks."""
        return Spread.of([run.mean(method, measure) for run in self.runs])

    def table(self, measures: Sequence[str] | None = None) -> str:
        """Markdown, a row a method: mean ± sample standard deviation over the seeds."""

        def cell(method: str, measure: str) -> str:
            return self.spread(method, measure).text(MEASURES[measure].digits)

        first = self.runs[0]
        return _table(list(first.values), first.measures() if measures is None else measures, cell)


def markdown(headings: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """A table: the name of a row, then its cells under `headings`."""
    lines = [f"| method | {' | '.join(headings)} |", "|---" * (1 + len(headings)) + "|"]
    return "\n".join([*lines, *(f"| {row} | {' | '.join(cells)} |" for row, cells in rows.items())])


def _table(methods: Sequence[str], measures: Sequence[str], cell: Any) -> str:
    unknown = [measure for measure in measures if measure not in MEASURES]
    if unknown:
        raise InputError(f"There is no measure '{unknown[0]}'; choose from {', '.join(MEASURES)}.")
    headings = [MEASURES[measure].heading for measure in measures]
    return markdown(headings, {method: [cell(method, measure) for measure in measures] for method in methods})
