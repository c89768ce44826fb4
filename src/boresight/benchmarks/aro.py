"""ARO (arXiv 2210.01936): relations and attributes of Visual Genome exchanged, and captions in another word order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from boresight.benchmarks.coco import KARPATHY_5K
from boresight.benchmarks.contrast_sets import (
    against_orders,
    gather_items,
    item_of,
    required_text,
    run_contrasts,
)
from boresight.benchmarks.files import PublishedFiles
from boresight.benchmarks.flickr30k import KARPATHY_1K
from boresight.benchmarks.job import BenchmarkJob, BenchmarkResult
from boresight.data.files import finder, folder_of_images
from boresight.data.problems import Problem
from boresight.errors import InputError
from boresight.evaluation.contrasts import Contrast, Contrasts, Picture

SOURCE = "https://github.com/mertyg/vision-language-models-are-bows"
AroPart = Literal["vg-relation", "vg-attribution", "coco-order", "flickr-order"]
_ORDERS = {"coco-order": KARPATHY_5K, "flickr-order": KARPATHY_1K}
SYMMETRIC = frozenset(files("boresight.benchmarks").joinpath("aro_symmetric.txt").read_text("utf-8").splitlines())
"""Relations that the published macro accuracy leaves out, because they read much the same either way round.

As listed in the notebook that reproduces the paper's figures (in the repository above, 'Replicate ARO! VG-Relation,
VG-Attribution'); the list is wider than the word symmetric.
"""


def read_aro(
    folder: str | Path,
    part: AroPart,
    images: str | Path | None = None,
    *,
    seed: int = 0,
) -> Contrasts:
    """One part of ARO.

    'vg-relation' and 'vg-attribution': `visual_genome_relation.json` and `visual_genome_attribution.json`, pictures
    in `images/`, each cut to its box. Groups are relations, and pairs of attributes. The macro mean is the published
    one: over relations without SYMMETRIC ones, and over pairs with at least 25 items.

    'coco-order' and 'flickr-order': captions of Karpathy's test split against their own words in another order. The
    published orders were drawn without a seed and by a part-of-speech tagger; these are others, drawn under `seed`
    (`boresight.evaluation.word_order`), so figures are comparable among themselves and not with published ones. The
    files are those of the retrieval benchmarks 'coco-karpathy-5k' and 'flickr30k-1k', and are read alike.

    Pictures that are not there are left out and named; `images` is their folder where it is elsewhere.
    Raises InputError when a file is missing or torn, a row lacks something, or no picture is there.

    Example:
        evaluate_contrasts(encoder, read_aro("aro", "vg-relation"), editor)
    """
    if part not in get_args(AroPart):
        raise InputError(f"ARO has no part '{part}'; choose one of {', '.join(get_args(AroPart))}.")
    if part in _ORDERS:
        return _read_order(folder, part, images, seed)
    key = part.removeprefix("vg-")
    published = PublishedFiles(folder, "ARO", SOURCE)
    file = published.find(f"visual_genome_{key}.json")
    rows = published.read_json(file, list)
    base = Path(folder) if images is None else folder_of_images(images)
    find = finder([base / "images", base])

    def items() -> Iterator[Contrast | Problem]:
        for number, row in enumerate(rows):
            where = f"row {number} of {file}"
            captions = (required_text(row, "true_caption", where), required_text(row, "false_caption", where))
            group = required_text(row, "relation_name", where) if key == "relation" else _attributes(row, where)
            yield item_of(required_text(row, "image_path", where), find, captions, group, _box(row, where))

    hint = "put vgr_vga_images.zip's pictures into images/, or pass their folder as `images`"
    if key == "relation":
        return gather_items(items(), "ARO VG-Relation", hint, outside_macro=SYMMETRIC, published=23937)
    return gather_items(items(), "ARO VG-Attribution", hint, fewest=25, published=28748)


def run_visual_genome(job: BenchmarkJob, part: AroPart) -> BenchmarkResult:
    """The two means of VG-Relation or VG-Attribution."""
    return run_contrasts(job, read_aro(job.folder, part, job.images), macro_only=True)


def run_order(job: BenchmarkJob, part: AroPart) -> BenchmarkResult:
    """The two means of COCO-Order or Flickr-Order, in orders of our own drawing."""
    result = run_contrasts(job, read_aro(job.folder, part, job.images, seed=job.seed), macro_only=True)
    return replace(result, facts={**result.facts, "seed": str(job.seed)})


def _read_order(folder: str | Path, part: AroPart, images: str | Path | None, seed: int) -> Contrasts:
    collection = _ORDERS[part].open(folder, images)

    def items() -> Iterator[Contrast | Problem]:
        for row, (identity, captions) in enumerate(zip(collection.ids, collection.captions, strict=True)):
            picture = Picture(identity, partial(collection.image, row))
            for caption in captions:
                item = against_orders(picture, caption, part, seed)
                yield item or Problem("unshufflable caption", f"'{caption}' of {identity}")

    contrasts = gather_items(items(), f"ARO {part}", "take captions of two words or more")
    return replace(contrasts, problems=[*collection.problems, *contrasts.problems])


def _attributes(row: Mapping[str, Any], where: str) -> str:
    pair = row.get("attributes")
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(one, str) and one for one in pair):
        raise InputError(f"{where} has no 'attributes' that are two texts; get the file anew.")
    return ", ".join(pair)


def _box(row: Mapping[str, Any], where: str) -> tuple[float, float, float, float]:
    values = [row.get(f"bbox_{end}") for end in "xywh"]
    numbers = [value for value in values if isinstance(value, (int, float)) and math.isfinite(value)]
    if len(numbers) < 4 or min(numbers[2:]) <= 0:
        raise InputError(f"{where} has no box: bbox_x, bbox_y, bbox_w and bbox_h are {values}; get the file anew.")
    left, top, width, height = numbers
    return left, top, width, height
