"""COCO captions: Karpathy's test split, whole and in five folds, and val2017, which is another 5,000 images."""

from __future__ import annotations

import os
from pathlib import Path

from boresight.benchmarks.files import PublishedFiles, with_annotations
from boresight.benchmarks.retrieval import Draft, PublishedRetrieval
from boresight.data.formats.coco import read_json_content

SOURCE = "https://cocodataset.org/#download"
KARPATHY_SOURCES = (
    "https://github.com/salesforce/BLIP, or https://github.com/mehdidc/retrieval_annotations/releases, "
    "or https://cs.stanford.edu/people/karpathy/deepimagesent"
)


def read_karpathy_split(files: PublishedFiles) -> Draft:
    """Karpathy's test split of COCO, from any of the three files in which it is published."""
    names = ("coco_karpathy_test.json", "coco_test_karpathy.json", "dataset_coco.json")
    return read_captions_json(files, files.find(*with_annotations(*names)))


def read_val2017(files: PublishedFiles) -> Draft:
    """COCO's own captions of val2017."""
    file = files.find(*with_annotations("captions_val2017.json"))
    return read_json_content(files.read_json(file, dict), file, format="coco", name=files.title, images=files.bases[0])


def read_captions_json(files: PublishedFiles, file: Path) -> Draft:
    """COCO captions json, Karpathy's original (only its test images) or BLIP's list of images."""
    content = files.read_json(file, (list, dict))
    if isinstance(content, dict) and "annotations" in content:
        return read_json_content(content, file, name=files.title, images=files.bases[0])
    # Folders in the names are left out: many keep the pictures under another, and the files' names are unique.
    if isinstance(content, list):
        content = [
            {**row, "image": os.path.basename(files.text(row, "image", f"entry {number} of {file}"))}
            for number, row in enumerate(content)
        ]
    elif isinstance(content.get("images"), list):
        rows = [row for row in content["images"] if isinstance(row, dict) and row.get("split") == "test"]
        content = {**content, "images": [{**row, "filepath": ""} for row in rows]}
    return read_json_content(content, file, name=files.title, images=files.bases[0])


def _karpathy(name: str, title: str, folds: int) -> PublishedRetrieval:
    pictures = ("val2014", "images/val2014", "images", "")
    source = f"{KARPATHY_SOURCES}; pictures: {SOURCE}"
    return PublishedRetrieval(name, title, source, read_karpathy_split, pictures, (5000, 25010), folds)


KARPATHY_5K = _karpathy("coco-karpathy-5k", "COCO, Karpathy test 5k", 1)
SETS = (
    KARPATHY_5K,
    _karpathy("coco-karpathy-1k", "COCO, Karpathy test 1k (mean of five folds)", 5),
    PublishedRetrieval(
        "coco-val2017",
        "COCO val2017 5k (not Karpathy's)",
        SOURCE,
        read_val2017,
        ("val2017", "images/val2017", "images", ""),
        (5000, 25014),
    ),
)
