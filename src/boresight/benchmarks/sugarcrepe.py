"""SugarCrepe (arXiv 2306.14610): captions of COCO val2017, each beside one that was made false in one of seven ways."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from boresight.benchmarks.contrast_sets import gather_items, item_of, required_text, run_contrasts
from boresight.benchmarks.files import PublishedFiles
from boresight.benchmarks.job import BenchmarkJob, BenchmarkResult
from boresight.data.files import Find, finder, folder_of_images
from boresight.data.problems import Problem
from boresight.evaluation.contrasts import Contrast, Contrasts

SOURCE = "https://github.com/RAIVNLab/sugar-crepe"
GROUPS = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")


def read_sugarcrepe(folder: str | Path, images: str | Path | None = None) -> Contrasts:
    """SugarCrepe's 7,511 items, a group for each kind of change.

    The seven files `<group>.json`, {"0": {"filename", "caption", "negative_caption"}, ...}, lie in `folder` or its
    `data/`; keys may have gaps. Pictures are looked for in `images`, else in `folder`, and in `val2017/` and
    `coco/images/val2017/` below either or its `data/`. Pictures that are not there are left out and named.
    Raises InputError when a file is missing or torn, a row lacks something, or no picture is there.

    Example:
        evaluate_contrasts(encoder, read_sugarcrepe("sugar-crepe", images="coco/val2017"), editor)
    """
    files = PublishedFiles(folder, "SugarCrepe", SOURCE)
    find = val2017_finder(folder, images)

    def items() -> Iterator[Contrast | Problem]:
        for group in GROUPS:
            file = files.find(f"{group}.json", f"data/{group}.json")
            for key, row in files.read_json(file, dict).items():
                where = f"row {key} of {file}"
                captions = (required_text(row, "caption", where), required_text(row, "negative_caption", where))
                yield item_of(required_text(row, "filename", where), find, captions, group)

    return gather_items(items(), "SugarCrepe", "pass `images`, the folder of COCO's val2017 pictures", published=7511)


def val2017_finder(folder: str | Path, images: str | Path | None) -> Find:
    """From the name of a picture of COCO val2017 to its file, looked for where `read_sugarcrepe` says."""
    base = Path(folder) if images is None else folder_of_images(images)
    below = ("", "val2017", "images/val2017", "coco/images/val2017")
    return finder([base / part / end for part in ("", "data") for end in below])


def run_sugarcrepe(job: BenchmarkJob) -> BenchmarkResult:
    """Accuracy by kind of change, and the means."""
    return run_contrasts(job, read_sugarcrepe(job.folder, job.images), macro_only=False)
