"""The benchmarks of the field by name: their files in, the figures that papers print out, plain and edited."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from boresight.benchmarks import job as jobs
from boresight.benchmarks.contrast_sets import AroPart, read_aro, read_sugarcrepe
from boresight.benchmarks.job import BenchmarkJob, Found
from boresight.benchmarks.published import RETRIEVAL
from boresight.benchmarks.record import FILE, BenchmarkRun
from boresight.benchmarks.rococo import SETS
from boresight.data import Collection
from boresight.editing.scorer import check_batches
from boresight.errors import ArtefactError, InputError
from boresight.progress import say
from boresight.storage import nearest


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        title: how tables name it, told apart from others of like name.
        run: from a job to what was found.
        any_collection: it takes any collection of captioned images, and not files of its own.
        any_folder: its files are anybody's, so that its title does not tell what it ran on.
        takes: the fields of a job, of those in OPTIONS, that mean something to it.
    """

    title: str
    run: Callable[[BenchmarkJob], Found]
    any_collection: bool = False
    any_folder: bool = False
    takes: frozenset[str] = frozenset()


def run_benchmark(name: str, job: BenchmarkJob) -> BenchmarkRun:
    """Run a benchmark and keep what it found in `job.out`; of one that was stopped the embeddings go on.

    Raises:
        InputError: an unknown name, missing files (named, with where they are published), nothing usable in them.
        ArtefactError: an editor of another encoder, or a folder that cannot be written or holds another run.
    """
    if name not in BENCHMARKS:
        raise InputError(f"There is no benchmark '{name}'; choose one of {', '.join(BENCHMARKS)}.")
    benchmark = BENCHMARKS[name]
    require_options(name, {option: getattr(job, option) for option in OPTIONS})
    if job.workers < 0:
        raise InputError(f"workers is {job.workers}; it must be at least 0.")
    check_batches(job.encoder, job.editor, 1)
    subject = job.subject if benchmark.any_collection or benchmark.any_folder else ""
    data = _data(job)
    _require_place(name, job, subject, data)
    before = job.encoder.truncated
    found = benchmark.run(job)
    cut = job.encoder.truncated - before
    defined = {
        way: {measure: value for measure, value in values.items() if math.isfinite(value)}
        for way, values in found.scores.items()
    }
    lost = dict.fromkeys(measure for way, values in found.scores.items() for measure in values.keys() - defined[way])
    facts = {
        **({jobs.LONG: f"{cut:,}, cut"} if cut else {}),
        **found.facts,
        **({"not defined on these data": ", ".join(sorted(lost))} if lost else {}),
    }
    run = BenchmarkRun(
        benchmark=name,
        title=benchmark.title,
        model=job.encoder.name,
        encoder_fingerprint=job.encoder.fingerprint,
        editor="" if job.editor is None else job.editor.fingerprint,
        subject=subject,
        **{**vars(found), "scores": defined, "facts": facts, "data": found.data or data},
    )
    try:
        run.save(job.out)
    except ArtefactError:
        say(str(run))  # hours of work
        raise
    return run


def require_options(name: str, given: Mapping[str, Any]) -> None:
    """Raises InputError where one of OPTIONS was given, other than its default, and means nothing to the benchmark."""
    for option, default in OPTIONS.items():
        if given[option] != default and option not in BENCHMARKS[name].takes:
            takers = ", ".join(other for other, each in BENCHMARKS.items() if option in each.takes)
            raise InputError(f"{name} takes no {option.replace('_', ' ')}; leave it out. It is for {takers}.")


def _require_place(name: str, job: BenchmarkJob, subject: str, data: str) -> None:
    """Raises ArtefactError for a folder that cannot be written or holds a run that this one would replace.

    A run may be done again, and given an editor.
    """
    above = nearest(job.out)
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ArtefactError(f"Cannot write {job.out}, for {above} is no folder that you may write to; choose another.")
    if not (job.out / FILE).exists():
        return
    there = BenchmarkRun.load(job.out)
    editor = "" if job.editor is None else job.editor.fingerprint
    of_there = (there.benchmark, there.subject, there.encoder_fingerprint, there.editor or editor)
    if of_there != (name, subject, job.encoder.fingerprint, editor) or there.data not in ("", data or there.data):
        edited = f", edited by {there.editor}" if there.editor else ""
        raise ArtefactError(
            f"{job.out} holds another run, {there.heading} of {there.model}{edited}; choose another `out`, or delete "
            f"{job.out / FILE} to replace it."
        )


def _data(job: BenchmarkJob) -> str:
    """Tells collections of one name apart; '' of files whose title says what they are."""
    collection = job.data
    return jobs.stamp([collection.ids, collection.captions]) if isinstance(collection, Collection) else ""


def _aro(part: AroPart, title: str) -> Benchmark:
    run = partial(jobs.contrasts, read=partial(read_aro, part=part), macro_only=True)
    return Benchmark(f"ARO, {title}", run, takes=_IMAGES)


def _order(part: AroPart, title: str) -> Benchmark:
    return Benchmark(f"ARO, {title} (our shuffles)", partial(jobs.orders, part=part), takes=_SEEDED)


def _any(title: str, run: Callable[[BenchmarkJob], Found], *takes: str) -> Benchmark:
    return Benchmark(title, run, any_collection=True, takes=_SEEDED.union(takes))


OPTIONS = {"images": None, "long_text": "truncate", "classes": None, "templates": None, "labels": (), "seed": 0}
"""Fields of a job that only some benchmarks take -> what they are when left out."""
_IMAGES = frozenset({"images"})
_READING = frozenset({"images", "long_text"})
_SEEDED = frozenset({"images", "seed"})


BENCHMARKS: dict[str, Benchmark] = {
    **{
        name: Benchmark(of.title, partial(jobs.published_retrieval, name=name), takes=_READING | _SEEDED)
        for name, of in RETRIEVAL.items()
    },
    **{
        f"rococo-{which.replace('_', '-')}": Benchmark(
            f"RoCOCO, {which.replace('_', ' ')} captions", partial(jobs.rococo_texts, which=which), takes=_READING
        )
        for which in SETS
    },
    "rococo-mix": Benchmark("RoCOCO, mixed pictures", partial(jobs.rococo_images, kind="mix"), takes=_READING),
    "rococo-patch": Benchmark("RoCOCO, patched pictures", partial(jobs.rococo_images, kind="patch"), takes=_READING),
    "sugarcrepe": Benchmark(
        "SugarCrepe", partial(jobs.contrasts, read=read_sugarcrepe, macro_only=False), takes=_IMAGES
    ),
    "winoground": Benchmark("Winoground", jobs.winoground),
    "aro-vg-relation": _aro("vg-relation", "VG relations"),
    "aro-vg-attribution": _aro("vg-attribution", "VG attribution"),
    "aro-coco-order": _order("coco-order", "COCO order"),
    "aro-flickr-order": _order("flickr-order", "Flickr30k order"),
    "zero-shot": Benchmark(
        "Zero-shot classification",
        jobs.class_folders,
        any_folder=True,
        takes=frozenset({"classes", "templates"}),
    ),
    "retrieval": _any("Retrieval", jobs.own_retrieval, "long_text"),
    "swaps": _any("Captions with one wrong word", jobs.swaps, "long_text"),
    "mixes": _any("Altered pictures", jobs.mixes, "long_text"),
    "composition": _any("Captions of nearly the same words", jobs.own_contrasts),
    "alignment": _any("Alignment of pictures and captions", jobs.alignment, "long_text", "labels"),
}
"""Name on the command line -> benchmark."""
