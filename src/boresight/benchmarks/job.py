"""How each kind of benchmark is run: its files or a collection in, figures by name out, plain and edited."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from boresight.benchmarks.class_folders import EMPTY_CLASS, read_class_folders, read_lines
from boresight.benchmarks.contrast_sets import (
    AroPart,
    against_orders,
    read_aro,
    read_winoground,
)
from boresight.benchmarks.examples import retrieval_examples
from boresight.benchmarks.published import RETRIEVAL, open_published
from boresight.benchmarks.record import EDITED, PLAIN
from boresight.benchmarks.rococo import RococoSet, read_rococo
from boresight.data import Collection
from boresight.data.columns import listed
from boresight.data.labels import labels_in
from boresight.data.problems import Problem
from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings, embed
from boresight.embeddings.batches import LongText, embed_captions
from boresight.encoders import Encoder
from boresight.errors import InputError
from boresight.evaluation.alignment import alignment_report
from boresight.evaluation.attacks import evaluate_robustness
from boresight.evaluation.composition import contrasts_by_editor, winoground_by_editor
from boresight.evaluation.contrasts import Contrast, Contrasts, Picture
from boresight.evaluation.image_mixes import KINDS as MIXES
from boresight.evaluation.image_mixes import (
    PUBLISHED_SEEDS,
    PUBLISHED_SIZE,
    Kind,
    MixedPictures,
    embed_mixes,
    mix_pictures,
)
from boresight.evaluation.labelled import label_report
from boresight.evaluation.retrieval import DEPTHS, RetrievalResult, evaluate_retrieval
from boresight.evaluation.rococo import embed_altered, evaluate_rococo, evaluate_rococo_images
from boresight.evaluation.word_swaps import KINDS, swap_words
from boresight.evaluation.zero_shot import TEMPLATES, zero_shot_by_editor
from boresight.reports.alignment_chart import alignment_figure

LONG, ALL_SPLITS = "captions longer than the model reads", "left out, in all splits"
ATTACKED_LOWER = ("false rate", "drop rate")
ALIGNMENT_LOWER = (
    "L2M",
    "RMG",
    "alignment",
    "uniformity, images",
    "uniformity, texts",
    "cosine, others",
    "imbalance, image to text",
    "imbalance, text to image",
)
PAIRS = 5000  # of alignment, at most
READ = (": told", ": left out", ": guessing")  # of labels; whether more or less of it is wanted depends on the caption
Scores = dict[str, dict[str, float]]
"""'plain', and 'edited' where there is an editor -> measure -> value."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkJob:
    """What a benchmark is run on.

    Attributes:
        data: the folder of its files as published; for those that take any collection, the collection.
        out: where embeddings of a collection are kept, so that a run goes on after a stop.
        images: the folder of the pictures, where they do not lie where the files say.
        long_text: what becomes of captions longer than the model reads, `boresight.embeddings.embed`.
        device: where plain scores of retrieval are taken; an editor scores in its own place.
        classes, templates: of zero-shot, files with a class name or a sentence with {} a line.
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

    @property
    def ways(self) -> dict[str, CaptionEditor | None]:
        return {PLAIN: None, **({} if self.editor is None else {EDITED: self.editor})}

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
        return embed(
            self.encoder,
            collection,
            self.out / "embeddings",
            workers=self.workers,
            long_text=self.long_text,
            on_error=on_error,
        )


@dataclass(frozen=True)
class Found:
    """What a benchmark gives a run: see `BenchmarkRun`."""

    scores: Mapping[str, Mapping[str, float]]
    charts: Sequence[str] = ()
    lower: Sequence[str] = ()
    neutral: Sequence[str] = ()
    data: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    examples: Sequence[Mapping[str, Any]] = ()
    figures: Sequence[tuple[str, str]] = ()


def published_retrieval(job: BenchmarkJob, name: str) -> Found:
    collection = open_published(name, job.folder, images=job.images)
    of = RETRIEVAL[name]
    embeddings = job.embedded(collection)
    found = _retrieval(job, collection, embeddings, of.galleries(len(embeddings)))
    facts = {**_facts(embeddings, collection.problems), **found.facts, **_differs(name, embeddings)}
    return replace(found, facts=facts)


def own_retrieval(job: BenchmarkJob) -> Found:
    embeddings = job.embedded(job.collection)
    found = _retrieval(job, job.collection, embeddings, [range(len(embeddings))])
    return replace(found, facts={**_own_facts(job, embeddings), **found.facts})


def _retrieval(job: BenchmarkJob, collection: Collection, embeddings: Embeddings, galleries: Sequence[range]) -> Found:
    """Both directions; the mean over `galleries`, rows of each."""
    parts = [embeddings.select(rows) for rows in galleries] if len(galleries) > 1 else [embeddings]
    results = {
        way: [evaluate_retrieval(part, editor, device=job.device) for part in parts] for way, editor in job.ways.items()
    }
    facts = {}
    if len(parts) > 1:
        facts["galleries"] = f"{len(parts)} of {len(parts[0]):,} images, their mean"
    examples = retrieval_examples(
        parts[0], collection, results[PLAIN][0], results.get(EDITED, [None])[0], job.editor, seed=job.seed
    )
    scores = {way: _mean([retrieval_measures(result) for result in found]) for way, found in results.items()}
    return Found(scores, ("T2I R@1", "I2T R@1"), facts=facts, examples=examples)


def retrieval_measures(result: RetrievalResult) -> dict[str, float]:
    """The six recalls in percent by the names that published figures have here."""
    return {
        f"{side.upper()} R@{depth}": getattr(result, side)[f"R@{depth}"] for side in ("t2i", "i2t") for depth in DEPTHS
    }


def rococo_texts(job: BenchmarkJob, which: RococoSet) -> Found:
    rococo = read_rococo(job.folder, which, images=job.images)
    embeddings = job.embedded(rococo.collection, "refuse")
    altered = embed_altered(job.encoder, rococo, embeddings, long_text=job.long_text)
    figures = evaluate_rococo(rococo, embeddings, altered, job.editor)
    facts = _facts(embeddings) | _differs("coco-karpathy-5k", embeddings)
    facts |= {"altered captions": f"{len(rococo.altered):,}"}
    return Found(_attack_scores(figures), ("I2T R@1", "false rate"), ATTACKED_LOWER, facts=facts)


def rococo_images(job: BenchmarkJob, kind: Kind) -> Found:
    """The mean over the published seeds, of pictures squeezed and stored as JPEG as the published ones are."""
    collection = open_published("coco-karpathy-5k", job.folder, images=job.images)
    embeddings = job.embedded(collection, "refuse")
    make = partial(mix_pictures, collection, kind, size=PUBLISHED_SIZE, jpeg=True)
    facts = _facts(embeddings, collection.problems) | _differs("coco-karpathy-5k", embeddings)
    return _mixed(job, embeddings, {kind: make}, PUBLISHED_SEEDS, facts)


def mixes(job: BenchmarkJob) -> Found:
    """Both kinds of altered pictures, the mean over three seeds."""
    embeddings = job.embedded(job.collection, "refuse")
    seeds = [job.seed + number for number in range(3)]
    kinds: dict[Kind, Callable[..., MixedPictures]] = {
        kind: partial(mix_pictures, job.collection, kind) for kind in MIXES
    }
    return _mixed(job, embeddings, kinds, seeds, _own_facts(job, embeddings))


def _mixed(
    job: BenchmarkJob,
    embeddings: Embeddings,
    kinds: Mapping[Kind, Callable[..., MixedPictures]],
    seeds: Sequence[int],
    facts: Mapping[str, str],
) -> Found:
    scores: Scores = {way: {} for way in job.ways}
    for kind, make in kinds.items():
        altered = [embed_mixes(job.encoder, make(seed=seed)) for seed in seeds]
        for way, found in _attack_scores(evaluate_rococo_images(embeddings, altered, job.editor)).items():
            scores[way] |= {name if len(kinds) == 1 else f"{kind}: {name}": value for name, value in found.items()}
    names = list(scores[PLAIN])
    lower = [name for name in names if name.endswith(ATTACKED_LOWER)]
    charts = [name for name in names if name.endswith(("T2I R@1", "false rate"))]
    return Found(scores, charts, lower, facts={**facts, "seeds": ", ".join(map(str, seeds))})


def swaps(job: BenchmarkJob) -> Found:
    """Captions with one wrong word, four kinds of them."""
    embeddings = job.embedded(job.collection)
    facts = _own_facts(job, embeddings) | {"seed": str(job.seed)}
    scores: Scores = {way: {} for way in job.ways}
    for kind in KINDS:
        swapped = swap_words(list(embeddings.captions or ()), kind, owners=embeddings.owners, seed=job.seed)
        facts[f"captions with a {kind} word"] = f"{len(swapped.rows):,}"
        if not swapped.rows:
            continue
        texts = [swapped.captions[row] for row in swapped.rows]
        rows = embed_captions(job.encoder, texts, long_text=job.long_text)
        for way, editor in job.ways.items():
            found = _attack_scores({way: evaluate_robustness(embeddings, rows, swapped.rows, editor)})[way]
            scores[way] |= {f"{kind}: {name}": value for name, value in found.items()}
    names = list(scores[PLAIN])
    if not names:
        raise InputError(
            f"No caption of {job.subject} has a word that can be exchanged: that takes words which stand "
            "in at least two captions, with spaces or signs between them; pass more captions."
        )
    lower = [name for name in names if name.endswith(ATTACKED_LOWER)]
    charts = [name for name in names if name.endswith("false rate")]
    return Found(scores, charts, lower, facts=facts)


def _attack_scores(figures: Mapping[str, Mapping[str, float]]) -> Scores:
    return {
        way: {name.replace("_", " ").replace("R@1 plain", "R@1, plain"): value for name, value in values.items()}
        for way, values in figures.items()
    }


def contrasts(job: BenchmarkJob, read: Callable[..., Contrasts], macro_only: bool) -> Found:
    """Accuracy by group where there are few of them, and means over groups and items."""
    return _contrasts(job, read(job.folder, images=job.images), macro_only)


def orders(job: BenchmarkJob, part: AroPart) -> Found:
    found = _contrasts(job, read_aro(job.folder, part, job.images, seed=job.seed), macro_only=True)
    return replace(found, facts={**found.facts, "seed": str(job.seed)})


def own_contrasts(job: BenchmarkJob) -> Found:
    """Each caption against itself with one wrong word, four kinds of them, and against its words in other orders."""
    collection = job.collection
    texts, owners = collection.texts, collection.owners
    pictures = [Picture(name, partial(collection.image, row)) for row, name in enumerate(collection.ids)]
    items = []
    for kind in KINDS:
        swapped = swap_words(texts, kind, owners=owners, seed=job.seed)
        items += [
            Contrast(pictures[owners[row]], (texts[row], swapped.captions[row]), 0, f"{kind} word")
            for row in swapped.rows
        ]
    for owner, text in zip(owners, texts, strict=True):
        if item := against_orders(pictures[owner], text, "word order", job.seed):
            items.append(item)
    found = _contrasts(job, Contrasts(items, collection.name), macro_only=False)
    left_out = _left_out(collection.problems, ALL_SPLITS)
    return replace(found, facts={**found.facts, **left_out, "seed": str(job.seed)})


def _contrasts(job: BenchmarkJob, items: Contrasts, macro_only: bool) -> Found:
    results = contrasts_by_editor(job.encoder, items, job.ways, workers=job.workers)
    scores = {
        way: {
            **({} if macro_only else dict(found.accuracy)),
            "macro accuracy": found.macro,
            "micro accuracy": found.micro,
        }
        for way, found in results.items()
    }
    plain = results[PLAIN]
    facts = {"items": f"{plain.n_items:,}", "chance": f"{plain.chance:.1f}", **_left_out(plain.problems)}
    facts |= _unlike("items", plain.n_items, items.published)
    return Found(scores, ("macro accuracy",), facts=facts)


def winoground(job: BenchmarkJob) -> Found:
    items = read_winoground(job.folder)
    results = winoground_by_editor(job.encoder, items, job.ways, workers=job.workers)
    scores = {
        way: {name: getattr(found, name) for name in ("text", "image", "group")} for way, found in results.items()
    }
    plain = results[PLAIN]
    facts = {"examples": f"{plain.n_examples:,}", **_left_out(plain.problems)}
    facts |= _unlike("examples", plain.n_examples, items.published and items.published // 2)
    return Found(scores, ("group",), facts=facts)


def class_folders(job: BenchmarkJob) -> Found:
    labelled = read_class_folders(job.folder, job.classes)
    templates = TEMPLATES if job.templates is None else read_lines(job.templates)
    results = zero_shot_by_editor(
        job.encoder,
        labelled.pictures,
        labelled.labels,
        labelled.classes,
        templates,
        job.ways,
        workers=job.workers,
    )
    scores = {
        way: {name: value for name, value in found.to_dict().items() if isinstance(value, float)}
        for way, found in results.items()
    }
    plain = results[PLAIN]
    empty = [problem.where for problem in plain.problems if problem.what == EMPTY_CLASS]
    facts = {
        "images": f"{plain.n_images:,}",
        "classes": f"{len(labelled.classes):,}{f', without pictures: {listed(empty)}' if empty else ''}",
        "templates": f"{len(templates)}{'' if job.templates is None else f', of {job.templates.name}'}",
        **_left_out([problem for problem in plain.problems if problem.what != EMPTY_CLASS]),
    }
    data = stamp([labelled.classes, labelled.labels.tolist(), labelled.pictures.ids])
    return Found(scores, ("top-1",), data=data, facts=facts)


def alignment(job: BenchmarkJob) -> Found:
    """Gap and spread of both modalities; with an editor also what its captions write into other images.

    With labels also object bias, and what of them can be read off the images.
    """
    collection = job.collection
    labels = {name: labels_in(collection, name) for name in job.labels}
    embeddings = job.embedded(collection)
    report = alignment_report(embeddings, job.editor, at_most=PAIRS, seed=job.seed)
    if labels:
        row_of = {identity: row for row, identity in enumerate(collection.ids)}
        rows = [row_of[identity] for identity in embeddings.ids]
        ours = {name: [values[row] for row in rows] for name, values in labels.items()}
        for way, values in label_report(embeddings, ours, job.editor, at_most=PAIRS, seed=job.seed).items():
            report[way] |= values
    drawn = io.BytesIO()
    alignment_figure(embeddings, job.editor, report=report, seed=job.seed).savefig(drawn, format="png", dpi=110)
    figure = "data:image/png;base64," + base64.b64encode(drawn.getvalue()).decode("ascii")
    scores = {way: dict(values) for way, values in report.items()}
    for name, share in scores.pop("captioned share", {}).items():
        scores[EDITED][f"captioned share, {name}"] = share
    neutral = [name for name in scores[PLAIN] if name.startswith("object bias") or name.endswith(READ)]
    pairs = min(PAIRS, len(embeddings.owners.unique()))
    facts = _own_facts(job, embeddings) | {"pairs measured": f"{pairs:,}", "seed": str(job.seed)}
    told = "Pairs of pictures and captions along their two main directions, and the measures above as bars"
    return Found(
        scores,
        ("RMG", "cosine, matched"),
        [*ALIGNMENT_LOWER, *(name for name in scores[PLAIN] if name.endswith(": written"))],
        neutral,
        facts=facts,
        figures=[(told, figure)],
    )


def stamp(what: Any) -> str:
    """A few letters that tell data apart; of what json can hold."""
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:8]


def _mean(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: fmean(each[name] for each in found) for name in found[0]}


def _facts(embeddings: Embeddings, problems: Sequence[Problem] = ()) -> dict[str, str]:
    unread = [Problem("unreadable picture", "")] * len(embeddings.manifest.get("problems", ()))
    facts = {"images": f"{len(embeddings):,}", "captions": f"{len(embeddings.owners):,}"}
    for count, what in (("truncated_captions", "cut"), ("windowed_captions", "read in windows")):
        if embeddings.manifest.get(count):
            facts[LONG] = f"{embeddings.manifest[count]:,}, {what}"
    return facts | _left_out([*problems, *unread])


def _own_facts(job: BenchmarkJob, embeddings: Embeddings) -> dict[str, str]:
    """The collection's problems are of all its splits."""
    return _facts(embeddings) | _left_out(job.collection.problems, ALL_SPLITS)


def _unlike(what: str, here: int, there: int | None) -> dict[str, str]:
    """`there`: as published; None for what is not known."""
    return {} if there is None or there == here else {f"{what}, not as published": f"{here:,} of {there:,}"}


def _differs(name: str, embeddings: Embeddings) -> dict[str, str]:
    facts: dict[str, str] = {}
    for what, (here, there) in RETRIEVAL[name].differs(len(embeddings), len(embeddings.owners)).items():
        facts |= _unlike(what, here, there)
    return facts


def _left_out(problems: Sequence[Problem], label: str = "left out") -> dict[str, str]:
    counts = Counter(problem.what for problem in problems)
    return {label: ", ".join(f"{count:,} x {what}" for what, count in counts.items())} if counts else {}
