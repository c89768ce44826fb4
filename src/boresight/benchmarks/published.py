"""The retrieval benchmarks of the field, read from the files in which they are published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import pyarrow as pa

from boresight.benchmarks import published_readers as readers
from boresight.benchmarks.published_readers import Draft, Place
from boresight.data.assemble import dataset_of
from boresight.data.collection import Collection
from boresight.data.files import folder_of_images
from boresight.data.problems import Problem, printable, summary
from boresight.data.sentences import sentences
from boresight.errors import InputError
from boresight.progress import say


@dataclass(frozen=True)
class Published:
    """A retrieval benchmark.

    Attributes:
        name: what to call it here.
        title: how tables name it, told apart from others of like name.
        source: where its files are published.
        read: from a place to a dataset and what was wrong.
        pictures: folders, below the one that is passed, that may hold the pictures; "" is that one itself.
        counts: images and captions where it is published; None for what is not known.
        folds: into how many galleries it is cut; a figure on it is their mean.
    """

    name: str
    title: str
    source: str
    read: Callable[[Place], Draft]
    pictures: tuple[str, ...]
    counts: tuple[int | None, int | None] = (None, None)
    folds: int = 1

    def galleries(self, images: int) -> list[range]:
        """Rows of each gallery when `images` were read: `folds` runs of equal length, in the order of the file."""
        bounds = [round(images * fold / self.folds) for fold in range(self.folds + 1)]
        return [range(start, stop) for start, stop in pairwise(bounds)]

    def differs(self, images: int, captions: int) -> dict[str, tuple[int, int]]:
        """'images' and 'captions', where there are not as many as published -> how many here, how many there."""
        counts = zip(("images", "captions"), (images, captions), self.counts, strict=True)
        return {what: (count, there) for what, count, there in counts if there is not None and count != there}


def open_published(name: str, folder: str | Path, *, images: str | Path | None = None) -> Collection:
    """A retrieval benchmark, as its files lie in `folder`; docs/collections.md names them.

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
    """
    if name not in RETRIEVAL:
        raise InputError(f"There is no benchmark '{name}'; choose one of {', '.join(RETRIEVAL)}.")
    published = RETRIEVAL[name]
    root = Path(folder) if images is None else folder_of_images(images)
    bases = [root / below for below in published.pictures if (root / below).is_dir()] or [root]
    place = Place(Path(folder), bases, published.title, published.source)
    dataset, problems = published.read(place)
    problems = [Problem(problem.what, printable(problem.where)) for problem in problems]
    missing = [problem.where for problem in problems if problem.what == "missing file"]
    if not len(dataset):
        if missing:
            raise InputError(
                f"None of the {len(missing)} pictures of {published.title} is there, the first looked for as "
                f"{bases[0] / missing[0]}; pass `images`, the folder that holds them ({published.source})."
            )
        what = summary(problems) or "its file holds no test images"
        raise InputError(f"Nothing of {published.title} can be used: {what}; get it anew from {published.source}.")
    split = pa.array(["test"] * len(dataset), pa.string())
    table = dataset.data.table
    collection = Collection(
        dataset_of(table.set_column(table.column_names.index("split"), "split", split)), name, tuple(problems)
    )
    _compare(published, collection, bool(missing))
    return collection


def _compare(published: Published, collection: Collection, missing: bool) -> None:
    """Say what makes a figure on this collection another than the published one."""
    if collection.problems:
        fewer = "; figures over fewer images are not the published ones" if missing else ""
        say(f"{published.title}: skipped {summary(collection.problems)}{fewer}.")
    for what, (here, there) in published.differs(len(collection), len(collection.texts)).items():
        say(f"{published.title}: {here:,} {what} here, {there:,} as published.")


_COCO = "https://cocodataset.org/#download"
_KARPATHY = "https://cs.stanford.edu/people/karpathy/deepimagesent"
_BLIP = "https://github.com/salesforce/BLIP"
_CLIP_BENCHMARK = "https://github.com/mehdidc/retrieval_annotations/releases"
_FLICKR = "https://shannon.cs.illinois.edu/DenotationGraph"
_DOCCI = "https://google.github.io/docci/#downloads"
_IIW = "https://github.com/google/imageinwords/tree/main/datasets"
_URBAN = "https://huggingface.co/datasets/BeichenZhang/Urban1k"
_SHARE = "https://huggingface.co/datasets/Lin-Chen/ShareGPT4V"
_COCO_2014 = ("val2014", "images/val2014", "images", "")
_FLICKR_PICTURES = ("flickr30k-images", "flickr30k_images", "Images", "images", "")
_IIW_PICTURES = (
    "images",
    "docci_aar",
    "images_aar",
    "docci",
    "docci/images",
    "docci/images_aar",
    "dci",
    "dci/densely_captioned_images/photos",
    "",
)
_IIW_PARTS = [
    ("iiw-400", "IIW-400", "IIW-400", 400),
    ("iiw-dci", "IIW's DCI-Test", "DCI_Test", 112),
    ("iiw-docci", "IIW's DOCCI-Test", "DOCCI_Test", 100),
]


def _karpathy(name: str, title: str, folds: int) -> Published:
    source = f"{_BLIP}, or {_CLIP_BENCHMARK}, or {_KARPATHY}; pictures: {_COCO}"
    return Published(name, title, source, readers.coco_karpathy, _COCO_2014, (5000, 25010), folds)


def _iiw(name: str, title: str, parts: tuple[str, ...], images: int) -> list[Published]:
    """Whole captions, and by sentence."""
    whole, split = partial(readers.iiw, parts=parts), partial(readers.iiw, parts=parts, split=sentences)
    return [
        Published(name, f"{title}, whole captions", _IIW, whole, _IIW_PICTURES, (images, images)),
        Published(f"{name}-sentences", f"{title}, sentence-split", _IIW, split, _IIW_PICTURES, (images, None)),
    ]


_ALL = [
    _karpathy("coco-karpathy-5k", "COCO, Karpathy test 5k", 1),
    _karpathy("coco-karpathy-1k", "COCO, Karpathy test 1k (mean of five folds)", 5),
    Published(
        "coco-val2017",
        "COCO val2017 5k (not Karpathy's)",
        _COCO,
        readers.coco_val2017,
        ("val2017", "images/val2017", "images", ""),
        (5000, 25014),
    ),
    Published(
        "flickr30k-1k",
        "Flickr30k, Karpathy test 1k",
        f"{_BLIP}, or {_CLIP_BENCHMARK}, or {_KARPATHY}; pictures: {_FLICKR}",
        readers.flickr30k_karpathy,
        _FLICKR_PICTURES,
        (1000, 5000),
    ),
    Published(
        "flickr30k-all",
        "Flickr30k, all 31k images (not Karpathy's 1k)",
        _FLICKR,
        readers.flickr30k_all,
        _FLICKR_PICTURES,
        (31783, 158915),
    ),
    Published(
        "docci", "DOCCI test, whole captions", _DOCCI, readers.docci, ("images", "test_images", ""), (5000, 5000)
    ),
    Published(
        "docci-sentences",
        "DOCCI test, sentence-split",
        _DOCCI,
        partial(readers.docci, split=sentences),
        ("images", "test_images", ""),
        (5000, None),
    ),
    *(each for name, title, part, images in _IIW_PARTS for each in _iiw(name, title, (part,), images)),
    *_iiw("iiw", "IIW, all 612 images", tuple(part for *_, part, _ in _IIW_PARTS), 612),
    Published(
        "urban1k",
        "Urban1k",
        _URBAN,
        readers.urban1k,
        ("image", "images", "Urban1k/image", "Urban1k/images", ""),
        (1000, 1000),
    ),
    *(
        Published(
            f"sharegpt4v-{count // 1000}k",
            f"ShareGPT4V {count // 1000}k",
            f"{_SHARE}; pictures: SA-1B",
            partial(readers.sharegpt4v, count=count),
            ("", "sam/images", "images"),
            (count, count),
        )
        for count in (1000, 10000)
    ),
]
RETRIEVAL: dict[str, Published] = {published.name: published for published in _ALL}
