"""What a benchmark is run on, what running it gives, and the facts that stand beside its figures."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from boresight.benchmarks.record import BenchmarkResult
from boresight.brief import Brief
from boresight.data import Collection
from boresight.data.problems import Problem
from boresight.editing import CaptionEditor, Scorer
from boresight.editing.scorer import ways
from boresight.embeddings import Embeddings, embed
from boresight.embeddings.batches import LongText
from boresight.encoders import Encoder
from boresight.errors import InputError
from boresight.evaluation.results import Scores

ALL_SPLITS = "left out, in all splits"
_READ: dict[LongText, str] = {"truncate": "cut", "windows": "read in windows"}
ScoresByWay = dict[str, dict[str, float]]
"""'plain', and 'edited' where there is an editor -> measure -> value."""


@dataclass(frozen=True, kw_only=True, repr=False)
class BenchmarkJob(Brief):
    """What a benchmark is run on.

    Attributes:
        encoder: the model that is measured.
        data: the folder of its files as published; for those that take any collection, the collection.
        out: where embeddings of a collection are kept, so that a run goes on after a stop.
        editor: what edits; None measures the plain model alone.
        images: the folder of the pictures, where they do not lie where the files say.
        long_text: what becomes of captions longer than the model reads, `boresight.embeddings.embed`.
        device: where plain scores of retrieval are taken; an editor scores in its own place.
        workers: threads that read pictures.
        seed: of whatever is drawn.
        classes, templates: of zero-shot, files with a class name or a sentence with {} a line.
        bank: of retrieval with an editor, embeddings of this encoder with the split 'validation', to choose how much
            hubness is taken off plain scores, and 'train', for an editor that remembers no pairs; left out, what the
            editor remembers serves for both.
        labels: of alignment, what the collection says of its pictures, as `labels_in` reads it: the object first.
    """

    encoder: Encoder
    data: Path | Collection
    out: Path
    editor: CaptionEditor | None = None
    images: Path | None = None
    long_text: LongText = "truncate"
    device: str | None = None
    workers: int = 2
    seed: int = 0
    classes: Path | None = None
    templates: Path | None = None
    labels: Sequence[str] = ()
    bank: Embeddings | None = None

    @property
    def ways(self) -> dict[str, Scorer]:
        """What scores, by the name that figures have: the plain cosine, and the editor where there is one."""
        return ways(self.editor)

    @property
    def folder(self) -> Path:
        """Raises InputError where a collection was passed."""
        if isinstance(self.data, Collection):
            raise InputError("This benchmark reads its own files; pass the folder that holds them.")
        return self.data

    @property
    def collection(self) -> Collection:
        """Raises InputError where a folder was passed."""
        if not isinstance(self.data, Collection):
            raise InputError("This benchmark takes any collection of captioned images; pass one.")
        return self.data

    @property
    def subject(self) -> str:
        """A collection's name and splits, a folder's name."""
        if isinstance(self.data, Collection):
            return f"{self.data.name or 'a collection'}, {', '.join(sorted(set(self.data.splits)))}"
        return self.data.resolve().name

    def embedded(self, collection: Collection, on_error: Literal["skip", "refuse"] = "skip") -> Embeddings:
        """Embeddings of a collection, kept in `out`; what was embedded before a stop is used."""
        return embed(
            self.encoder,
            collection,
            self.out / "embeddings",
            workers=self.workers,
            long_text=self.long_text,
            on_error=on_error,
        )


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        title: how tables name it, told apart from others of like name.
        run: from a job to its result.
        any_collection: it takes any collection of captioned images, and not files of its own.
        any_folder: its files are anybody's, so that its title does not tell what it ran on.
        takes: the fields of a job, of those in `registry.OPTIONS`, that mean something to it.
    """

    title: str
    run: Callable[[BenchmarkJob], BenchmarkResult]
    any_collection: bool = False
    any_folder: bool = False
    takes: frozenset[str] = frozenset()


def stamp(what: Any) -> str:
    """A few letters that tell data apart; of what json can hold."""
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:8]


def long_captions(count: int, how: LongText = "truncate") -> dict[str, str]:
    """What became of captions longer than the model reads; nothing where there was none."""
    return {"captions longer than the model reads": f"{count:,}, {_READ[how]}"} if count else {}


def count_facts(scores: Scores, unit: str, published: int | None, chance: str = "") -> dict[str, str]:
    """Of scores of items how many there were, here and where they are published (None: not known), and their chance."""
    count = scores.counts[unit]
    facts = {unit: f"{count:,}", **({"chance": chance} if chance else {}), **left_out(scores.problems)}
    return long_captions(scores.counts.get("cut captions", 0)) | facts | not_as_published(unit, count, published)


def size_facts(embeddings: Embeddings, problems: Sequence[Problem] = ()) -> dict[str, str]:
    """How many images and captions there were, how many captions were too long, and what was left out."""
    unread = [Problem("unreadable picture", "")] * len(embeddings.manifest.get("problems", ()))
    bare = len(embeddings) - len(embeddings.owners.unique())
    images = f"{len(embeddings):,}{f', {bare:,} without a caption' if bare else ''}"
    facts = {"images": images, "captions": f"{len(embeddings.owners):,}"}
    facts |= long_captions(embeddings.manifest.get("truncated_captions", 0), "truncate")
    facts |= long_captions(embeddings.manifest.get("windowed_captions", 0), "windows")
    return facts | left_out([*problems, *unread])


def left_out(problems: Sequence[Problem], label: str = "left out") -> dict[str, str]:
    """How many of each kind of problem; nothing where there was none."""
    counts = Counter(problem.what for problem in problems)
    return {label: ", ".join(f"{count:,} x {what}" for what, count in counts.items())} if counts else {}


def not_as_published(what: str, here: int, there: int | None) -> dict[str, str]:
    """What makes a figure another than the published one; `there` is None for what is not known."""
    return {} if there is None or there == here else {f"{what}, not as published": f"{here:,} of {there:,}"}
