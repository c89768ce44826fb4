"""The benchmarks that any collection of captioned images can be put to."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from boresight.benchmarks.contrast_sets import against_orders, run_contrasts
from boresight.benchmarks.job import (
    ALL_SPLITS,
    BenchmarkJob,
    BenchmarkResult,
    ScoresByWay,
    left_out,
    long_captions,
    size_facts,
)
from boresight.benchmarks.record import EDITED, PLAIN
from boresight.benchmarks.retrieval import run_retrieval
from boresight.benchmarks.rococo import attack_result, run_mixes
from boresight.data.labels import labels_in
from boresight.embeddings import Embeddings
from boresight.embeddings.batches import embed_captions
from boresight.errors import InputError
from boresight.evaluation.alignment import alignment_report
from boresight.evaluation.attacks import evaluate_attack
from boresight.evaluation.contrasts import Contrast, Contrasts, Picture
from boresight.evaluation.image_mixes import KINDS as MIXES
from boresight.evaluation.image_mixes import mix_pictures
from boresight.evaluation.pairs import pairs_in_plane
from boresight.evaluation.probes import label_report
from boresight.evaluation.word_swaps import KINDS, swap_words

LOWER = ("L2M", "RMG", "alignment", "uniformity", "cosine, others", "imbalance")  # how measures of alignment begin
PAIRS = 5000  # of alignment, at most
# Of labels; whether more or less of it is wanted depends on the caption.
NEUTRAL = (": told", ": left out", ": guessing")


def run_own_retrieval(job: BenchmarkJob) -> BenchmarkResult:
    """Retrieval, both directions."""
    embeddings = job.embedded(job.collection)
    result = run_retrieval(job, job.collection, embeddings, [range(len(embeddings))])
    return replace(result, facts={**_facts(job, embeddings), **result.facts})


def run_swaps(job: BenchmarkJob) -> BenchmarkResult:
    """Captions with one wrong word, four kinds of them."""
    embeddings = job.embedded(job.collection)
    facts, long = _facts(job, embeddings) | {"seed": str(job.seed)}, 0
    scores: ScoresByWay = {way: {} for way in job.ways}
    for kind in KINDS:
        swapped = swap_words(list(embeddings.captions or ()), kind, owners=embeddings.owners, seed=job.seed)
        facts[f"captions with a {kind} word"] = f"{len(swapped.rows):,}"
        if not swapped.rows:
            continue
        texts = [swapped.captions[row] for row in swapped.rows]
        rows, cut = embed_captions(job.encoder, texts, long_text=job.long_text)
        long += cut
        for way, editor in job.ways.items():
            values = evaluate_attack(embeddings, rows, swapped.rows, editor, side="texts").values
            scores[way] |= {f"{kind}: {name}": value for name, value in values.items()}
    if not scores[PLAIN]:
        raise InputError(
            f"No caption of {job.subject} has a word that can be exchanged: that takes words which stand "
            "in at least two captions, with spaces or signs between them; pass more captions."
        )
    facts = long_captions(long, job.long_text) | facts
    return attack_result(scores, "false rate", facts=facts)


def run_own_mixes(job: BenchmarkJob) -> BenchmarkResult:
    """Both kinds of altered pictures, the mean over three seeds."""
    embeddings = job.embedded(job.collection, "refuse")
    seeds = [job.seed + number for number in range(3)]
    make = {kind: partial(mix_pictures, job.collection, kind) for kind in MIXES}
    return run_mixes(job, embeddings, make, seeds, _facts(job, embeddings))


def run_composition(job: BenchmarkJob) -> BenchmarkResult:
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
    result = run_contrasts(job, Contrasts(items, collection.name), macro_only=False)
    problems = left_out(collection.problems, ALL_SPLITS)
    return replace(result, facts={**result.facts, **problems, "seed": str(job.seed)})


def run_alignment(job: BenchmarkJob) -> BenchmarkResult:
    """Gap and spread of both modalities; with an editor also what its captions write into other images.

    With labels also object bias, and what of them can be read off the images.
    """
    collection = job.collection
    labels = {name: labels_in(collection, name) for name in job.labels}
    embeddings = job.embedded(collection)
    report = alignment_report(embeddings, job.editor, at_most=PAIRS, seed=job.seed)
    lower = [name for start in LOWER for name in report[PLAIN] if name.startswith(start)]
    if labels:
        row_of = {identity: row for row, identity in enumerate(collection.ids)}
        ours = {name: [values[row_of[identity]] for identity in embeddings.ids] for name, values in labels.items()}
        for way, values in label_report(embeddings, ours, job.editor, at_most=PAIRS, seed=job.seed).items():
            report[way] |= values
    for name, share in report.pop("captioned share", {}).items():
        report[EDITED][f"captioned share, {name}"] = share
    names = list(report[PLAIN])
    pairs = min(PAIRS, len(embeddings.owners.unique()))
    return BenchmarkResult(
        scores=report,
        charts=("RMG", "cosine, matched"),
        lower=[*lower, *(name for name in names if name.endswith(": written"))],
        neutral=[name for name in names if name.startswith("object bias") or name.endswith(NEUTRAL)],
        facts=_facts(job, embeddings) | {"pairs measured": f"{pairs:,}", "seed": str(job.seed)},
        pairs={
            way: {side: points.round(decimals=5).tolist() for side, points in sides.items()}
            for way, sides in pairs_in_plane(embeddings, job.editor, seed=job.seed).items()
        },
    )


def _facts(job: BenchmarkJob, embeddings: Embeddings) -> dict[str, str]:
    """The collection's problems are of all its splits."""
    return size_facts(embeddings) | left_out(job.collection.problems, ALL_SPLITS)
