"""Exact scores of every image against every caption, without an edited embedding for each pair.

Shape suffixes: N images, T captions, D width of the shared space, L latents, K slots of a code. Every form of the edit
(`boresight.editing.model`) is, with latent weights w (m - 1, or m where the base is the pre-bias) and a gate r,

    x~(i, t) = r_t * (base_i + sum_l w_tl z_il d_l)

so that with the unit caption vector u and the relative length l(i, t) = |x~(i, t)| / |x_i| the score is

    s(i, t) = <x~(i, t), u_t> / (|x_i| l(i, t)^p)

p = 1 is the cosine and p = 0 is undivided. `gated` takes l before latents are dropped, |r_t * x_i| / |x_i|: a gate
changes every entry of an image's Gram matrix, which would then be one for each pair. Nothing of size N x T x L or
N x T x D is ever held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from boresight.brief import Brief

MIN_LENGTH = 1e-3
"""Relative lengths are clamped here: of an edit shorter than this, rounding decides the direction."""
_JITTER = 1e-12
_BLOCK_IMAGES = 128
_BLOCK_TEXTS = 64
_GRADIENT_FLOATS = 2**24
Share = TypeVar("Share")


@dataclass(frozen=True, repr=False)
class LengthTerms(Brief):
    """What the length of an image's edit needs, apart from the caption.

    With V_i (k, d) the scaled atoms z_il d_l / |x_i| and C_i the upper Cholesky factor of V_i V_i' (k, k), which no
    caption enters, l(i, t)^2 = |C_i w + shift_i|^2 + rest_i where w are the caption's weights of the k latents.
    A sum of squares: unlike the expanded quadratic form it keeps its precision when the edit removes nearly all.

    Attributes:
        factor: (N, k, k) float32, C_i.
        shift: (N, k) float32, where the atoms see base_i.
        rest: (N,) float32, squared length of the part of base_i that no atom reaches.
    """

    factor: Tensor
    shift: Tensor
    rest: Tensor

    def __len__(self) -> int:
        return self.factor.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> LengthTerms:
        return LengthTerms(self.factor[rows], self.shift[rows], self.rest[rows])


def length_terms(base_ND: Tensor, indices_NK: Tensor, values_NK: Tensor, directions_LD: Tensor) -> LengthTerms:
    """Length terms of N images; float64 inside, in blocks of bounded memory.

    Base and values are over the image's length |x_i|; padded slots have value 0.
    """
    n_images, k = indices_NK.shape
    block = max(1, 2**22 // max(1, (k + 1) * base_ND.shape[1]))
    parts = []
    for start in range(0, n_images, block):
        rows = slice(start, start + block)
        atoms_BKD = directions_LD[indices_NK[rows]].double() * values_NK[rows].double().unsqueeze(2)
        stack = torch.cat([atoms_BKD, base_ND[rows].double().unsqueeze(1)], dim=1)
        gram = stack @ stack.transpose(1, 2)
        # Padded slots and repeated directions make the Gram singular; the jitter is far below float32.
        scale = gram.detach().diagonal(dim1=1, dim2=2).amax(1).clamp_min(1e-30)
        gram.diagonal(dim1=1, dim2=2).add_(_JITTER * scale.unsqueeze(1))
        lower = torch.linalg.cholesky(gram)
        parts.append(
            (lower[:, :k, :k].transpose(1, 2).float(), lower[:, k, :k].float(), lower[:, k, k].square().float())
        )
    if not parts:
        return LengthTerms(base_ND.new_zeros(0, k, k), base_ND.new_zeros(0, k), base_ND.new_zeros(0))
    factor, shift, rest = (torch.cat(column) for column in zip(*parts, strict=True))
    return LengthTerms(factor.contiguous(), shift, rest)


def numerators(
    base_ND: Tensor, indices_NK: Tensor, values_NK: Tensor, query_TD: Tensor, latent_query_LT: Tensor
) -> Tensor:
    """(N, T) inner products [base ; z] . [query ; latent_query]: the undivided score.

    The query is the caption's vector r * u, the latent query w_tl <d_l, r_t * u_t>.
    """
    dense_NT = base_ND @ query_TD.t()
    if indices_NK.numel() == 0 or dense_NT.numel() == 0:
        return dense_NT
    sparse_NT = F.embedding_bag(indices_NK, latent_query_LT, per_sample_weights=values_NK, mode="sum")
    return sparse_NT.add_(dense_NT) if not sparse_NT.requires_grad else sparse_NT + dense_NT


def relative_lengths(terms: LengthTerms, indices_NK: Tensor, weights_LT: Tensor) -> Tensor:
    """(N, T) relative lengths of every edit without a gate, at least MIN_LENGTH, in blocks."""
    n_images, k = indices_NK.shape
    if weights_LT.requires_grad or terms.shift.requires_grad:
        columns = max(1, _GRADIENT_FLOATS // max(1, n_images * k))
        if columns >= weights_LT.shape[1]:
            return _lengths_plain(terms, indices_NK, weights_LT)
        # What each block of captions holds for its gradient is dropped, and computed again in the backward pass.
        blocks = weights_LT.split(columns, dim=1)
        parts = [checkpoint(_lengths_plain, terms, indices_NK, block, use_reentrant=False) for block in blocks]
        return torch.cat(parts, dim=1)
    out = weights_LT.new_empty(n_images, weights_LT.shape[1])

    def fill(mine: Sequence[int]) -> None:
        # Written into buffers that stay in the cache: the same arithmetic as _lengths_plain, in a third less time.
        gathered = weights_LT.new_empty(_BLOCK_IMAGES * k * _BLOCK_TEXTS)
        reach = torch.empty_like(gathered)
        for left in mine:
            block = weights_LT[:, left : left + _BLOCK_TEXTS].contiguous()
            width = block.shape[1]
            for top in range(0, n_images, _BLOCK_IMAGES):
                part = terms[top : top + _BLOCK_IMAGES]
                slots = indices_NK[top : top + _BLOCK_IMAGES].reshape(-1)
                size = len(slots) * width
                active = torch.index_select(block, 0, slots, out=gathered[:size].view(len(slots), width))
                seen = reach[:size].view(len(part), k, width)
                torch.baddbmm(part.shift.unsqueeze(2), part.factor, active.view_as(seen), out=seen)
                torch.sum(seen.square_(), 1, out=out[top : top + len(part), left : left + width])

    lefts = range(0, weights_LT.shape[1], _BLOCK_TEXTS)
    threads = max(1, min(torch.get_num_threads(), len(lefts))) if weights_LT.device.type == "cpu" else 1
    in_threads(fill, [lefts[first::threads] for first in range(threads)])
    return out.add_(terms.rest.unsqueeze(1)).clamp_min_(MIN_LENGTH**2).sqrt_()


def _lengths_plain(terms: LengthTerms, indices_NK: Tensor, weights_LT: Tensor) -> Tensor:
    """`relative_lengths` in one piece of (N, k, T), differentiable in the weights."""
    active = weights_LT.index_select(0, indices_NK.reshape(-1)).view(*indices_NK.shape, weights_LT.shape[1])
    reach = torch.baddbmm(terms.shift.unsqueeze(2), terms.factor, active)
    return (reach.square().sum(1) + terms.rest.unsqueeze(1)).clamp_min(MIN_LENGTH**2).sqrt()


def gated_lengths(base_ND: Tensor, gate_TD: Tensor) -> Tensor:
    """(N, T) relative lengths |r_t * base_i| of images behind a gate, the base over |x_i|."""
    return (base_ND.square() @ gate_TD.square().t()).clamp_min(MIN_LENGTH**2).sqrt()


def in_threads(work: Callable[[Share], None], shares: Sequence[Share]) -> None:
    """work(share) for each share, each in a thread of its own whose tensor operations stay on one core.

    Split over the cores, every operation ends at a barrier where all wait for the slowest core. A long row of small
    operations then crawls as soon as anything else runs on the machine; threads that never meet do not.
    No gradients flow. Raises what `work` raises.
    """
    if len(shares) == 1:
        with torch.no_grad():
            return work(shares[0])
    cores, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()

    def run(share: Share) -> None:
        torch.set_num_threads(1)  # holds for the calling thread, and is the default of threads yet to start
        try:
            with torch.inference_mode(inference), torch.no_grad():
                work(share)
        finally:
            torch.set_num_threads(cores)

    with ThreadPoolExecutor(len(shares)) as pool:
        for future in [pool.submit(run, share) for share in shares]:
            future.result()
