"""Embeddings of a captioned collection: images, texts, and which text belongs to which image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boresight.brief import Brief, brief, frequencies
from boresight.embeddings import store
from boresight.errors import InputError
from boresight.indexing import as_tensor, row_numbers

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, repr=False)
class Embeddings(Brief):
    """N image embeddings and M caption embeddings of width d; captions are ragged, `owners[j]` is j's image.

    Attributes:
        images: (N, d) float32 or float16, in memory or memory-mapped; cast the rows you use with `.float()`.
        texts: (M, d) likewise.
        owners: (M,) int64 in [0, N), row in `images` of each caption.
        ids: N stable image ids.
        captions: M caption strings, or None when only vectors are known.
        splits: N split names ('train', 'validation', 'test', or the collection's own).
        name: what to call it in tables.
        manifest: what made it: `encoder`, its name, `encoder_fingerprint` (unless the vectors came from arrays),
            `unit_length`, and whatever else its maker wrote down (see docs/guide/embeddings.md).
    """

    images: Tensor
    texts: Tensor
    owners: Tensor
    ids: Sequence[str]
    captions: Sequence[str] | None
    splits: Sequence[str]
    name: str = ""
    manifest: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_arrays(
        cls,
        images: Tensor | np.ndarray,
        texts: Tensor | np.ndarray | None = None,
        owners: Tensor | np.ndarray | Sequence[int] | None = None,
        *,
        ids: Sequence[str] | Sequence[int] | None = None,
        captions: Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
        name: str = "",
        encoder: str = "",
    ) -> Embeddings:
        """Embeddings that the user already has.

        Args:
            images: (N, d) numpy or torch, floating point, unit length or not (the manifest says which). float16 and
                float32 are kept as they are, other types become float32.
            texts: (M, d) likewise; M may be 0, as it is where they are left out.
            owners: (M,) integers, the row of the image that caption j belongs to; left out, caption j belongs to image
                j, and there must be as many of each.
            ids, captions, splits: N, M and N strings; ids may be integers too, which become strings. Ids default to
                row numbers, splits to 'all'.
            encoder: a name for the model behind them; an editor fitted on one name refuses another.

        Raises:
            InputError: NaN or infinite values, zero rows, widths that differ, owners that are no integers or out of
                range, wrong lengths, captions that are no strings.
        """
        image_rows = _matrix(images, "images")
        text_rows = image_rows[:0] if texts is None else _matrix(texts, "texts")
        n, m = len(image_rows), len(text_rows)
        if not n:
            raise InputError("images has no rows; pass at least one image embedding.")
        if image_rows.shape[1] != text_rows.shape[1]:
            raise InputError(
                f"Image embeddings are {image_rows.shape[1]} wide and text embeddings {text_rows.shape[1]}; "
                "both must come from the same shared space."
            )
        if owners is None and m not in (0, n):
            raise InputError(
                f"There are {n} images and {m} captions; with other than one caption an image pass owners, the row of "
                "the image of each caption."
            )
        owner_rows = torch.arange(m) if owners is None else as_tensor(owners, "owners")
        if not m and not owner_rows.numel():
            owner_rows = owner_rows.long()
        if owner_rows.is_floating_point() or owner_rows.is_complex() or owner_rows.dtype == torch.bool:
            raise InputError(
                f"owners has dtype {owner_rows.dtype}; integers, the row of each caption's image, are needed."
            )
        owner_rows = owner_rows.to(torch.int64)
        if owner_rows.shape != (m,):
            raise InputError(f"owners has shape {tuple(owner_rows.shape)} and {m} captions need ({m},).")
        if m and not (int(owner_rows.min()) >= 0 and int(owner_rows.max()) < n):
            row = int(((owner_rows < 0) | (owner_rows >= n)).nonzero()[0])
            raise InputError(
                f"Caption {row} belongs to image {int(owner_rows[row])}, but there are {n} images (0 to {n - 1})."
            )
        unit = _is_unit(image_rows) and _is_unit(text_rows)
        return cls(
            images=image_rows,
            texts=text_rows,
            owners=owner_rows,
            ids=_strings(range(n) if ids is None else ids, "ids", n, numbers=True),
            captions=None if captions is None else _strings(captions, "captions", m),
            splits=["all"] * n if splits is None else _strings(splits, "splits", n),
            name=name,
            manifest={"encoder": encoder, "unit_length": unit},
        )

    def __len__(self) -> int:
        return self.images.shape[0]

    def _parts(self) -> dict[str, str]:
        return {
            "name": brief(self.name),
            "images": brief(self.images),
            "texts": brief(self.texts),
            "splits": frequencies(self.splits),
            "encoder": brief(self.manifest.get("encoder", "")),
        }

    @property
    def width(self) -> int:
        """d, the width of the shared space."""
        return self.images.shape[1]

    @property
    def left_out(self) -> dict[str, int]:
        """How many of what kind are missing here of what their source holds; `embed` wrote it down, else it is empty.

        Pictures that could not be read are those of the splits that are here; what reading the source left out is of
        all splits, and its kinds say so.
        """
        counts: Counter[str] = Counter()
        for entry in self.manifest.get("left_out", ()):
            if entry["split"] is None:
                counts[f"{entry['what']}, in all splits"] += entry["count"]
            elif entry["split"] in self.splits:
                counts[entry["what"]] += entry["count"]
        return dict(counts)

    def select(self, rows: Tensor | np.ndarray | Sequence[int]) -> Embeddings:
        """The images at `rows`, in that order, with their captions in their old order behind each image.

        `rows` are row numbers, negative ones counted from the end, or a mask of N booleans. A row named twice comes
        twice, captions and all. A run of consecutive rows stays a view, so memory-mapped embeddings stay on disk.
        Raises InputError as `boresight.indexing.row_numbers` says.
        """
        chosen = row_numbers(rows, len(self))
        by_owner = torch.argsort(self.owners, stable=True)
        counts = torch.bincount(self.owners, minlength=len(self))
        new_counts = counts[chosen]
        texts = by_owner[_ragged((counts.cumsum(0) - counts)[chosen], new_counts)]
        return replace(
            self,
            images=_take(self.images, chosen),
            texts=_take(self.texts, texts),
            owners=torch.repeat_interleave(torch.arange(len(chosen)), new_counts),
            ids=[self.ids[i] for i in chosen.tolist()],
            captions=None if self.captions is None else [self.captions[j] for j in texts.tolist()],
            splits=[self.splits[i] for i in chosen.tolist()],
            # Without the hash of the whole collection, for which `embed` would take a part that was saved.
            manifest={key: value for key, value in self.manifest.items() if key != "collection"},
        )

    def split(self, name: str) -> Embeddings:
        """The images of one split, of 'all' every image. Raises InputError when it is empty, naming those there are."""
        if name == "all":
            return self
        rows = [i for i, split in enumerate(self.splits) if split == name]
        if not rows:
            present = ", ".join(sorted(set(self.splits))) or "none"
            raise InputError(
                f"The split '{name}' of {self.name or 'these embeddings'} is empty; present: {present}. Choose one of "
                f"these, name images '{name}' in `splits`, or embed with splits drawn anew "
                "('boresight embed --split-anew')."
            )
        return self.select(rows)

    def save(self, folder: str | Path) -> None:
        """Write to `folder`, whole or not at all: .npy matrices, parquet metadata, `manifest.json`.

        Raises ArtefactError when the place cannot be written or holds something else than an artefact.
        """
        store.save(Path(folder), **vars(self))

    @classmethod
    def load(cls, folder: str | Path, *, verify: bool = False) -> Embeddings:
        """Embeddings that `save` or `embed` wrote, memory-mapped: vectors are read from disk when they are used.

        `verify` reads everything once and compares hashes. Raises ArtefactError when the folder is missing, torn,
        of another kind, or holds a run that is not finished.
        """
        return cls(**store.load(Path(folder), verify))

    @property
    def train(self) -> Embeddings:
        """The split 'train'."""
        return self.split("train")

    @property
    def validation(self) -> Embeddings:
        """The split 'validation'."""
        return self.split("validation")

    @property
    def test(self) -> Embeddings:
        """The split 'test'."""
        return self.split("test")


def left_out_words(embeddings: Embeddings) -> str:
    """'6 x unreadable picture; 20 x missing file, in all splits', or nothing."""
    return "; ".join(f"{count:,} x {what}" for what, count in embeddings.left_out.items())


def _ragged(starts: Tensor, lengths: Tensor) -> Tensor:
    """starts[0], starts[0] + 1, ... (lengths[0] of them), then the same for starts[1], and so on."""
    before = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum())) + torch.repeat_interleave(starts - before, lengths)


def _take(values: Tensor, rows: Tensor) -> Tensor:
    """values[rows], as a view where the rows are consecutive."""
    consecutive = len(rows) > 0 and bool((rows.diff() == 1).all())
    return values[int(rows[0]) : int(rows[-1]) + 1] if consecutive else values[rows]


def require_embeddings(**given: Any) -> None:
    """Raises InputError, naming the argument, for what is no `Embeddings`."""
    for name, value in given.items():
        if not isinstance(value, Embeddings):
            raise InputError(
                f"{name} is of type {type(value).__name__}; pass Embeddings: embed() gives them, and "
                "Embeddings.from_arrays() makes them of vectors."
            )


def _matrix(values: Tensor | np.ndarray | Sequence[Any], label: str) -> Tensor:
    rows = as_tensor(values, label)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise InputError(f"{label} has shape {tuple(rows.shape)}; a matrix (rows, width) is needed.")
    if not rows.is_floating_point():
        raise InputError(f"{label} has dtype {rows.dtype}; floating-point embeddings are needed.")
    if rows.dtype not in (torch.float16, torch.float32):
        rows = rows.float()
    check_rows(rows, label)
    return rows


def check_rows(rows: Tensor, label: str, block: int = 65536, first: int = 0) -> None:
    """Raises InputError naming the first row that holds NaN or infinity, or is all zero.

    rows: (N, d), of which the first one is number `first`.
    """
    for start in range(0, len(rows), block):
        part = rows[start : start + block].float()
        for bad, what in (
            (~torch.isfinite(part).all(1), "holds NaN or infinity"),
            (part.abs().amax(1) == 0, "is all zero, so it has no direction"),
        ):
            if bad.any():
                row = first + start + int(bad.nonzero()[0])
                raise InputError(f"Row {row} of {label} {what}; drop it or compute it again.")


def _strings(values: Sequence[Any], label: str, length: int, *, numbers: bool = False) -> list[str]:
    if isinstance(values, str):
        raise InputError(f"{label} is one string; pass a list of {length}.")
    if len(values) != length:
        raise InputError(f"{label} has {len(values)} entries and {length} are needed.")
    for row, value in enumerate(values):
        if not isinstance(value, (str, int, np.integer) if numbers else str):
            raise InputError(f"Entry {row} of {label} is of type {type(value).__name__}, not a string; convert it.")
    return [str(value) for value in values]


def _is_unit(rows: Tensor, block: int = 65536) -> bool:
    norms = [part.float().norm(dim=1) for part in rows.split(block)]
    return all(bool(((some - 1).abs() < 5e-3).all()) for some in norms)
