"""The one data model: images with a ragged list of captions each, a split and stable ids."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset
from PIL import Image

from boresight.errors import InputError


@dataclass(frozen=True)
class Problem:
    """One thing that was wrong with the source: `what` ('missing file', 'empty caption', ...) and `where`."""

    what: str
    where: str


@dataclass(frozen=True)
class Collection:
    """Captioned images over a Hugging Face `datasets.Dataset`; pixels are read only when asked for.

    Attributes:
        dataset: columns `id` (string), `image` (struct of `bytes` binary or null and `path` string or null, and,
            for members of a tar file, `offset` and `size` integers), `captions` (list of string), `split` (string),
            and any further columns the source had, e.g. `attributes`.
        name: what to call it.
        problems: what was skipped while reading, one entry each.
    """

    dataset: Dataset
    name: str = ""
    problems: Sequence[Problem] = field(default_factory=tuple)

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def ids(self) -> list[str]:
        return list(self.dataset["id"])

    @property
    def captions(self) -> list[list[str]]:
        """N lists of captions, ragged."""
        return list(self.dataset["captions"])

    @property
    def splits(self) -> list[str]:
        return list(self.dataset["split"])

    @property
    def texts(self) -> list[str]:
        """All M captions, image after image."""
        return [caption for captions in self.captions for caption in captions]

    @property
    def owners(self) -> np.ndarray:
        """(M,) int64, the row of the image of each of `texts`."""
        return np.repeat(np.arange(len(self)), [len(captions) for captions in self.captions])

    def image(self, row: int) -> Image.Image:
        """The picture at `row`, decoded, RGB. Raises InputError naming the image when it cannot be read."""
        return decode(self.dataset[row]["image"], f"image '{self.dataset[row]['id']}'")

    def select(self, rows: Sequence[int] | np.ndarray) -> Collection:
        return Collection(self.dataset.select(rows), self.name, self.problems)

    def split(self, name: str) -> Collection:
        """The images of one split. Raises InputError when it is empty, naming the splits there are."""
        splits = self.splits
        rows = [i for i, split in enumerate(splits) if split == name]
        if not rows:
            present = ", ".join(sorted(set(splits))) or "none"
            raise InputError(f"The split '{name}' of {self.name or 'this collection'} is empty; present: {present}.")
        return self.select(rows)


def decode(source: Mapping[str, Any], label: str) -> Image.Image:
    """An RGB picture from an `image` cell; transparency is laid over white. Raises InputError naming `label`."""
    try:
        data = source.get("bytes")
        if data is None:
            with open(source["path"], "rb") as handle:
                if source.get("offset") is not None:
                    handle.seek(source["offset"])
                    data = handle.read(source["size"])
                else:
                    data = handle.read()
        picture = Image.open(io.BytesIO(data))
        picture.load()
    except FileNotFoundError as error:
        raise InputError(f"The file of {label} is missing: {source['path']}; restore it or drop the row.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"The picture of {label} is corrupt ({error}), from {source.get('path') or 'memory'}; drop or replace it."
        ) from error
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")
