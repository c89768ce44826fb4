"""The benchmarks of the field by name: their files in, the figures that papers print out, plain and edited."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from boresight.collections import Collection
from boresight.collections.contrasts import AroPart, read_aro, read_sugarcrepe
from boresight.collections.published import RETRIEVAL
from boresight.collections.rococo import SETS
from boresight.errors import InputError
from boresight.evaluation import benchmark_jobs as jobs
from boresight.evaluation.benchmark_jobs import BenchmarkJob, Found
from boresight.evaluation.benchmark_run import BenchmarkRun


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
    for option, default in OPTIONS.items():
        if getattr(job, option) != default and option not in benchmark.takes:
            takers = ", ".join(other for other, each in BENCHMARKS.items() if option in each.takes)
            raise InputError(f"{name} takes no {option.replace('_', ' ')}; leave it out. It is for {takers}.")
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
        subject=job.subject if benchmark.any_collection or benchmark.any_folder else "",
        **{**vars(found), "scores": defined, "facts": facts, "data": found.data or _data(job)},
    )
    run.save(job.out)
    return run


def _data(job: BenchmarkJob) -> str:
    """Tells collections of one name apart; '' of files whose title says what they are."""
    collection = job.data
    return jobs.stamp([collection.ids, collection.captions]) if isinstance(collection, Collection) else ""


def _aro(part: AroPart, title: str) -> Benchmark:
    run = partial(jobs.contrasts, read=partial(read_aro, part=part), macro_only=True)
    return Benchmark(f"ARO, {title}", run, takes=_IMAGES)


def _order(part: AroPart, title: str) -> Benchmark:
    return Benchmark(f"ARO, {title} (our shuffles)", partial(jobs.orders, part=part), takes=_IMAGES)


def _any(title: str, run: Callable[[BenchmarkJob], Found], *takes: str) -> Benchmark:
    return Benchmark(title, run, any_collection=True, takes=frozenset(("images", *takes)))


OPTIONS = {"images": None, "long_text": "truncate", "classes": None, "templates": None, "labels": ()}
"""Fields of a job that only some benchmarks take -> what they are when left out."""
_IMAGES = frozenset({"images"})
_READING = frozenset({"images", "long_text"})


BENCHMARKS: dict[str, Benchmark] = {
    **{
        name: Benchmark(of.title, partial(jobs.published_retrieval, name=name), takes=_READING)
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
