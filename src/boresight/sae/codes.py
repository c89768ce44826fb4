"""Sparse codes: what a sparse autoencoder says of each image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SparseCodes:
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
        return SparseCodes(self.indices.to(device), self.values.to(device), self.n_latents)

    def dense(self) -> Tensor:
        """(N, n_latents) float32. For tests and small inspections: memory grows with N x n_latents."""
        out = torch.zeros(len(self), self.n_latents, dtype=self.values.dtype, device=self.values.device)
        return out.scatter_add_(1, self.indices, self.values)

    def csr(self) -> Tensor:
        """(N, n_latents) sparse CSR matrix without the padded slots, column indices sorted in each row."""
        active = self.values > 0
        order = torch.where(active, self.indices, self.n_latents).argsort(dim=1)
        keep = active.gather(1, order)
        crow = torch.zeros(len(self) + 1, dtype=torch.int64, device=self.values.device)
        crow[1:] = keep.sum(1).cumsum(0)
        return torch.sparse_csr_tensor(
            crow,
            self.indices.gather(1, order)[keep],
            self.values.gather(1, order)[keep],
            size=(len(self), self.n_latents),
            check_invariants=False,
        )
