"""Embeddings of a captioned collection: images, texts, and which text belongs to which image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boresight.errors import InputError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Embeddings:
    """N image embeddings and M caption embeddings of width d; captions are ragged, `owners[j]` is j's image.

    Attributes:
        images: (N, d) float32 or float16, in memory or memory-mapped; cast the rows you use with `.float()`.
        texts: (M, d) likewise.
        owners: (M,) int64 in [0, N), row in `images` of each caption.
        ids: N stable image ids.
        captions: M caption strings, or None when only vectors are known.
        splits: N split names ('train', 'validation', 'test', or the collection's own).
        name: what to call it in tables.
        manifest: what made it: encoder name and fingerprint, `unit_length`, dtype.
        token_features: (sum of lengths, d_token) token features of the captions, concatenated, or None.
        token_offsets: (M + 1,) int64, caption j owns rows offsets[j]:offsets[j+1] of `token_features`, or None.
    """

    images: Tensor
    texts: Tensor
    owners: Tensor
    ids: Sequence[str]
    captions: Sequence[str] | None
    splits: Sequence[str]
    name: str = ""
    manifest: dict[str, Any] = field(default_factory=dict)
    token_features: Tensor | None = None
    token_offsets: Tensor | None = None

    @classmethod
    def from_arrays(
        cls,
        images: Tensor | np.ndarray,
        texts: Tensor | np.ndarray,
        owners: Tensor | np.ndarray | Sequence[int],
        *,
        ids: Sequence[str] | None = None,
        captions: Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
        name: str = "",
        encoder: str = "",
    ) -> Embeddings:
        """Embeddings that the user already has.

        Args:
            images: (N, d) numpy or torch, floating point, unit length or not (the manifest says which).
            texts: (M, d) likewise.
            owners: (M,) integers, the row of the image that caption j belongs to.
            ids, captions, splits: N, M and N strings; ids default to row numbers, splits to 'all'.
            encoder: a name for the model behind them; an editor fitted on one name refuses another.

        Raises:
            InputError: NaN or infinite values, zero rows, widths that differ, owners out of range, wrong lengths.
        """
        image_rows = _matrix(images, "images")
        text_rows = _matrix(texts, "texts")
        owner_rows = torch.as_tensor(np.asarray(owners)).to(torch.int64)
        n, m = len(image_rows), len(text_rows)
        if image_rows.shape[1] != text_rows.shape[1]:
            raise InputError(
                f"Image embeddings are {image_rows.shape[1]} wide and text embeddings {text_rows.shape[1]}; "
                "both must come from the same shared space."
            )
        if owner_rows.shape != (m,):
            raise InputError(f"owners has shape {tuple(owner_rows.shape)} and {m} captions need ({m},).")
        if m and not (int(owner_rows.min()) >= 0 and int(owner_rows.max()) < n):
            row = int(((owner_rows < 0) | (owner_rows >= n)).nonzero()[0])
            raise InputError(
                f"Caption {row} belongs to image {int(owner_rows[row])}, but there are {n} images (0 to {n - 1})."
            )
        for label, values, length in (("ids", ids, n), ("captions", captions, m), ("splits", splits, n)):
            if values is not None and len(values) != length:
                raise InputError(f"{label} has {len(values)} entries and {length} are needed.")
        unit = _is_unit(image_rows) and _is_unit(text_rows)
        return cls(
            images=image_rows,
            texts=text_rows,
            owners=owner_rows,
            ids=list(ids) if ids is not None else [str(i) for i in range(n)],
            captions=list(captions) if captions is not None else None,
            splits=list(splits) if splits is not None else ["all"] * n,
            name=name,
            manifest={"encoder": encoder, "unit_length": unit},
        )

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def width(self) -> int:
        """d, the width of the shared space."""
        return self.images.shape[1]

    def select(self, rows: Tensor | Sequence[int]) -> Embeddings:
        """The images at `rows`, in that order, with their captions."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        place = torch.full((len(self),), -1, dtype=torch.int64)
        place[rows] = torch.arange(len(rows))
        new_owners = place[self.owners]
        keep = (new_owners >= 0).nonzero()[:, 0]
        order = keep[torch.argsort(new_owners[keep], stable=True)]
        tokens, offsets = self.token_features, self.token_offsets
        if tokens is not None and offsets is not None:
            lengths = (offsets[1:] - offsets[:-1])[order]
            starts = torch.repeat_interleave(offsets[:-1][order], lengths)
            new_offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
            within = torch.arange(int(lengths.sum())) - torch.repeat_interleave(new_offsets[:-1], lengths)
            tokens, offsets = tokens[starts + within], new_offsets
        return replace(
            self,
            images=self.images[rows],
            texts=self.texts[order],
            owners=new_owners[order],
            ids=[self.ids[i] for i in rows.tolist()],
            captions=None if self.captions is None else [self.captions[j] for j in order.tolist()],
            splits=[self.splits[i] for i in rows.tolist()],
            token_features=tokens,
            token_offsets=offsets,
        )

    def split(self, name: str) -> Embeddings:
        """The images of one split. Raises InputError when it is empty, naming the splits there are."""
        rows = [i for i, split in enumerate(self.splits) if split == name]
        if not rows:
            present = ", ".join(sorted(set(self.splits))) or "none"
            raise InputError(f"The split '{name}' of {self.name or 'these embeddings'} is empty; present: {present}.")
        return self.select(rows)

    @property
    def train(self) -> Embeddings:
        return self.split("train")

    @property
    def validation(self) -> Embeddings:
        return self.split("validation")

    @property
    def test(self) -> Embeddings:
        return self.split("test")


def _matrix(values: Tensor | np.ndarray, label: str) -> Tensor:
    rows = torch.as_tensor(values)
    if rows.ndim != 2 or rows.shape[0] == 0 or rows.shape[1] == 0:
        raise InputError(f"{label} has shape {tuple(rows.shape)}; a matrix (rows, width) with rows is needed.")
    if not rows.is_floating_point():
        raise InputError(f"{label} has dtype {rows.dtype}; floating-point embeddings are needed.")
    rows = rows.detach().cpu()
    if rows.dtype not in (torch.float16, torch.float32):
        rows = rows.float()
    check_rows(rows, label)
    return rows


def check_rows(rows: Tensor, label: str, block: int = 65536) -> None:
    """Raises InputError naming the first row that holds NaN or infinity, or is all zero. rows: (N, d)."""
    for start in range(0, len(rows), block):
        part = rows[start : start + block].float()
        bad = ~torch.isfinite(part).all(1)
        if bad.any():
            row = start + int(bad.nonzero()[0])
            raise InputError(f"Row {row} of {label} holds NaN or infinity; drop it or compute it again.")
        zero = part.abs().amax(1) == 0
        if zero.any():
            row = start + int(zero.nonzero()[0])
            raise InputError(f"Row {row} of {label} is all zero, so it has no direction; drop it or compute it again.")


def _is_unit(rows: Tensor) -> bool:
    norms = rows[:65536].float().norm(dim=1)
    return bool(((norms - 1).abs() < 5e-3).all())
