"""What a run on a benchmark of the field found, as a folder keeps it, and what others have published on it."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from boresight.errors import ArtefactError
from boresight.evaluation.results import replace_json

FILE = "benchmark.json"
PLAIN, EDITED = "plain", "edited"
EXAMPLE = {"rule", "title", "note", "shelves"}


@dataclass(frozen=True)
class Published:
    """One published figure: `measure` is named as runs name it, `value` in percent, `source` says where it stands."""

    benchmark: str
    model: str
    measure: str
    value: float
    source: str


@dataclass(frozen=True)
class BenchmarkRun:
    """Figures of one model on one benchmark.

    Attributes:
        benchmark, title: its short name, and the one that tells it from others of like name.
        subject: the collection it was run on, where it takes any; '' where the title says it.
        data: a fingerprint of that collection.
        model, encoder_fingerprint: what was measured.
        editor: what edited, '' where nothing did.
        scores: 'plain', and 'edited' where there is an editor (and a control, where there is one) -> measure -> value,
            in the benchmark's own order.
        charts: the measures to draw.
        lower: the measures of which less is better.
        neutral: those of which neither is.
        facts: sizes, settings, and what was wrong with the data.
        examples: queries with their pictures, as `boresight.benchmarks.examples` makes them.
        figures: pictures that others would rather look at, (what they show, data address).
    """

    benchmark: str
    title: str
    model: str
    encoder_fingerprint: str
    scores: Mapping[str, Mapping[str, float]]
    editor: str = ""
    charts: Sequence[str] = ()
    lower: Sequence[str] = ()
    neutral: Sequence[str] = ()
    subject: str = ""
    data: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    examples: Sequence[Mapping[str, Any]] = ()
    figures: Sequence[tuple[str, str]] = ()

    @property
    def heading(self) -> str:
        return f"{self.title}: {self.subject}" if self.subject else self.title

    def save(self, folder: str | Path) -> None:
        """Write FOLDER/benchmark.json whole or not at all. Raises ArtefactError when it cannot be written."""
        replace_json(Path(folder) / FILE, asdict(self))

    @classmethod
    def load(cls, folder: str | Path) -> BenchmarkRun:
        """Raises ArtefactError when the folder holds no run."""
        file = Path(folder) / FILE if Path(folder).is_dir() else Path(folder)
        try:
            found = cls(**json.loads(file.read_text(encoding="utf-8")))
            found.check()
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ArtefactError(
                f"{folder} holds no run on a benchmark ({error}); pass what 'boresight evaluate --out' wrote."
            ) from error
        return found

    def check(self) -> None:
        """Raises ValueError, TypeError or AttributeError for what a page cannot show."""
        numbers = [value for values in self.scores.values() for value in values.values()]
        if PLAIN not in self.scores or not all(isinstance(value, (int, float)) for value in numbers):
            raise ValueError(f"'scores' are no numbers by measure, of '{PLAIN}' at least")
        if not isinstance(self.facts, Mapping) or not all(set(each) >= EXAMPLE for each in self.examples):
            raise ValueError("'facts' or 'examples' have another form")

    def __str__(self) -> str:
        measures = list(dict.fromkeys(name for values in self.scores.values() for name in values))
        label = max(12, *(len(name) + 2 for name in measures))
        heading = f"{self.heading}, {self.model}" + (f", edited by {self.editor}" if self.editor else "")
        width = max(10, *(len(name) + 2 for name in self.scores))
        lines = [heading, " " * label + "".join(f"{name:>{width}}" for name in self.scores)]
        lines += [
            f"{name:<{label}}" + "".join(f"{_shown(values.get(name)):>{width}}" for values in self.scores.values())
            for name in measures
        ]
        return "\n".join([*lines, *(f"{name}: {value}" for name, value in self.facts.items())])


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


@cache
def published() -> tuple[Published, ...]:
    """Figures that papers and leaderboards print, in percent, from `published.csv`."""
    text = files("boresight.benchmarks").joinpath("published.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return tuple(
        Published(row["benchmark"], row["model"], row["measure"], float(row["value"]), row["source"]) for row in rows
    )
