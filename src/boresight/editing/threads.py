"""Many small tensor operations on all cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Share = TypeVar("Share")


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
