"""Selection rules: which entries of a block of pre-activations are active.

Every rule maps pre-activations (B, n) to *places*: (E,) int64, ascending, `row * n + latent` of each active entry.
An entry that is not positive is never active (the ReLU of every architecture).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

_TINY = np.float32(np.finfo(np.float32).smallest_subnormal)


def top_of_rows(pre: Tensor, k: int) -> Tensor:
    """The k largest positive entries of each row (TopK: Gao et al. 2024, arXiv 2406.04093, section 2.3).

    pre: (B, n) float32. Of equal entries at the k-th value any may be taken, never more than k a row.
    """
    n = pre.shape[1]
    if pre.device.type == "cpu" and k < n:
        block = pre.numpy()
        # Quickselect finds the k-th value in half the time of torch.topk, which also moves indices around.
        kth = np.concatenate(_in_threads(lambda rows: np.partition(rows, n - k, axis=1)[:, n - k], block))
        places = np.flatnonzero(block >= np.maximum(kth, _TINY)[:, None])
        if len(places) <= len(block) * k and np.bincount(places // n, minlength=1).max() <= k:
            return torch.from_numpy(places)
    values, latents = pre.topk(k, dim=1)
    rows = torch.arange(len(pre), device=pre.device)[:, None]
    return (rows * n + latents)[values > 0].sort().values


def top_of_batch(pre: Tensor, count: int, guess: float = 0.0) -> tuple[Tensor, float]:
    """The `count` largest positive entries of the whole block, and the smallest of them (0.0 if there is none).

    BatchTopK (Bussmann et al. 2024, arXiv 2412.06410) takes count = B k. pre: (B, n) float32. `guess` is a value
    believed to lie below the smallest; a good one spares most of the search, a wrong one costs only time.
    """
    flat = pre.reshape(-1)
    places = above(pre, max(guess, 0.0))
    if len(places) < count and guess > 0:
        places = above(pre, 0.0)
    values = flat[places]
    if len(places) > count:
        kth = _kth_largest(values, count)
        larger = values > kth
        ties = (values == kth).nonzero()[: count - int(larger.sum()), 0]
        keep = larger.index_fill(0, ties, True)
        places, values = places[keep], values[keep]
    return places, float(values.min()) if len(values) else 0.0


def above(pre: Tensor, threshold: Tensor | float) -> Tensor:
    """Entries above a threshold: one for all, or (n,), one per latent. pre: (B, n)."""
    if pre.device.type == "cpu":
        limit = threshold.numpy() if isinstance(threshold, Tensor) else threshold
        return torch.from_numpy(np.flatnonzero(pre.numpy() > limit))
    return (pre > threshold).reshape(-1).nonzero()[:, 0]


def _kth_largest(values: Tensor, k: int) -> Tensor:
    if values.device.type == "cpu":
        return torch.from_numpy(np.partition(values.numpy(), len(values) - k)[len(values) - k : len(values) - k + 1])
    return values.topk(k).values[-1:]


def _in_threads(function: Callable[[np.ndarray], np.ndarray], block: np.ndarray) -> list[np.ndarray]:
    threads = min(torch.get_num_threads(), len(block))
    if threads <= 1 or block.size < 1 << 20:
        return [function(block)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, np.array_split(block, threads)))
