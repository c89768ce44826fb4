"""The two linear maps of a sparse autoencoder at the active entries only, forward and backward.

A code of k of n latents makes n/k of the dense decoder, and all of the dense backward, wasted work: the gradient
of an inactive entry is zero. Both maps here take a `Pattern` of active entries and cost O(E d) beside the one
dense product that finds them. `plain_pre_activations_at` and `plain_decode_at` say the same in plain autograd,
holding (E, d); they serve devices without sparse products and stand beside the fast ones in the tests.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import embedding_bag

# Said once a process by the first sparse matrix; the layout's interface is what may change, not its numbers.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")


@dataclass(frozen=True)
class Pattern:
    """E active entries of a batch.

    Attributes:
        rows: (E,) int64 in [0, B), the embedding each entry belongs to.
        latents: (E,) int64 in [0, n).
        bags: (E,) int64 ascending in [0, n_bags), the output row each entry is summed into by the decoder. With
            one reconstruction a row it equals `rows`; nested and auxiliary reconstructions have bags of their own.
        n_bags, n_latents: sizes.
    """

    rows: Tensor
    latents: Tensor
    bags: Tensor
    n_bags: int
    n_latents: int

    @cached_property
    def offsets(self) -> Tensor:
        """(n_bags + 1,) int64: the entries of bag i are offsets[i]:offsets[i+1]."""
        return _offsets(self.bags, self.n_bags)

    @cached_property
    def _by_latent(self) -> tuple[Tensor, Tensor]:
        return self.latents.argsort(stable=True), _offsets(self.latents, self.n_latents)

    def latents_times(self, values: Tensor, columns: Tensor, right: Tensor) -> Tensor:
        """Sum over each latent's entries e of values[e] * right[columns[e]]: (E,), (E,), (R, d) -> (n_latents, d)."""
        order, offsets = self._by_latent
        return weighted_sums(columns[order], values[order], offsets, right)


def pre_activations_at(
    x: Tensor, weight: Tensor, weight_bias: Tensor, bias: Tensor, pattern: Pattern, pre: Tensor
) -> Tensor:
    """Pre-activations W_e (x - b) + b_e at the entries of `pattern`: (E,), with the gradient of the parameters.

    Args:
        x: (B, d), gets no gradient. weight: (n, d). weight_bias: (n,). bias: (d,).
        pre: (B, n), the same pre-activations computed densely; only the entries are read.
    """
    if x.device.type in ("cpu", "cuda"):
        return _PreActivationsAt.apply(x, weight, weight_bias, bias, pattern, pre)
    return plain_pre_activations_at(x, weight, weight_bias, bias, pattern)


def decode_at(values: Tensor, directions: Tensor, pattern: Pattern) -> Tensor:
    """Sum of values[e] * directions[latents[e]] over the entries of each bag: (E,), (n, d) -> (n_bags, d)."""
    if values.device.type in ("cpu", "cuda"):
        return _DecodeAt.apply(values, directions, pattern)
    return plain_decode_at(values, directions, pattern)


def plain_pre_activations_at(x: Tensor, weight: Tensor, weight_bias: Tensor, bias: Tensor, pattern: Pattern) -> Tensor:
    """`pre_activations_at` in plain autograd."""
    products = (x[pattern.rows] - bias) * weight[pattern.latents]
    return products.sum(1) + weight_bias[pattern.latents]


def plain_decode_at(values: Tensor, directions: Tensor, pattern: Pattern) -> Tensor:
    """`decode_at` in plain autograd."""
    out = directions.new_zeros(pattern.n_bags, directions.shape[1])
    return out.index_add(0, pattern.bags, values[:, None] * directions[pattern.latents])


class _PreActivationsAt(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, weight_bias: Tensor, bias: Tensor, pattern: Pattern, pre: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.pattern = pattern
        return pre[pattern.rows, pattern.latents]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        pattern: Pattern = ctx.pattern
        grad_weight_bias = grad.new_zeros(pattern.n_latents).index_add_(0, pattern.latents, grad)
        grad_weight = pattern.latents_times(grad, pattern.rows, x - bias)
        # The pre-bias enters every entry through -W_e b: summed over entries first, it is one small product.
        return None, grad_weight, grad_weight_bias, -(grad_weight_bias @ weight), None, None


class _DecodeAt(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, directions: Tensor, pattern: Pattern) -> Tensor:
        ctx.save_for_backward(values, directions)
        ctx.pattern = pattern
        return weighted_sums(pattern.latents, values, pattern.offsets, directions)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, directions = ctx.saved_tensors
        pattern: Pattern = ctx.pattern
        grad = grad.contiguous()
        size = (pattern.n_bags, pattern.n_latents)
        zeros = torch.sparse_csr_tensor(
            pattern.offsets, pattern.latents, torch.zeros_like(values), size=size, check_invariants=False
        )
        grad_values = torch.sparse.sampled_addmm(zeros, grad, directions.T, beta=0.0).values()
        return grad_values, pattern.latents_times(values, pattern.bags, grad), None


def weighted_sums(rows: Tensor, values: Tensor, offsets: Tensor, matrix: Tensor) -> Tensor:
    """Sums of values[e] * matrix[rows[e]] over the entries e of each bag offsets[i]:offsets[i+1].

    (E,), (E,), (R + 1,), (n, d) -> (R, d); an empty bag gives zeros. Differentiable in values.
    """
    return embedding_bag(rows, matrix, offsets, mode="sum", per_sample_weights=values, include_last_offset=True)


def _offsets(owners: Tensor, size: int) -> Tensor:
    offsets = torch.zeros(size + 1, dtype=torch.int64, device=owners.device)
    offsets[1:] = torch.bincount(owners, minlength=size).cumsum(0)
    return offsets
