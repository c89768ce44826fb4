"""Reading the rows that an autoencoder is fitted on and codes, a batch at a time."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from boresight.embeddings.embeddings import Embeddings, check_rows
from boresight.errors import InputError
from boresight.seeds import generator

SAMPLE = 16384


@dataclass(frozen=True)
class Rows:
    """(N, d) floating-point rows, in memory or memory-mapped, read a batch at a time as float32."""

    source: Tensor | np.ndarray

    def __len__(self) -> int:
        return self.source.shape[0]

    @property
    def width(self) -> int:
        """Columns."""
        return self.source.shape[1]

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """(B, d) float32 copies on the CPU. `rows`: a slice or (B,) int64."""
        if isinstance(self.source, Tensor):
            return self.source[rows].detach().to("cpu", torch.float32)
        part = self.source[rows.numpy() if isinstance(rows, Tensor) else rows]
        return torch.from_numpy(np.array(part, dtype=np.float32))

    def sample(self, count: int, seed: int) -> Tensor:
        """(at most `count`, d) float32, distinct rows in ascending order."""
        if len(self) <= count:
            return self[:]
        return self[torch.randperm(len(self), generator=generator(seed, "sae sample"))[:count].sort().values]

    def fingerprint(self) -> str:
        """Tells one training set from another by its shape and 64 of its rows."""
        rows = self[torch.linspace(0, len(self) - 1, min(64, len(self))).long()]
        return hashlib.sha256(repr((len(self), self.width)).encode() + rows.numpy().tobytes()).hexdigest()[:16]


def as_rows(images: Tensor | np.ndarray | Embeddings, least: int = 1) -> Rows:
    """`images`, or the images of `Embeddings`, ready to be read by batch.

    Raises InputError for anything but a floating-point matrix (N, d) with N at least `least` and d at least 1.
    """
    source = images.images if isinstance(images, Embeddings) else images
    if not isinstance(source, Tensor | np.ndarray):
        raise InputError(
            f"Embeddings came as {type(source).__name__}; pass a torch tensor or numpy array (rows, width)."
        )
    if source.ndim != 2 or source.shape[1] == 0:
        raise InputError(f"Embeddings have shape {tuple(source.shape)}; a matrix (rows, width) is needed.")
    floating = source.is_floating_point() if isinstance(source, Tensor) else source.dtype.kind == "f"
    if not floating:
        raise InputError(f"Embeddings have dtype {source.dtype}; floating-point rows are needed.")
    if len(source) < least:
        raise InputError(f"There are {len(source)} rows and at least {least} are needed; pass more embeddings.")
    return Rows(source)


def data_scale(rows: Rows, block: int = 16384) -> tuple[float, float]:
    """Root of the mean squared norm, and the mean of |x - mean|^2, both over all rows, summed in float64.

    Raises InputError naming the first row that is NaN, infinite or zero, and where all rows are the same.
    """
    total = torch.zeros(rows.width, dtype=torch.float64)
    squares = 0.0
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        check_rows(part, "the embeddings", first=start)
        total += part.double().sum(0)
        squares += float(part.double().square().sum())
    mean_square = squares / len(rows)
    variance = mean_square - float((total / len(rows)).square().sum())
    if variance <= 1e-9 * mean_square:
        raise InputError("All embeddings are the same, so there is nothing to tell apart; pass different rows.")
    return math.sqrt(mean_square), variance
