"""Figures of a comparison: rows by seed, their mean and spread, as a table, csv and json."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from boresight.errors import ArtefactError
from boresight.evaluation.retrieval import DEPTHS, DIRECTIONS, METRICS
from boresight.storage import replace_file

ALL_KINDS = "all"


@dataclass(frozen=True)
class Row:
    """One line of the table. `role`: 'baseline', 'opponent' (a rival to beat), 'ours' or 'control' (must not win)."""

    name: str
    role: str
    meaning: str


@dataclass(frozen=True)
class HeldOut:
    """A test set: its size, and how many captions it has of each kind."""

    name: str
    n_images: int
    n_texts: int
    kinds: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Spread:
    """Mean over seeds and sample standard deviation; None for a single value, or one that no seed changes."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one value a seed."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else None)

    def text(self, digits: int = 1, sign: str = "") -> str:
        """'1.2 ± 0.3'; a `sign` of '+' shows that of a gain too."""
        mean = f"{self.mean:{sign}.{digits}f}"
        return mean if self.deviation is None else f"{mean} ± {self.deviation:.{digits}f}"


@dataclass(frozen=True)
class Comparison:
    """Retrieval of every row on every test set over the seeds.

    Attributes:
        rows: the lines of the table, in order.
        tests: the test sets, in order.
        seeds: the seeds that were run.
        figures: test set -> row -> seed (as a string; '-' for a row that no seed changes) -> what
            `RetrievalResult.to_dict()` gave.
        measures: seed -> measures of its sparse autoencoder.
        facts: what was run: settings, versions, sizes, times.
    """

    rows: Sequence[Row]
    tests: Sequence[HeldOut]
    seeds: Sequence[int]
    figures: Mapping[str, Mapping[str, Mapping[str, Any]]]
    measures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def values(self, test: str, row: str, direction: str, metric: str, kind: str = ALL_KINDS) -> list[float]:
        """One value a seed."""
        results = self.figures[test][row].values()
        parts = [result if kind == ALL_KINDS else result["kinds"][kind] for result in results]
        return [part[direction][metric] for part in parts]

    def spread(self, test: str, row: str, direction: str, metric: str, kind: str = ALL_KINDS) -> Spread:
        values = self.values(test, row, direction, metric, kind)
        return Spread.of(values)

    def gain(self, test: str, row: str, over: str, direction: str, metric: str, kind: str = ALL_KINDS) -> Spread:
        """Difference `row` - `over`, seed by seed, and its spread."""
        mine, other = (self.values(test, name, direction, metric, kind) for name in (row, over))
        size = max(len(mine), len(other))  # a row without chance in it has one value for all seeds
        pairs = zip(mine * (size // len(mine)), other * (size // len(other)), strict=True)
        differences = [a - b for a, b in pairs]
        return Spread.of(differences)

    def table(self, test: str, kind: str = ALL_KINDS) -> str:
        """Recalls in percent of one test set, aligned for a terminal."""
        where = next(entry for entry in self.tests if entry.name == test)
        seeds = f"mean ± standard deviation over {len(self.seeds)} seeds" if len(self.seeds) > 1 else "one seed"
        texts = where.n_texts if kind == ALL_KINDS else where.kinds[kind]
        label = max(len(row.name) for row in self.rows) + 2
        cells = [
            [self.spread(test, row.name, direction, f"R@{k}", kind).text() for direction in DIRECTIONS for k in DEPTHS]
            for row in self.rows
        ]
        heading = max(len(words) for words in DIRECTIONS.values()) + 2
        width = max(max(len(cell) for line in cells for cell in line) + 2, -(-heading // len(DEPTHS)))
        title = f"{test}{'' if kind == ALL_KINDS else f', {kind} captions'}"
        lines = [
            f"{title}: {where.n_images:,} images, {texts:,} captions; recall in %, {seeds}",
            " " * label + "".join(f"{words:>{width * len(DEPTHS)}}" for words in DIRECTIONS.values()),
            " " * label + "".join(f"{f'R@{k}':>{width}}" for k in DEPTHS) * len(DIRECTIONS),
        ]
        for row, line in zip(self.rows, cells, strict=True):
            lines.append(f"{row.name:<{label}}" + "".join(f"{cell:>{width}}" for cell in line))
        return "\n".join(lines)

    def __str__(self) -> str:
        return "\n\n".join(self.table(test.name) for test in self.tests)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Comparison:
        return cls(
            rows=[Row(**row) for row in value["rows"]],
            tests=[HeldOut(**test) for test in value["tests"]],
            seeds=list(value["seeds"]),
            figures=value["figures"],
            measures=value["measures"],
            facts=value["facts"],
        )

    def save_json(self, file: str | Path) -> None:
        replace_json(Path(file), self.to_dict())

    @classmethod
    def load_json(cls, file: str | Path) -> Comparison:
        """Raises ArtefactError when the file is missing or no comparison."""
        try:
            return cls.from_dict(json.loads(Path(file).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtefactError(f"{file} holds no comparison ({error}); run the comparison again.") from error

    def save_csv(self, file: str | Path) -> None:
        """One line per figure: test set, row, seed, kind, direction, metric, value."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["test_set", "row", "seed", "kind", "direction", "metric", "value"])
        for test in self.tests:
            for row in self.rows:
                for seed, result in self.figures[test.name][row.name].items():
                    for kind, values in {ALL_KINDS: result, **result.get("kinds", {})}.items():
                        for direction in DIRECTIONS:
                            for metric in METRICS:
                                value = f"{values[direction][metric]:.6g}"
                                writer.writerow([test.name, row.name, seed, kind, direction, metric, value])
        replace_text(Path(file), text.getvalue())


def replace_json(file: Path, value: Any) -> None:
    replace_text(file, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def replace_text(file: Path, text: str) -> None:
    """Write a file whole or not at all. Raises ArtefactError when the place cannot be written."""
    replace_file(file, text.encode())
