"""Names of splits, and splits for collections that have none."""

from __future__ import annotations

import hashlib
import math
import os
import re
import uuid
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

import pyarrow as pa

from boresight.data.collection import Collection
from boresight.data.picture_keys import picture_keys
from boresight.data.problems import counted
from boresight.errors import InputError
from boresight.progress import say

if TYPE_CHECKING:
    from datasets import Dataset

NO_SPLIT = "all"
_VALIDATION = frozenset({"val", "valid", "dev", "validation"})
FOLDERS = _VALIDATION | {"train", "test"}
_IN_NAME = re.compile(r"(?:^|[^a-z])(train|validation|valid|val|dev|test)(?:\d{4})?(?![a-z0-9])", re.IGNORECASE)


def normal_split(name: object) -> str:
    """'validation' for val, valid and dev, 'train' and 'test', in any case; any other name as it is; 'all' for none."""
    text = "" if name is None else str(name).strip()
    usual = text.lower()
    return "validation" if usual in _VALIDATION else usual if usual in FOLDERS else text or NO_SPLIT


def split_of_path(path: str) -> str:
    """The split that the first folder of a relative path names, else 'all'."""
    folder, slash, _ = path.partition(os.sep)
    return normal_split(folder.lower()) if slash and folder.lower() in FOLDERS else NO_SPLIT


def split_of_name(stem: str) -> str:
    """The split in a file's name: `captions_val2017`, `coco_karpathy_test`, `train-00000-of-00002`; else 'all'."""
    match = _IN_NAME.search(stem)
    return normal_split(match[1].lower()) if match else NO_SPLIT


def without_split(name: str) -> str:
    """A pattern for the files that differ from this one in the split in their name alone: 'captions_*2017.json'."""
    match = _IN_NAME.search(name)
    return f"{name[: match.start(1)]}*{name[match.end(1) :]}" if match else name


def split_of_file(path: str) -> str:
    """The split that the first folder of a relative path names, or else the file's name; else 'all'."""
    split = split_of_path(path)
    return split_of_name(PurePath(path).stem) if split == NO_SPLIT else split


def train_validation_test(
    collection: Collection, *, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0, anew: bool = False
) -> Collection:
    """Split a collection that has no splits into 'train', 'validation' and 'test', each image by a hash of its id.

    An image keeps its split when others are added or removed, on every machine; the shares are met on average.

    Example:
        photos = bs.train_validation_test(bs.load_collection("photos/"))
        photos.split("train"), photos.split("validation"), photos.split("test")

    Relations:
        `load_collection` keeps the splits of a source that has them; use those where others report on them.

    Args:
        fractions: three shares that sum to 1.
        seed: another seed, another split.
        anew: forget the splits that the collection has. A picture that stands in several of them, an image in each,
            is one image then, at the place and under the id of its first, with the captions of all.

    Raises:
        InputError: fractions that are no shares, or a collection that already has more than one split, unless `anew`.
    """
    if not isinstance(collection, Collection):
        raise InputError(
            f"{type(collection).__name__} cannot be split here, only a collection: split it before it is embedded "
            "('boresight embed --split-anew'), or name the splits by `splits` in Embeddings.from_arrays."
        )
    shares_ok = len(fractions) == 3 and all(0 <= share <= 1 for share in fractions)
    if not shares_ok or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise InputError(f"fractions must be three shares that sum to 1, for example (0.8, 0.1, 0.1), not {fractions}.")
    present = sorted(set(collection.splits))
    if len(present) > 1 and not anew:
        raise InputError(
            f"{collection.name or 'This collection'} already has the splits {', '.join(present)}; take one with "
            "split(), or pass anew=True."
        )
    from datasets import Dataset

    dataset = _joined(collection) if len(present) > 1 else collection.dataset
    table = dataset.data.table
    splits = pa.array([_drawn(identity, fractions, seed) for identity in table.column("id").to_pylist()], pa.string())
    table = table.set_column(table.column_names.index("split"), pa.field("split", pa.string()), splits)
    # The whole table below a selection is relabelled, so that no picture has to be copied.
    relabelled = Dataset(table, info=dataset.info, indices_table=dataset._indices, fingerprint=uuid.uuid4().hex)
    return Collection(relabelled, collection.name, collection.problems)


def _joined(collection: Collection) -> Dataset:
    """The dataset with one image for each picture that stands in several splits, once in each.

    One that stands twice in a split is left as it is: there its ids tell images apart on purpose.
    """
    from datasets import Dataset

    dataset = collection.dataset
    table, indices, splits = dataset.data.table, dataset._indices, collection.splits
    rows = list(range(len(dataset))) if indices is None else indices.column(0).to_pylist()
    keys = picture_keys([table.column("image")])[0]
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        if (key := keys[row]) is not None:
            places.setdefault(key, []).append(place)
    several = [some for some in places.values() if 1 < len(some) == len({splits[place] for place in some})]
    if not several:
        return dataset
    captions = table.column("captions").to_pylist()
    for first, *others in several:
        lists = dict.fromkeys(tuple(captions[rows[place]]) for place in (first, *others))  # the same list counts once
        captions[rows[first]] = [caption for texts in lists for caption in texts]
    column = table.column_names.index("captions")
    table = table.set_column(column, table.field(column), pa.chunked_array([captions], table.field(column).type))
    name = collection.name or "the collection"
    say(f"{name}: {counted(len(several), 'picture')} of several splits: one image each, with all captions.")
    left_out = {place for _, *others in several for place in others}
    joined = Dataset(table, info=dataset.info, indices_table=indices, fingerprint=uuid.uuid4().hex)
    return joined.select([place for place in range(len(rows)) if place not in left_out])


def _drawn(identity: str, fractions: Sequence[float], seed: int) -> str:
    point = hashed(f"{seed}:{identity}")
    if point < fractions[0]:
        return "train"
    return "validation" if point < fractions[0] + fractions[1] else "test"


def hashed(text: str) -> float:
    """A number in [0, 1) that depends on the text alone, on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") / 2**56
