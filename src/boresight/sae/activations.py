"""Selection rules: which entries of a block of pre-activations are active.

Every rule maps pre-activations (B, n) to the flat indices of the active *entries*: (E,) int64, ascending, `row * n +
latent`.
An entry that is not positive is never active (the ReLU of every architecture). On the CPU the rules are numpy's,
whose quickselect takes half the time of `torch.topk`, a cache-sized piece at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

_TINY = np.finfo(np.float32).smallest_subnormal
_PIECE = 2**19


def top_of_rows(pre: Tensor, k: int) -> Tensor:
    """The k largest positive entries of each row (TopK: Gao et al. 2024, arXiv 2406.04093, section 2.3).

    pre: (B, n) float32. Of equal entries at the k-th value any may be taken, never more than k a row.
    """
    n = pre.shape[1]
    if pre.device.type != "cpu" or k >= n:
        return _sorted_top(pre, k)

    def search(rows: np.ndarray) -> np.ndarray:
        kth = np.partition(rows, n - k, axis=1)[:, n - k]
        return np.flatnonzero(rows >= np.maximum(kth, _TINY)[:, None])

    entries = _by_piece(search, pre)
    crowded = (torch.bincount(entries // n, minlength=len(pre)) > k).nonzero()[:, 0]
    if len(crowded):
        # Ties at the k-th value let in too many: these rows are searched again.
        again = _sorted_top(pre[crowded], k)
        rest = entries[~torch.isin(entries // n, crowded)]
        entries = torch.cat([rest, crowded[again // n] * n + again % n]).sort().values
    return entries


def _sorted_top(pre: Tensor, k: int) -> Tensor:
    values, latents = pre.topk(min(k, pre.shape[1]), dim=1)
    rows = torch.arange(len(pre), device=pre.device)[:, None]
    return (rows * pre.shape[1] + latents)[values > 0].sort().values


def top_of_batch(pre: Tensor, count: int, guess: float = 0.0) -> tuple[Tensor, float]:
    """The `count` largest positive entries of the whole block, and the smallest of them (0.0 if there is none).

    BatchTopK (Bussmann et al. 2024, arXiv 2412.06410) takes count = B k. pre: (B, n) float32. `guess` is a value
    believed to lie below the smallest; a good one spares most of the search, a wrong one costs only time.
    """
    flat = pre.reshape(-1)
    entries = above(pre, max(guess, 0.0))
    if len(entries) < count and guess > 0:
        entries = above(pre, 0.0)
    values = flat[entries]
    if len(entries) > count:
        kth = _kth_largest(values, count)
        larger = values > kth
        ties = (values == kth).nonzero()[: count - int(larger.sum()), 0]
        keep = larger.index_fill(0, ties, True)
        entries, values = entries[keep], values[keep]
    return entries, float(values.min()) if len(values) else 0.0


def above(pre: Tensor, threshold: Tensor | float) -> Tensor:
    """Entries above a threshold: one for all, or (n,), one per latent. pre: (B, n)."""
    if pre.device.type != "cpu":
        return (pre > threshold).reshape(-1).nonzero()[:, 0]
    limit = threshold.numpy() if isinstance(threshold, Tensor) else threshold
    return _by_piece(lambda rows: np.flatnonzero(rows > limit), pre)


def _kth_largest(values: Tensor, k: int) -> Tensor:
    if values.device.type == "cpu":
        return torch.from_numpy(np.partition(values.numpy(), len(values) - k)[len(values) - k : len(values) - k + 1])
    return values.topk(k).values[-1:]


def _by_piece(search: Callable[[np.ndarray], np.ndarray], pre: Tensor) -> Tensor:
    """Entries that `search` gives in pieces of rows, in as many threads as torch uses."""
    block, n = pre.numpy(), pre.shape[1]
    starts = range(0, len(block), max(1, _PIECE // n))

    def one(start: int) -> np.ndarray:
        return search(block[start : start + starts.step]) + start * n

    if torch.get_num_threads() > 1 and len(starts) > 1:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            parts = list(pool.map(one, starts))
    else:
        parts = [one(start) for start in starts]
    return torch.from_numpy(np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64))
