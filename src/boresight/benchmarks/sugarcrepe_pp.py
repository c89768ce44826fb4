"""SugarCrepe++ (arXiv 2406.11171): pictures of COCO val2017, each with two right captions and a wrong one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from boresight.benchmarks.contrast_sets import gather_items, item_of, required_text, run_contrasts
from boresight.benchmarks.files import PublishedFiles
from boresight.benchmarks.job import BenchmarkJob, BenchmarkResult
from boresight.benchmarks.record import PLAIN
from boresight.benchmarks.sugarcrepe import val2017_finder
from boresight.data.problems import Problem
from boresight.evaluation.contrasts import Contrast, Contrasts
from boresight.evaluation.paraphrases import evaluate_paraphrases

SOURCE = "https://github.com/Sri-Harsha/scpp"
GROUPS = ("swap_obj", "swap_att", "replace_obj", "replace_att", "replace_rel")  # in the order of the paper's tables
_CAPTIONS = ("caption", "caption2", "negative_caption")


def read_sugarcrepe_pp(folder: str | Path, images: str | Path | None = None) -> Contrasts:
    """SugarCrepe++'s 4,757 items, a group for each kind of change; the first two captions of each are right.

    The five files `<group>.json`, [{"id", "filename", "caption", "caption2", "negative_caption"}, ...], lie in
    `folder` or its `data/`. Pictures are looked for as those of `boresight.benchmarks.sugarcrepe.read_sugarcrepe`;
    those that are not there are left out and named.
    Raises InputError when a file is missing or torn, a row lacks something, or no picture is there.

    Example:
        items = read_sugarcrepe_pp("scpp", images="coco/val2017")
        print(evaluate_contrasts(encoder, items, editor)["edited"], evaluate_paraphrases(encoder, items))
    """
    files = PublishedFiles(folder, "SugarCrepe++", SOURCE)
    find = val2017_finder(folder, images)

    def items() -> Iterator[Contrast | Problem]:
        for group in GROUPS:
            file = files.find(f"{group}.json", f"data/{group}.json")
            content = files.read_json(file, (list, dict))
            if isinstance(content, dict):
                raise files.torn(file, "holds an object, as SugarCrepe's file of that name does, and not a list")
            for number, row in enumerate(content):
                where = f"row {number} of {file}"
                captions = tuple(required_text(row, key, where) for key in _CAPTIONS)
                yield item_of(required_text(row, "filename", where), find, captions, group, true=(0, 1))

    return gather_items(items(), "SugarCrepe++", "pass `images`, the folder of COCO's val2017 pictures", published=4757)


def run_sugarcrepe_pp(job: BenchmarkJob) -> BenchmarkResult:
    """Accuracy by kind of change and the means: of a picture with its three captions, and of these without it.

    An editor edits pictures, so the text-only figures are the encoder's and stand under 'plain' alone.
    """
    items = read_sugarcrepe_pp(job.folder, job.images)
    result = run_contrasts(job, items, macro_only=False)
    texts = evaluate_paraphrases(job.encoder, items)
    scores = {
        way: {f"image-to-text {name}": value for name, value in values.items()} for way, values in result.scores.items()
    }
    scores[PLAIN] |= {f"text-only {name}": value for name, value in {**texts.groups, **texts.values}.items()}
    return replace(result, scores=scores, charts=("image-to-text macro accuracy", "text-only macro accuracy"))
