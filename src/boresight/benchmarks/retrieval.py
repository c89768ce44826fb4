"""Retrieval, both directions: on a collection, and on the retrieval benchmarks of the field, opened as published."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
from datasets import Dataset

from boresight.benchmarks.files import PublishedFiles
from boresight.benchmarks.job import BenchmarkJob, BenchmarkResult, not_as_published, size_facts
from boresight.benchmarks.record import EDITED, PICTURES, PLAIN
from boresight.data.assemble import assemble, dataset_of
from boresight.data.collection import Collection
from boresight.data.files import finder, folder_of_images
from boresight.data.images import thumbnail
from boresight.data.problems import Problem, counted, printable, summary
from boresight.data.rows import SourceRow
from boresight.device import pick_device
from boresight.editing.scorer import PlainScorer, Scorer
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation.alternatives import fitted_parts, judge_editor, untrained_alternatives
from boresight.evaluation.examples import ranked_queries
from boresight.evaluation.retrieval import RECALLS, RetrievalScores, evaluate_retrieval
from boresight.progress import say
from boresight.storage import replace_file

Draft = tuple[Dataset, list[Problem]]
Split = Callable[[str], list[str]]
"""From a caption to its sentences."""
Figures = Callable[[Scorer], Mapping[str, float]]
"""From what scores to figures by name."""


@dataclass(frozen=True)
class PublishedRetrieval:
    """A retrieval benchmark of the field.

    Attributes:
        name: what to call it here.
        title: how tables name it, told apart from others of like name.
        source: where its files are published.
        read: from its files to a dataset and what was wrong.
        pictures: folders, below the one that is passed, that may hold the pictures; "" is that one itself, and '*'
            stands for anything.
        counts: images and captions where it is published, empty ones too; None for what is not known.
        folds: into how many galleries it is cut; a figure on it is their mean.
        more: further figures of a scorer, from its files and the embeddings of its collection.
    """

    name: str
    title: str
    source: str
    read: Callable[[PublishedFiles], Draft]
    pictures: tuple[str, ...]
    counts: tuple[int | None, int | None] = (None, None)
    folds: int = 1
    more: Callable[[PublishedFiles, Embeddings], Figures] | None = None

    def galleries(self, images: int) -> list[range]:
        """Rows of each gallery when `images` were read: `folds` runs of equal length, in the order of the file."""
        bounds = [round(images * fold / self.folds) for fold in range(self.folds + 1)]
        return [range(start, stop) for start, stop in pairwise(bounds)]

    def differs(self, images: int, captions: int) -> dict[str, tuple[int, int]]:
        """'images' and 'captions', where there are not as many as published -> how many here, how many there."""
        counts = zip(("images", "captions"), (images, captions), self.counts, strict=True)
        return {what: (count, there) for what, count, there in counts if there is not None and count != there}

    def facts(self, embeddings: Embeddings) -> dict[str, str]:
        """Where there are not as many images or captions as published."""
        bare = len(embeddings) - len(embeddings.owners.unique())
        differences = self.differs(len(embeddings), len(embeddings.owners) + bare).items()
        return {name: text for what, counts in differences for name, text in not_as_published(what, *counts).items()}

    def open(self, folder: str | Path, images: str | Path | None = None) -> Collection:
        """The benchmark as its files lie in `folder`; see `boresight.benchmarks.open_published`."""
        root = Path(folder) if images is None else folder_of_images(images)
        folders = [base for below in self.pictures for base in (sorted(root.glob(below)) if below else [root])]
        bases = [base for base in folders if base.is_dir()] or [root]
        dataset, problems = self.read(PublishedFiles(folder, self.title, self.source, bases))
        problems = [Problem(problem.what, printable(problem.where)) for problem in problems]
        missing = [problem.where for problem in problems if problem.what == "missing file"]
        if not len(dataset):
            if missing:
                raise InputError(
                    f"None of the {len(missing)} pictures of {self.title} is there, the first looked for as "
                    f"{bases[0] / missing[0]}; pass `images`, the folder that holds them ({self.source})."
                )
            what = summary(problems) or "its file holds no test images"
            raise InputError(f"Nothing of {self.title} can be used: {what}; get it anew from {self.source}.")
        split = pa.array(["test"] * len(dataset), pa.string())
        table = dataset.data.table
        table = table.set_column(table.column_names.index("split"), "split", split)
        collection = Collection(dataset_of(table), self.name, tuple(problems))
        if problems:
            fewer = "; figures over fewer images are not the published ones" if missing else ""
            say(f"{self.title}: skipped {summary(problems)}{fewer}.")
        bare = int((collection.counts == 0).sum())
        if bare:
            say(f"{self.title}: {counted(len(collection), 'image')}, {bare:,} of them without a caption.")
        for what, (here, there) in self.differs(len(collection), int(collection.counts.sum()) + bare).items():
            say(f"{self.title}: {here:,} {what} here, {there:,} as published.")
        return collection


def from_rows(rows: Callable[..., Iterator[SourceRow]]) -> Callable[..., Draft]:
    """A reader, of a function that gives the rows of a benchmark's files.

    Pictures are also looked for without the last folder of their name, or by it alone. One whose caption was published
    empty stays in the gallery, and in the counts.
    """

    @wraps(rows)
    def read(files: PublishedFiles, **options: Any) -> Draft:
        find = finder(files.bases)

        def lenient(name: str) -> str | None:
            folders, file = os.path.split(name)
            return find(name) or find(os.path.join(os.path.dirname(folders), file)) or find(file)

        return assemble(rows(files, **options), lenient, name=files.title, bare=True)

    return read


def captioned(image: str, caption: str, where: str, split: Split | None = None, *, whole: bool = True) -> SourceRow:
    """A caption of an image, or its sentences; not `whole` where there may be more of them in other rows."""
    return SourceRow(image, image, split(caption) if split else [caption], where, whole, split="test")


def flair_rows(files: PublishedFiles, file: Path) -> Iterator[SourceRow]:
    """FLAIR's form, {"annotations": [{"image_id", "image", "caption"}]}: an entry a caption."""
    entries = files.read_json(file, dict).get("annotations")
    if not isinstance(entries, list):
        raise files.torn(file, "lacks the list 'annotations'")
    for number, entry in enumerate(entries):
        where = f"annotation {number} of {file}"
        yield captioned(files.text(entry, "image", where), files.text(entry, "caption", where), where, whole=False)


def flair_sentences(text: str) -> list[str]:
    """A caption cut as FLAIR did for its published sentences: at every full stop and new line, these left out.

    Decimals, abbreviations and initials are cut through ("2.5", "Dr."), and pieces of one or two characters dropped.
    """
    return [piece for piece in map(str.strip, re.split(r"[.\n]", text)) if len(piece) > 2]


def sentence_rows(files: PublishedFiles, *names: str) -> Iterator[SourceRow] | None:
    """Sentence captions as FLAIR has published them, where one of its files is there; None where not."""
    file = files.find_optional("annotations/test_annotations.json", "test_annotations.json", *names)
    if file is None:
        return None
    say(f"{files.title}: sentences as in {file}.")
    return flair_rows(files, file)


def run_published(job: BenchmarkJob, benchmark: PublishedRetrieval) -> BenchmarkResult:
    """Retrieval on a benchmark of the field, the mean over its galleries."""
    collection = benchmark.open(job.folder, job.images)
    embeddings = job.embedded(collection)
    files = PublishedFiles(job.folder, benchmark.title, benchmark.source)
    more = None if benchmark.more is None else benchmark.more(files, embeddings)
    result = run_retrieval(job, collection, embeddings, benchmark.galleries(len(embeddings)), more)
    facts = {**size_facts(embeddings, collection.problems), **result.facts, **benchmark.facts(embeddings)}
    return replace(result, facts=facts)


def run_retrieval(
    job: BenchmarkJob,
    collection: Collection,
    embeddings: Embeddings,
    galleries: Sequence[range],
    more: Figures | None = None,
) -> BenchmarkResult:
    """Both directions; the mean over `galleries`, rows of each. With an editor also what could be done instead.

    more: further figures, of every scorer.
    """
    parts = [embeddings.select(rows) for rows in galleries] if len(galleries) > 1 else [embeddings]
    if job.editor is None:
        results, said = {PLAIN: [evaluate_retrieval(part, device=job.device) for part in parts]}, None
        scorers: dict[str, Scorer] = {PLAIN: PlainScorer(pick_device(job.device))}
    else:
        alternatives = untrained_alternatives(job.editor, job.bank, device=job.device)
        fitted = [] if job.bank is None else fitted_parts(job.editor, job.bank)
        results, said = judge_editor(parts, job.editor, alternatives, fitted=fitted)
        scorers = {**alternatives.scorers, EDITED: job.editor}
    facts = {"galleries": f"{len(parts)} of {len(parts[0]):,} images, their mean"} if len(parts) > 1 else {}
    first = {way: results[way][0] for way in job.ways}
    examples = retrieval_examples(parts[0], collection, job.out, first, job.ways, seed=job.seed)
    scores = {way: {name: fmean(run[name] for run in runs) for name in RECALLS} for way, runs in results.items()}
    if more is not None:
        scores = {way: {**values, **more(scorers[way])} for way, values in scores.items()}
    return BenchmarkResult(scores=scores, charts=("T2I R@1", "I2T R@1"), facts=facts, examples=examples, verdict=said)


def retrieval_examples(
    embeddings: Embeddings,
    collection: Collection,
    folder: Path,
    results: Mapping[str, RetrievalScores],
    scorers: Mapping[str, Scorer],
    *,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Caption queries with the first images of each ranking, as `BenchmarkRun.examples` keeps them: `ranked_queries`.

    Args:
        collection: has the pictures of `embeddings`.
        folder: of the run; gets `pictures/`, the images shown, made small.
        results, scorers: 'plain' and, where there is an editor, 'edited' -> its retrieval on `embeddings`, and itself.

    Raises InputError for a picture that cannot be read, and ArtefactError for a folder that cannot be written.
    """
    if embeddings.captions is None:
        return []
    row_of = {identity: row for row, identity in enumerate(collection.ids)}
    written: dict[str, str] = {}

    def write(identity: str) -> str:
        """The file of an image made small, below `folder`."""
        if identity not in written:
            written[identity] = f"{PICTURES}/{hashlib.sha256(identity.encode()).hexdigest()[:16]}.webp"
            replace_file(folder / written[identity], thumbnail(collection.image(row_of[identity])))
        return written[identity]

    return [
        {
            "rule": query.rule,
            "caption": query.caption,
            "ranks": query.ranks,
            "rankings": {
                way: [{**vars(one), "picture": write(one.id)} for one in images]
                for way, images in query.rankings.items()
            },
        }
        for query in ranked_queries(embeddings, results, scorers, seed=seed)
    ]
