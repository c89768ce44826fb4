"""Sparse codes: what a sparse autoencoder says of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from boresight.brief import Brief


@dataclass(frozen=True, repr=False)
class SparseCodes(Brief):
    """The active latents of N embeddings.

    Attributes:
        indices: (N, k) int64, latents, each at most once a row.
        values: (N, k) float32, their activations, not negative. A row with fewer than k active latents is
            padded at its end with value 0; the index of a padded slot means nothing.
        n_latents: width of the dictionary.
    """

    indices: Tensor
    values: Tensor
    n_latents: int

    def __len__(self) -> int:
        return self.indices.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> SparseCodes:
        return SparseCodes(self.indices[rows], self.values[rows], self.n_latents)

    @property
    def k(self) -> int:
        """Slots a row."""
        return self.indices.shape[1]

    def to(self, device: str | torch.device) -> SparseCodes:
        """The same on another device."""
        return SparseCodes(self.indices.to(device), self.values.to(device), self.n_latents)

    def dense(self) -> Tensor:
        """(N, n_latents) float32. For tests and small inspections: memory grows with N x n_latents."""
        out = torch.zeros(len(self), self.n_latents, dtype=self.values.dtype, device=self.values.device)
        return out.scatter_add_(1, self.indices, self.values)


def pack(entries: Tensor, pre: Tensor, most: int) -> SparseCodes:
    """Codes of a block from its active entries, strongest first, of which at most `most` a row are kept.

    entries: (E,) int64 ascending, `row * n + latent`; pre: (B, n). As many slots as the fullest row needs.
    """
    rows, n = len(pre), pre.shape[1]
    owner = entries // n
    counts = torch.bincount(owner, minlength=rows)
    slots = int(counts.max()) if len(entries) else 0
    slot = torch.arange(len(entries), device=pre.device) - (counts.cumsum(0) - counts)[owner]
    indices = torch.zeros(rows, slots, dtype=torch.int64, device=pre.device)
    values = torch.zeros(rows, slots, dtype=pre.dtype, device=pre.device)
    indices[owner, slot] = entries % n
    values[owner, slot] = pre.reshape(-1)[entries]
    values, order = values.sort(dim=1, descending=True, stable=True)
    return SparseCodes(indices.gather(1, order)[:, :most], values[:, :most], n)


def concatenate(parts: Sequence[SparseCodes], n_latents: int, least: int = 1) -> SparseCodes:
    """The rows of all parts, with the slots of the widest, `least` at the least."""
    slots = max([least, *(part.k for part in parts)])
    if not parts:
        return SparseCodes(torch.zeros(0, slots, dtype=torch.int64), torch.zeros(0, slots), n_latents)
    return SparseCodes(
        torch.cat([pad(part.indices, (0, slots - part.k)) for part in parts]),
        torch.cat([pad(part.values, (0, slots - part.k)) for part in parts]),
        n_latents,
    )
