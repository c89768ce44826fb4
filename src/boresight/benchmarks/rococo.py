"""RoCOCO (arXiv 2304.10727): the COCO test images with altered captions, and with altered pictures, among them.

Four files hold the 5,000 images of Karpathy's test split: five or six true captions each, then five altered ones.
Of the altered pictures only the making is published: `boresight.evaluation.image_mixes` makes them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from datasets import Dataset

from boresight.benchmarks.expected import expected, read_published_json
from boresight.data.assemble import Table
from boresight.data.collection import Collection
from boresight.data.files import finder, key_of
from boresight.data.formats.coco import image_folders
from boresight.data.images import is_picture
from boresight.data.problems import is_unicode
from boresight.errors import InputError

RococoSet = Literal["danger", "diff_concept", "same_concept", "rand_voca"]
SETS: tuple[RococoSet, ...] = get_args(RococoSet)
ALTERED = 5
_TRUE = (5, 6)
_WORDS = 50
_BENCHMARK = {"of": "RoCOCO", "source": "https://github.com/pseulki/rococo"}
_ANEW = f"get the file anew from {_BENCHMARK['source']}."


@dataclass(frozen=True, eq=False)
class Rococo:
    """One of RoCOCO's four sets: N images, their M true captions, and S altered ones.

    Attributes:
        collection: the images in the published order, with the true captions alone; split 'test'.
        altered: S captions, image after image.
        rows: (S,) int64, the row in `collection.texts` of the true caption that each was made of: the k-th altered
            caption of an image is of its k-th true one, so that a sixth has none.
        which: the set.
    """

    collection: Collection
    altered: list[str]
    rows: np.ndarray
    which: RococoSet

    @property
    def owners(self) -> np.ndarray:
        """(S,) int64, the row of the image of each altered caption."""
        return self.collection.owners[self.rows]

    @property
    def unchanged(self) -> list[int]:
        """The altered captions that read like the one they were made of, which no scorer can tell apart."""
        true = self.collection.texts
        return [place for place, row in enumerate(self.rows.tolist()) if self.altered[place] == true[row]]


def normalise(caption: str) -> str:
    """A caption as RoCOCO's evaluation reads it: lower case, `.!"()*#:;~` as spaces, at most 50 words.

    Ours goes one step further: no space before a comma, a question mark or 's, which altered captions have and true
    ones have not.
    """
    plain = re.sub(r"\s+", " ", re.sub(r'[.!"()*#:;~]', " ", caption.lower())).strip()
    return " ".join(re.sub(r" (?=[,?]|'s\b)", "", plain).split(" ")[:_WORDS])


def read_rococo(
    folder: str | Path,
    which: RococoSet,
    *,
    images: str | os.PathLike[str] | None = None,
    normalised: bool = True,
) -> Rococo:
    """One of the four sets, `WHICH.json` in `folder` or in its `annotations/`.

    Of ten captions of an image the first five are true, of eleven the first six. In three sets the altered captions
    are in lower case and without full stops, in 'danger' they are taken apart into words, so all captions, the true
    ones too, go through `normalise`: else a model could tell them apart by the typing.

    Args:
        images: the folder of the pictures ('val2014/COCO_val2014_*.jpg'); left out, they are looked for beside the
            json, beside its folder, and in `images/` of the two.
        normalised: False keeps the captions as they are published.

    Raises InputError for an unknown set, a missing or malformed file, another number of captions, an empty caption,
    a picture named twice or missing: a gallery with gaps is another benchmark.
    """
    if which not in SETS:
        raise InputError(f"RoCOCO has no set '{which}'; choose from {', '.join(SETS)}.")
    file = expected(folder, [f"{which}.json", f"annotations/{which}.json"], **_BENCHMARK)
    content = read_published_json(file, **_BENCHMARK)
    if not isinstance(content, list) or not content:
        raise InputError(f"{file} is no list of images with captions; {_ANEW}")
    find, table, seen = finder(image_folders(file, images)), Table(), set[str]()
    altered: list[str] = []
    rows: list[int] = []
    texts = 0
    for number, entry in enumerate(content):
        name, captions = _entry(entry, f"Image {number} of {file}")
        if name in seen:
            raise InputError(f"{file} names the image {name} twice; {_ANEW}")
        seen.add(name)
        path = find(name)
        if path is None:
            raise InputError(f"The picture {name} of {file.name} is not there; pass `images`, where 'val2014/' is.")
        said = [normalise(caption) if normalised else caption.strip() for caption in captions]
        if "" in said:
            raise InputError(f"Image {number} of {file} has an empty caption; {_ANEW}")
        own = len(said) - ALTERED
        row = table.add_image(key_of(name), {"bytes": None, "path": path}, "test", {})
        table.add_captions(row, said[:own])
        altered += said[own:]
        rows += range(texts, texts + ALTERED)
        texts += own
    return Rococo(Collection(table.finish(), f"RoCOCO, {which}"), altered, np.array(rows, np.int64), which)


def _entry(entry: Any, where: str) -> tuple[str, list[str]]:
    """Name and captions of an image in the json."""
    name, captions = (entry.get(key) if isinstance(entry, Mapping) else None for key in ("image", "caption"))
    if not isinstance(name, str) or not name or not isinstance(captions, list):
        raise InputError(f"{where} lacks the keys 'image' and 'caption'; {_ANEW}")
    if not all(isinstance(caption, str) and is_unicode(caption) for caption in captions):
        raise InputError(f"{where} has a caption that is no string of Unicode; {_ANEW}")
    if len(captions) - ALTERED not in _TRUE:
        raise InputError(
            f"{where} has {len(captions)} captions where 10 (5 true, 5 altered) or 11 (6 true, 5 altered) belong; "
            f"{_ANEW}"
        )
    return name, captions


def file_names(collection: Collection) -> list[str]:
    """What the altered picture of each image is called: its own file's name, or of a picture without one `ID.png`.

    Raises InputError when two images would share a name.
    """
    names: list[str] = []
    place: dict[str, str] = {}
    for identity, image in _cells(collection):
        path = image.get("path")
        own = os.path.basename(path) if path and image.get("offset") is None else ""
        name = own if is_picture(own) else re.sub(r"[^\w.\-]", "_", identity) + ".png"
        if name in place:
            raise InputError(f"The images '{place[name]}' and '{identity}' would both be called {name}; rename one.")
        place[name] = identity
        names.append(name)
    return names


def _cells(collection: Collection) -> Iterator[tuple[str, Mapping[str, Any]]]:
    columns = collection.dataset.select_columns(["id", "image"])
    for start in range(0, len(columns), 256):  # the cells hold the bytes of pictures that lie in no file
        block = columns[start : start + 256]
        yield from zip(block["id"], block["image"], strict=True)


def read_mixed(collection: Collection, folder: str | Path) -> Collection:
    """The altered pictures of a collection: of each image, the file of its name in `folder` ('.../mix_0.9').

    The same images in the same order, without captions: all that is written of an image is written of the original.
    Raises InputError when the folder or the picture of an image is missing.
    """
    place, table = Path(folder), Table()
    if not place.is_dir():
        raise InputError(f"There is no folder {place} of altered pictures; write one with write_mixes.")
    for identity, split, name in zip(collection.ids, collection.splits, file_names(collection), strict=True):
        if not (place / name).is_file():
            raise InputError(f"{place} lacks {name}, the altered picture of '{identity}'; finish it with write_mixes.")
        table.add_image(identity, {"bytes": None, "path": os.path.abspath(place / name)}, split, {})
    altered: Dataset = table.finish()
    return Collection(altered, f"{collection.name}, {place.name}".lstrip(", "))
