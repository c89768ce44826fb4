"""The one data model: images with a ragged list of captions each, a split and stable ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from torch import Tensor

from boresight.brief import Brief, brief, frequencies
from boresight.data.images import decode, embedded, thumbnail
from boresight.data.problems import Problem
from boresight.errors import InputError
from boresight.indexing import row_numbers

if TYPE_CHECKING:
    from datasets import Dataset

SHOWN = 5  # pictures that a notebook gets to see


@dataclass(frozen=True, repr=False)
class Collection(Brief):
    """Captioned images over a Hugging Face `datasets.Dataset`; pixels are read only when asked for.

    Example:
        photos = bs.load_collection("photos/")
        photos.image(0), photos.captions[0]  # an upright RGB picture, and what is written about it
        dogs = photos.select([row for row, texts in enumerate(photos.captions) if "dog" in texts[0]])

    Relations:
        `load_collection` makes one from files; `make_scenes` and `load_emoji` give two that need none; `embed` takes
        one. To make one from what you have in memory, pass a `datasets.Dataset` to `load_collection`.

    Attributes:
        dataset: columns `id` (string), `image` (struct of `bytes` binary or null and `path` string or null, and,
            for members of a tar file, `offset` and `size` integers, and `orientation`, EXIF's number, where the file
            lost it), `captions` (list of string), `split` (string),
            and any further columns the source had, e.g. `attributes`.
        name: what to call it.
        problems: what was skipped while reading, one entry each.
    """

    dataset: Dataset
    name: str = ""
    problems: Sequence[Problem] = field(default_factory=tuple)

    def __len__(self) -> int:
        return len(self.dataset)

    def _parts(self) -> dict[str, str]:
        captions = sum(map(len, self.captions))
        sizes = {"images": f"{len(self):,}", "captions": f"{captions:,}", "splits": frequencies(self.splits)}
        left_out = {"problems": f"{len(self.problems):,}"} if self.problems else {}
        return {"name": brief(self.name), **sizes, **left_out}

    def _repr_html_(self) -> str:
        """Sizes and the first few pictures with their captions, for a notebook; whatever comes from data is escaped."""
        rows = [self._shown(row) for row in range(min(SHOWN, len(self)))]
        cells = "".join(f"<td>{cell}</td>" for cell in rows)
        return f"{super()._repr_html_()}<table><tr>{cells}</tr></table>"

    def _shown(self, row: int) -> str:
        one = self.dataset[row : row + 1]
        said = "<br>".join(escape(brief(caption)) for caption in one["captions"][0][:2])
        try:
            drawn = f'<img alt="" src="{embedded(thumbnail(self.image(row)), "webp")}">'
        except InputError:
            drawn = "(cannot be read)"
        return f"{drawn}<br><b>{escape(brief(one['id'][0]))}</b><br>{said}"

    # A column is sliced, not iterated: `datasets` reads a slice from Arrow at once, fifteen times faster.

    @property
    def ids(self) -> list[str]:
        """N ids, each once."""
        return self.dataset["id"][:]

    @property
    def captions(self) -> list[list[str]]:
        """N lists of captions, ragged."""
        return self.dataset["captions"][:]

    @property
    def splits(self) -> list[str]:
        """N names of splits; 'all' stands for none."""
        return self.dataset["split"][:]

    @property
    def texts(self) -> list[str]:
        """All M captions, image after image."""
        return [caption for captions in self.captions for caption in captions]

    @property
    def owners(self) -> np.ndarray:
        """(M,) int64, the row of the image of each of `texts`."""
        return np.repeat(np.arange(len(self)), self.counts)

    @property
    def counts(self) -> np.ndarray:
        """(N,) int64, how many captions each image has."""
        import pyarrow.compute as pc  # only here: a collection is named wherever embeddings are made

        return pc.list_value_length(self.dataset.with_format("arrow")["captions"][:]).to_numpy().astype(np.int64)

    @cached_property
    def _pictures(self) -> Dataset:
        # Without the other columns, which may hold pictures or masks of their own.
        return self.dataset.select_columns(["id", "image"])

    def image(self, row: int) -> Image.Image:
        """The picture at `row`, decoded, upright, RGB.

        Raises InputError naming the image when it cannot be read, ArtefactError when the place of its file went away.
        """
        cells = self._pictures[int(row)]
        return decode(cells["image"], f"image '{cells['id']}'")

    def select(self, rows: Tensor | np.ndarray | Sequence[int]) -> Collection:
        """The images at `rows`, in that order: row numbers, negative ones from the end, or a mask of N booleans.

        Raises InputError as `boresight.indexing.row_numbers` says.
        """
        return Collection(self.dataset.select(row_numbers(rows, len(self)).numpy()), self.name, self.problems)

    def split(self, name: str) -> Collection:
        """The images of one split, of 'all' every image. Raises InputError when it is empty, naming those there are."""
        if name == "all":
            return self
        splits = self.splits
        rows = [i for i, split in enumerate(splits) if split == name]
        if not rows:
            present = ", ".join(sorted(set(splits))) or "none"
            raise InputError(f"The split '{name}' of {self.name or 'this collection'} is empty; present: {present}.")
        return self.select(rows)
