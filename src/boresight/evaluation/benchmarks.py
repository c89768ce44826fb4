"""The benchmarks of the field by name: their files in, the figures that papers print out, plain and edited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

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
    """

    title: str
    run: Callable[[BenchmarkJob], Found]
    any_collection: bool = False


def run_benchmark(name: str, job: BenchmarkJob) -> BenchmarkRun:
    """Run a benchmark and keep what it found in `job.out`; of one that was stopped the embeddings go on.

    Raises:
        InputError: an unknown name, missing files (named, with where they are published), nothing usable in them.
        ArtefactError: an editor of another encoder, or a folder that cannot be written or holds another run.
    """
    if name not in BENCHMARKS:
        raise InputError(f"There is no benchmark '{name}'; choose one of {', '.join(BENCHMARKS)}.")
    found = BENCHMARKS[name].run(job)
    run = BenchmarkRun(
        benchmark=name,
        title=BENCHMARKS[name].title,
        model=job.encoder.name,
        encoder_fingerprint=job.encoder.fingerprint,
        editor="" if job.editor is None else job.editor.fingerprint,
        **vars(found),
    )
    run.save(job.out)
    return run


def _aro(part: AroPart, title: str) -> Benchmark:
    return Benchmark(f"ARO, {title}", partial(jobs.contrasts, read=partial(read_aro, part=part), macro_only=True))


BENCHMARKS: dict[str, Benchmark] = {
    **{name: Benchmark(of.title, partial(jobs.published_retrieval, name=name)) for name, of in RETRIEVAL.items()},
    **{
        f"rococo-{which.replace('_', '-')}": Benchmark(
            f"RoCOCO, {which.replace('_', ' ')} captions", partial(jobs.rococo_texts, which=which)
        )
        for which in SETS
    },
    "rococo-mix": Benchmark("RoCOCO, mixed pictures", partial(jobs.rococo_images, kind="mix")),
    "rococo-patch": Benchmark("RoCOCO, patched pictures", partial(jobs.rococo_images, kind="patch")),
    "sugarcrepe": Benchmark("SugarCrepe", partial(jobs.contrasts, read=read_sugarcrepe, macro_only=False)),
    "winoground": Benchmark("Winoground", jobs.winoground),
    "aro-vg-relation": _aro("vg-relation", "VG relations"),
    "aro-vg-attribution": _aro("vg-attribution", "VG attribution"),
    "aro-coco-order": _aro("coco-order", "COCO order (our shuffles)"),
    "aro-flickr-order": _aro("flickr-order", "Flickr30k order (our shuffles)"),
    "zero-shot": Benchmark("Zero-shot classification", jobs.class_folders),
    "retrieval": Benchmark("Retrieval", jobs.own_retrieval, any_collection=True),
    "swaps": Benchmark("Captions with one wrong word", jobs.swaps, any_collection=True),
    "mixes": Benchmark("Altered pictures", jobs.mixes, any_collection=True),
    "composition": Benchmark("Captions of nearly the same words", jobs.own_contrasts, any_collection=True),
    "alignment": Benchmark("Alignment of pictures and captions", jobs.alignment, any_collection=True),
}
"""Name on the command line -> benchmark."""
