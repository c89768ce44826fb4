"""The benchmarks of the field by name: their files in, the figures that papers print out, plain and edited."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from boresight.benchmarks import (
    aro,
    class_folders,
    coco,
    docci,
    eccv_caption,
    flickr30k,
    iiw,
    own,
    rococo,
    sharegpt4v,
    sugarcrepe,
    sugarcrepe_pp,
    urban1k,
    winoground,
)
from boresight.benchmarks.job import Benchmark, BenchmarkJob, BenchmarkResult, stamp
from boresight.benchmarks.record import FILE, BenchmarkRun, defined
from boresight.benchmarks.retrieval import PublishedRetrieval, run_published
from boresight.data import Collection
from boresight.editing.scorer import check_batches
from boresight.errors import ArtefactError, InputError, one_of, require_at_least
from boresight.evaluation.alternatives import checked_bank
from boresight.progress import say
from boresight.storage import nearest

RETRIEVAL: dict[str, PublishedRetrieval] = {
    each.name: each
    for module in (coco, eccv_caption, flickr30k, docci, iiw, urban1k, sharegpt4v)
    for each in module.SETS
}
"""Name -> retrieval benchmark of the field."""


def open_published(name: str, folder: str | Path, *, images: str | Path | None = None) -> Collection:
    """A retrieval benchmark, as its files lie in `folder`; docs/guide/benchmarks.md names them.

    Every image stands in the split 'test', whatever the file calls it. What cannot be used is left out and listed in
    `problems`; a printed line says so when pictures are missing, or when there are not as many images and captions as
    published: figures are then not comparable.

    Args:
        name: a key of `RETRIEVAL`.
        folder: holds the annotations, and the pictures too unless `images` is given.
        images: the folder of the pictures.

    Raises:
        InputError: an unknown name; a file that is missing or torn, which is named with where to get it; no picture
            found at all.

    Example:
        docci = open_published("docci", "docci/", images="/data/docci/images")
    """
    if name not in RETRIEVAL:
        raise InputError(f"There is no benchmark '{name}'; {one_of(name, RETRIEVAL)}.")
    return RETRIEVAL[name].open(folder, images)


def run_benchmark(name: str, job: BenchmarkJob) -> BenchmarkRun:
    """Run a benchmark and keep what it gave in `job.out`; of one that was stopped the embeddings go on.

    Raises:
        InputError: an unknown name, missing files (named, with where they are published), nothing usable in them.
        ArtefactError: an editor of another encoder, or a folder that cannot be written or holds another run.

    Example:
        job = BenchmarkJob(encoder=encoder, data=Path("coco"), out=Path("runs/coco"))
        run_benchmark("coco-karpathy-5k", job).scores["plain"]["T2I R@1"]
    """
    if name not in BENCHMARKS:
        raise InputError(f"There is no benchmark '{name}'; {one_of(name, BENCHMARKS)}.")
    benchmark = BENCHMARKS[name]
    require_options(name, {option: getattr(job, option) for option in OPTIONS})
    _require_bank(job)
    require_at_least("workers", job.workers, 0)
    check_batches(job.encoder, job.editor, 1)
    subject = job.subject if benchmark.any_collection or benchmark.any_folder else ""
    # Tells collections of one name apart; the title of files says what they are.
    data = stamp([job.data.ids, job.data.captions]) if isinstance(job.data, Collection) else ""
    _require_folder(name, job, subject, data)
    result = benchmark.run(job)
    scores, undefined = defined(result.scores)
    facts = {
        **_fitted(job),
        **result.facts,
        **({"not defined on these data": ", ".join(undefined)} if undefined else {}),
    }
    run = BenchmarkRun(
        benchmark=name,
        title=benchmark.title,
        model=job.encoder.name,
        encoder_fingerprint=job.encoder.fingerprint,
        editor="" if job.editor is None else job.editor.fingerprint,
        subject=subject,
        folder=job.out,
        **{**vars(result), "scores": scores, "facts": facts, "data": result.data or data},
    )
    try:
        run.save(job.out)
    except ArtefactError:
        say(str(run))  # hours of work
        raise
    return run


def _fitted(job: BenchmarkJob) -> dict[str, str]:
    """Of a collection's split that the editor was fitted or chosen on."""
    if job.editor is None or not isinstance(job.data, Collection):
        return {}
    known = sorted(set(job.data.splits) & job.editor.fitted_on)
    if not known:
        return {}
    return {"warning": f"the editor was fitted or chosen on '{', '.join(known)}'; if on these images, test on others"}


def require_options(name: str, given: Mapping[str, Any]) -> None:
    """Raises InputError where one of OPTIONS was given, other than its default, and means nothing to the benchmark."""
    for option, default in OPTIONS.items():
        if given[option] != default and option not in BENCHMARKS[name].takes:
            takers = ", ".join(other for other, each in BENCHMARKS.items() if option in each.takes)
            raise InputError(f"{name} takes no {option.replace('_', ' ')}; leave it out. It is for {takers}.")


def _require_bank(job: BenchmarkJob) -> None:
    """Raises InputError for a bank without an editor or validation, ArtefactError for one of another encoder."""
    if job.bank is None:
        return
    if job.editor is None:
        raise InputError("A bank is for what could be done instead of an edit; pass an editor too, or leave it out.")
    job.editor.require_same_encoder(checked_bank(job.bank))


def _require_folder(name: str, job: BenchmarkJob, subject: str, data: str) -> None:
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


def _aro(part: aro.AroPart, title: str) -> Benchmark:
    return Benchmark(f"ARO, {title}", partial(aro.run_visual_genome, part=part), takes=_IMAGES)


def _aro_order(part: aro.AroPart, title: str) -> Benchmark:
    return Benchmark(f"ARO, {title} (our shuffles)", partial(aro.run_order, part=part), takes=_SEEDED)


def _own(title: str, run: Callable[[BenchmarkJob], BenchmarkResult], *takes: str) -> Benchmark:
    return Benchmark(title, run, any_collection=True, takes=_SEEDED.union(takes))


OPTIONS = {
    "images": None,
    "long_text": "truncate",
    "classes": None,
    "templates": None,
    "labels": (),
    "bank": None,
    "seed": 0,
}
"""Fields of a job that only some benchmarks take -> what they are when left out."""
_IMAGES = frozenset({"images"})
_READING = frozenset({"images", "long_text"})
_SEEDED = frozenset({"images", "seed"})

BENCHMARKS: dict[str, Benchmark] = {
    **{
        name: Benchmark(each.title, partial(run_published, benchmark=each), takes=_READING | _SEEDED | {"bank"})
        for name, each in RETRIEVAL.items()
    },
    **{
        f"rococo-{which.replace('_', '-')}": Benchmark(
            f"RoCOCO, {which.replace('_', ' ')} captions", partial(rococo.run_texts, which=which), takes=_READING
        )
        for which in rococo.SETS
    },
    "rococo-mix": Benchmark("RoCOCO, mixed pictures", partial(rococo.run_images, kind="mix"), takes=_READING),
    "rococo-patch": Benchmark("RoCOCO, patched pictures", partial(rococo.run_images, kind="patch"), takes=_READING),
    "sugarcrepe": Benchmark("SugarCrepe", sugarcrepe.run_sugarcrepe, takes=_IMAGES),
    "sugarcrepe-pp": Benchmark("SugarCrepe++", sugarcrepe_pp.run_sugarcrepe_pp, takes=_IMAGES),
    "winoground": Benchmark("Winoground", winoground.run_winoground),
    "aro-vg-relation": _aro("vg-relation", "VG relations"),
    "aro-vg-attribution": _aro("vg-attribution", "VG attribution"),
    "aro-coco-order": _aro_order("coco-order", "COCO order"),
    "aro-flickr-order": _aro_order("flickr-order", "Flickr30k order"),
    "zero-shot": Benchmark(
        "Zero-shot classification",
        class_folders.run_class_folders,
        any_folder=True,
        takes=frozenset({"classes", "templates"}),
    ),
    "retrieval": _own("Retrieval", own.run_own_retrieval, "long_text", "bank"),
    "swaps": _own("Captions with one wrong word", own.run_swaps, "long_text"),
    "mixes": _own("Altered pictures", own.run_own_mixes, "long_text"),
    "composition": _own("Captions of nearly the same words", own.run_composition),
    "alignment": _own("Alignment of pictures and captions", own.run_alignment, "long_text", "labels"),
}
"""Name on the command line -> benchmark."""
