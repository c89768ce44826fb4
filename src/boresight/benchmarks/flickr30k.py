"""Flickr30k: Karpathy's test split of 1,000 images; his validation split, and all 31,783, which are not it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from boresight.benchmarks.coco import KARPATHY_SOURCES, read_captions_json
from boresight.benchmarks.files import PublishedFiles, with_annotations
from boresight.benchmarks.retrieval import Draft, PublishedRetrieval, captioned, from_rows
from boresight.data.rows import SourceRow

SOURCE = "https://shannon.cs.illinois.edu/DenotationGraph"
_PICTURES = ("flickr30k-images", "flickr30k_images", "flickr30k_images/flickr30k_images", "Images", "images", "")


def read_flickr_split(files: PublishedFiles) -> Draft:
    """Karpathy's test split of Flickr30k, from any of the three files in which it is published."""
    names = ("flickr30k_test.json", "flickr30k_test_karpathy.txt", "dataset_flickr30k.json")
    file = files.find(*with_annotations(*names))
    if file.suffix == ".json":
        return read_captions_json(files, file)

    return _read_lines(files, file=file)


def read_flickr_validation(files: PublishedFiles) -> Draft:
    """Karpathy's validation split of Flickr30k, on which FLAIR reports too."""
    names = with_annotations("flickr30k_val.json")
    return read_captions_json(files, files.find(*names, "flickr30k-images/flickr30k_val.json"))


@from_rows
def _read_lines(files: PublishedFiles, file: Path) -> Iterator[SourceRow]:
    for number, (where, line) in enumerate(files.lines(file)):
        stem, comma, caption = line.partition(".jpg,")
        if comma:
            yield captioned(stem.strip() + ".jpg", caption, where, whole=False)
        elif number:  # the first line is the header
            raise files.torn(where, "is not of the form 'x.jpg,caption'")


@from_rows
def read_all(files: PublishedFiles) -> Iterator[SourceRow]:
    """Lines 'x.jpg#0<tab>caption'."""
    for where, line in files.lines(files.find(*with_annotations("results_20130124.token"))):
        name, tab, caption = line.partition("\t")
        image, sign, _ = name.partition("#")
        if not (tab and sign):
            raise files.torn(where, "is not of the form 'x.jpg#0<tab>caption'")
        yield captioned(image, caption, where, whole=False)


KARPATHY_1K = PublishedRetrieval(
    "flickr30k-1k",
    "Flickr30k, Karpathy test 1k",
    f"{KARPATHY_SOURCES}; pictures: {SOURCE}",
    read_flickr_split,
    _PICTURES,
    (1000, 5000),
)
SETS = (
    KARPATHY_1K,
    PublishedRetrieval(
        "flickr30k-val",
        "Flickr30k, Karpathy validation (not his test 1k)",
        f"https://github.com/ExplainableML/flair and {KARPATHY_SOURCES}; pictures: {SOURCE}",
        read_flickr_validation,
        _PICTURES,
        (1014, 5070),
    ),
    PublishedRetrieval(
        "flickr30k-all",
        "Flickr30k, all 31k images (not Karpathy's 1k)",
        SOURCE,
        read_all,
        _PICTURES,
        (31783, 158915),
    ),
)
