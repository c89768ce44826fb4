"""Figures of a comparison: rows by seed, their mean and spread, as a table, csv and json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from boresight.brief import Brief, brief
from boresight.errors import ArtefactError, first_line
from boresight.evaluation.comparison_rows import Row
from boresight.evaluation.retrieval import DIRECTIONS, METRICS, RECALLS
from boresight.evaluation.verdict import Verdict
from boresight.storage import as_said, replace_json, replace_text
from boresight.tables import Spread, csv_text, table

ALL_KINDS = "all"


@dataclass(frozen=True)
class HeldOut:
    """A test set: its size, how many captions it has of each kind, and in words what of it was left out."""

    name: str
    n_images: int
    n_texts: int
    kinds: Mapping[str, int] = field(default_factory=dict)
    left_out: str = ""


@dataclass(frozen=True, repr=False)
class Comparison(Brief):
    """Retrieval of every row on every test set over the seeds.

    Attributes:
        rows: the lines of the table, in order.
        tests: the test sets, in order.
        seeds: the seeds that were run.
        figures: test set -> row -> seed (as a string; '-' for a row that no seed changes) -> what
            `RetrievalScores.to_dict()` gave.
        measures: seed -> measures of its sparse autoencoder.
        facts: what was run: settings, versions, sizes, times.
        verdicts: test set -> 'edited' against the best alternative; empty where 'edited' was not run.
    """

    rows: Sequence[Row]
    tests: Sequence[HeldOut]
    seeds: Sequence[int]
    figures: Mapping[str, Mapping[str, Mapping[str, Any]]]
    measures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)

    def values(self, test: str, row: str, measure: str, kind: str = ALL_KINDS) -> list[float]:
        """One value a seed; measure: say 'T2I R@1'."""
        results = self.figures[test][row].values()
        return [(result if kind == ALL_KINDS else result["kinds"][kind])[measure] for result in results]

    def spread(self, test: str, row: str, measure: str, kind: str = ALL_KINDS) -> Spread:
        """Over the seeds."""
        return Spread.of(self.values(test, row, measure, kind))

    def gain(self, test: str, row: str, over: str, measure: str, kind: str = ALL_KINDS) -> Spread:
        """Difference `row` - `over`, seed by seed, and its spread."""
        mine, other = (self.values(test, name, measure, kind) for name in (row, over))
        size = max(len(mine), len(other))  # a row without chance in it has one value for all seeds
        pairs = zip(mine * (size // len(mine)), other * (size // len(other)), strict=True)
        return Spread.of([a - b for a, b in pairs])

    def table(self, test: str, kind: str = ALL_KINDS) -> str:
        """Recalls in percent of one test set, aligned for a terminal."""
        held = next(entry for entry in self.tests if entry.name == test)
        seeds = f"mean ± standard deviation over {len(self.seeds)} seeds" if len(self.seeds) > 1 else "one seed"
        captions = held.n_texts if kind == ALL_KINDS else held.kinds[kind]
        missing = f"left out: {held.left_out}\n" if held.left_out else ""
        title = f"{test}{'' if kind == ALL_KINDS else f', {kind} captions'}"
        rows = [
            [row.name, *(self.spread(test, row.name, measure, kind).text() for measure in RECALLS)] for row in self.rows
        ]
        return table(
            ["", *RECALLS],
            rows,
            f"{title}: {held.n_images:,} images, {captions:,} captions; recall in %, {seeds}\n"
            f"{missing}{', '.join(DIRECTIONS.values())}",
        )

    def _parts(self) -> dict[str, str]:
        said = {test: repr(of_test.word) for test, of_test in self.verdicts.items()}
        sizes = {"rows": str(len(self.rows)), "tests": str(len(self.tests)), "seeds": str(len(self.seeds))}
        return sizes | {"verdicts": brief(said)} if said else sizes

    def __str__(self) -> str:
        tables = [self.table(test.name) for test in self.tests]
        return "\n\n".join([*tables, *(f"{test}: {said}" for test, said in self.verdicts.items())])

    def save_json(self, file: str | Path) -> None:
        """Write everything, by the names of the attributes."""
        replace_json(Path(file), asdict(self))

    @classmethod
    def load_json(cls, file: str | Path) -> Comparison:
        """Read what `save_json` wrote. Raises ArtefactError where it is missing or something else."""
        try:
            said = json.loads(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ArtefactError(f"{file} cannot be read ({first_line(error)}); run the comparison again.") from error
        with as_said(file, "make"):
            parts = {"rows": Row, "tests": HeldOut}
            lists = {name: [kind(**one) for one in said[name]] for name, kind in parts.items()}
            verdicts = {
                name: Verdict(**{**one, "warnings": tuple(one["warnings"])}) for name, one in said["verdicts"].items()
            }
            return cls(**{**said, **lists, "verdicts": verdicts})

    def save_csv(self, file: str | Path) -> None:
        """One line a figure: test set, row, seed, kind, measure, value."""
        lines = [
            [test.name, row.name, seed, kind, f"{direction} {metric}", f"{values[f'{direction} {metric}']:.6g}"]
            for test in self.tests
            for row in self.rows
            for seed, result in self.figures[test.name][row.name].items()
            for kind, values in {ALL_KINDS: result, **result.get("kinds", {})}.items()
            for direction in DIRECTIONS
            for metric in METRICS
        ]
        replace_text(Path(file), csv_text(["test_set", "row", "seed", "kind", "measure", "value"], lines))
