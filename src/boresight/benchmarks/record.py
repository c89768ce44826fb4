"""What a run on a benchmark of the field gave, as a folder keeps it, and what others have published on it."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from boresight.brief import Brief, brief
from boresight.errors import ArtefactError
from boresight.evaluation.verdict import Verdict
from boresight.storage import replace_json
from boresight.tables import table

FILE, PICTURES = "benchmark.json", "pictures"
FORMAT = 2
PLAIN, EDITED = "plain", "edited"
EXAMPLE = {"rule", "caption", "ranks", "rankings"}


@dataclass(frozen=True)
class PublishedFigure:
    """One published figure: `measure` is named as runs name it, `value` in percent, `source` says where it stands."""

    benchmark: str
    model: str
    measure: str
    value: float
    source: str


@dataclass(frozen=True, kw_only=True, repr=False)
class BenchmarkResult(Brief):
    """What running a benchmark gives: numbers, ids and the files of small pictures, nothing laid out.

    Attributes:
        scores: 'plain', and 'edited' where there is an editor (and what could be done instead, and a control, where
            there are any) -> measure -> value, in the benchmark's own order.
        charts: the measures to draw.
        lower: the measures of which less is better.
        neutral: those of which neither is.
        data: a fingerprint of the collection it was run on; '' where the title says it.
        facts: sizes, settings, and what was wrong with the data.
        examples: caption queries, as `boresight.benchmarks.retrieval` makes them: 'rule' that picked it, 'caption', and
            by the names of `scores` 'ranks' (of the true image) and 'rankings', images with 'id', 'rank' from 1,
            'right' and 'picture', a file below the run's folder.
        verdict: on 'edited' beside what could be done instead, of retrieval with an editor; None elsewhere.
        pairs: pairs of images and texts in two dimensions, 'plain' and 'edited' -> 'images' and 'texts' -> P points.
    """

    scores: Mapping[str, Mapping[str, float]]
    charts: Sequence[str] = ()
    lower: Sequence[str] = ()
    neutral: Sequence[str] = ()
    data: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    examples: Sequence[Mapping[str, Any]] = ()
    verdict: Verdict | None = None
    pairs: Mapping[str, Mapping[str, Sequence[Sequence[float]]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, repr=False)
class BenchmarkRun(BenchmarkResult):
    """The result of one model on one benchmark.

    Attributes:
        benchmark, title: its short name, and the one that tells it from others of like name.
        subject: the collection it was run on, where it takes any; '' where the title says it.
        model, encoder_fingerprint: what was measured.
        editor: what edited, '' where nothing did.
        folder: where the run is kept; None where it is not.
    """

    benchmark: str
    title: str
    model: str
    encoder_fingerprint: str
    editor: str = ""
    subject: str = ""
    folder: Path | None = field(default=None, compare=False, repr=False)

    @property
    def heading(self) -> str:
        """The title with the collection, where it takes any."""
        return f"{self.title}: {self.subject}" if self.subject else self.title

    def save(self, folder: str | Path) -> None:
        """Write FOLDER/benchmark.json whole or not at all. Raises ArtefactError when it cannot be written."""
        kept = {name: value for name, value in asdict(self).items() if name != "folder"}
        replace_json(Path(folder) / FILE, {"format": FORMAT, **kept})

    @classmethod
    def load(cls, folder: str | Path) -> BenchmarkRun:
        """Raises ArtefactError when the folder holds no run, or one of another format."""
        file = Path(folder) / FILE if Path(folder).is_dir() else Path(folder)
        if (page := Path(folder) / "comparison.html").is_file() and not file.is_file():
            raise ArtefactError(f"{folder} holds a comparison, and its page is there already: {page}.")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            there = content.pop("format", 1)
            if there != FORMAT and "benchmark" in content:
                raise ArtefactError(
                    f"{folder} holds a run of format {there} and this version reads format {FORMAT}; delete {file} and "
                    "run 'boresight evaluate' again."
                )
            if (said := content.pop("verdict", None)) is not None:
                said = Verdict(**{**said, "warnings": tuple(said["warnings"])})
            run = cls(**content, verdict=said, folder=file.parent)
            numbers = [value for values in run.scores.values() for value in values.values()]
            if PLAIN not in run.scores or not all(isinstance(value, (int, float)) for value in numbers):
                raise ValueError(f"'scores' are no numbers by measure, of '{PLAIN}' at least")
            if not isinstance(run.facts, Mapping) or not all(set(each) >= EXAMPLE for each in run.examples):
                raise ValueError("'facts' or 'examples' have another form")
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise ArtefactError(
                f"{folder} holds no run on a benchmark ({error}); pass what 'boresight evaluate --out' wrote."
            ) from error
        return run

    def _parts(self) -> dict[str, str]:
        whose = {"editor": brief(self.editor)} if self.editor else {}
        measured = {way: f"{len(values)} figures" for way, values in self.scores.items()}
        return {"heading": brief(self.heading), "model": brief(self.model), **whose, **measured}

    def __str__(self) -> str:
        measures = list(dict.fromkeys(name for values in self.scores.values() for name in values))
        heading = f"{self.heading}, {self.model}" + (f", edited by {self.editor}" if self.editor else "")
        rows = [[name, *(_shown(values.get(name)) for values in self.scores.values())] for name in measures]
        facts = [f"{name}: {value}" for name, value in self.facts.items()]
        said = [] if self.verdict is None else ["", str(self.verdict)]
        return "\n".join([table(["", *self.scores], rows, heading), *facts, *said])


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


def defined(scores: Mapping[str, Mapping[str, float]]) -> tuple[dict[str, dict[str, float]], list[str]]:
    """The scores that are finite, and the names of the measures of which some are not."""
    finite = {
        way: {measure: value for measure, value in values.items() if math.isfinite(value)}
        for way, values in scores.items()
    }
    return finite, sorted({measure for way, values in scores.items() for measure in values.keys() - finite[way]})


@cache
def published_figures() -> tuple[PublishedFigure, ...]:
    """Figures that papers and leaderboards print, in percent, from `published.csv`."""
    text = files("boresight.benchmarks").joinpath("published.csv").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = list(csv.DictReader(text.splitlines()))
    return tuple(PublishedFigure(**{**row, "value": float(row["value"])}) for row in rows)
