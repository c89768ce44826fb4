"""Grey pictures with class labels in the IDX form of MNIST and Fashion-MNIST."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boresight.benchmarks.files import PublishedFiles
from boresight.errors import InputError
from worlds.glyphs import NAMES as DIGITS

FASHION = (
    *("t-shirt", "pair of trousers", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
DEBIAN_FOLDER = "/usr/share/datasets/fashion-mnist"
SOURCE = "https://github.com/zalandoresearch/fashion-mnist, or with apt-get install dataset-fashion-mnist"
IMAGES, LABELS = 3, 1  # dimensions, the last byte of the magic number
BYTES = 8  # unsigned, the byte before it
MNIST_BEGINS = (5, 0, 4, 1, 9, 2, 1, 3, 1, 4)  # the labels of its first training pictures; the files' names are alike

# Of ten rows of the training file, for which splits they are; the test file is for the split 'test'.
ROWS_OF = {"encoder": range(0, 5), "train": range(5, 9), "validation": range(9, 10)}


@dataclass(frozen=True, eq=False)
class GreyPictures:
    """Labelled pictures for `make_mad`: (N, 28, 28) uint8, (N,) integers and the classes' names; `test` likewise."""

    pictures: np.ndarray
    labels: np.ndarray
    test_pictures: np.ndarray
    test_labels: np.ndarray
    names: Sequence[str]

    def __call__(self, split: str, index: int) -> tuple[np.ndarray, str]:
        """Picture `index` of a split and its class's name; from the first on again when there are no more.

        Raises InputError when the split has no picture.
        """
        if split == "test":
            pictures, labels, row = self.test_pictures, self.test_labels, index % max(1, len(self.test_labels))
        else:
            pictures, labels, mine = self.pictures, self.labels, ROWS_OF[split]
            tens, rest = divmod(len(labels), 10)
            count = tens * len(mine) + len(range(mine.start, min(mine.stop, rest)))
            ten, place = divmod(index % max(1, count), len(mine))
            row = 10 * ten + mine.start + place
        if row >= len(labels):
            raise InputError(f"The split '{split}' has none of {len(labels)} pictures; pass 10 or more.")
        return pictures[row], self.names[int(labels[row])]


def load_idx(folder: str | Path = DEBIAN_FOLDER, names: Sequence[str] | None = None) -> GreyPictures:
    """The four files of MNIST or Fashion-MNIST, packed (.gz) or not.

    names: of the classes, in the order of their labels. Left out, those of digits where the training labels begin as
        MNIST's do, and else those of Fashion-MNIST.
    Raises InputError when a file is missing, torn or not what its name says, or a label has no name.
    """
    read = {}
    for part in ("train", "t10k"):
        file, pictures = _read(folder, f"{part}-images", IMAGES)
        if pictures.shape[1:] != (28, 28):
            raise InputError(f"{file} holds pictures of {pictures.shape[1:]} pixels, not 28 x 28; get it anew.")
        file, labels = _read(folder, f"{part}-labels", LABELS)
        if len(labels) != len(pictures):
            raise InputError(f"{file} holds {len(labels)} labels for {len(pictures)} pictures; get both anew.")
        if names is None:
            names = DIGITS if tuple(labels[: len(MNIST_BEGINS)].tolist()) == MNIST_BEGINS else FASHION
        if len(labels) and labels.max() >= len(names):
            raise InputError(f"{file} holds the label {labels.max()} and there are {len(names)} names; pass `names`.")
        read[part] = pictures, labels
    assert names is not None  # the training labels have settled it
    return GreyPictures(*read["train"], *read["t10k"], tuple(names))


def _read(folder: str | Path, name: str, dimensions: int) -> tuple[Path, np.ndarray]:
    """The file and its array of uint8: four bytes of magic, a big-endian size for each dimension, the values."""
    endings = [form.format(dimensions) for form in ("-idx{}-ubyte.gz", "-idx{}-ubyte", ".idx{}-ubyte")]
    file = PublishedFiles(folder, "Fashion-MNIST", SOURCE).find(*(name + ending for ending in endings))
    try:
        raw = file.read_bytes()
        data = gzip.decompress(raw) if file.suffix == ".gz" else raw
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{file} cannot be read ({error}); get it anew from {SOURCE}.") from error
    start = 4 + 4 * dimensions
    if data[:4] != bytes((0, 0, BYTES, dimensions)) or len(data) < start:
        raise InputError(f"{file} is no IDX file of {dimensions} dimensions of bytes; get it anew from {SOURCE}.")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    if len(data) - start != np.prod(shape, dtype=object):
        sizes = " x ".join(map(str, shape))
        raise InputError(f"{file} holds {len(data) - start} values and says {sizes}; get it anew from {SOURCE}.")
    return file, np.frombuffer(data, np.uint8, offset=start).reshape(shape)
