"""Figures of attribution methods: the value of every pair, and their means as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from boresight.errors import InputError
from boresight.tables import Spread
from markdown_tables import markdown

GROUNDED = {
    "pointing_game": ("pointing ↑", 3),
    "energy_in_mask": ("energy ↑", 3),
    "iou": ("IoU ↑", 3),
    "roc_auc": ("AUC ↑", 3),
    "target_vs_distractor": ("target against distractor ↑", 3),
    "swap_test": ("swap ↑", 3),
}
FAITHFUL = {
    "mismatch": ("mismatch ↑", 3),
    "deletion_mean": ("deletion, mean ↓", 3),
    "insertion_mean": ("insertion, mean ↑", 3),
    "deletion_blur": ("deletion, blur ↓", 3),
    "insertion_blur": ("insertion, blur ↑", 3),
    "image_drop": ("Conf-Drop ↓", 2),
    "image_increase": ("Conf-Increase ↑", 1),
    "image_seconds": ("s a pair", 4),
}
TEXTUAL = {
    "text_deletion": ("deletion ↓", 3),
    "text_insertion": ("insertion ↑", 3),
    "text_drop": ("Conf-Drop ↓", 2),
    "text_increase": ("Conf-Increase ↑", 1),
    "text_seconds": ("s a pair", 4),
}
MEASURES: Mapping[str, tuple[str, int]] = {**GROUNDED, **FAITHFUL, **TEXTUAL}
"""Measure -> its heading in a table, with the direction that is better, and its digits."""


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
        return [measure for measure in MEASURES if any(measure in measured for measured in self.values.values())]

    def table(self, measures: Sequence[str] | None = None) -> str:
        """Markdown, a row a method: mean ± standard error over the pairs.

        Raises InputError for a measure that was not taken.
        """
        shown = self.measures() if measures is None else measures
        if unknown := [measure for measure in shown if measure not in MEASURES]:
            raise InputError(f"There is no measure '{unknown[0]}'; choose from {', '.join(MEASURES)}.")

        rows = [[method, *(self._cell(method, measure) for measure in shown)] for method in self.values]
        return markdown(["method", *(MEASURES[measure][0] for measure in shown)], rows)

    def _cell(self, method: str, measure: str) -> str:
        return Spread(self.mean(method, measure), self.error(method, measure)).text(MEASURES[measure][1])

    def _of(self, method: str, measure: str) -> Tensor:
        if measure not in self.values.get(method, {}):
            raise InputError(
                f"There is no '{measure}' of '{method}' for {self.name}; it has the methods {', '.join(self.values)} "
                f"and the measures {', '.join(self.measures())}."
            )
        return self.values[method][measure]
