"""Which floating-point type an encoder computes in."""

from __future__ import annotations

import time
from functools import cache

import torch

from boresight.errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NARROWEST = 256  # hidden size below which products are too short to gain anything, or to be timed
WORTH_IT = 1.3  # how many times faster bfloat16 must multiply before its rounding is accepted on a CPU


def pick_dtype(dtype: str | torch.dtype, device: torch.device, hidden: int) -> torch.dtype:
    """The type named by `dtype`, or for 'auto' the best one on `device`.

    On cuda 'auto' is bfloat16 where the card has it and float16 elsewhere. On a CPU it is bfloat16 only where a
    small measurement at the model's hidden size finds it at least 1.3 times as fast as float32; everywhere else,
    and for towers narrower than 256, it is float32. Raises InputError for an unknown name.
    """
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    if dtype == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        if device.type == "cpu":
            hopeful = hidden >= NARROWEST and bfloat16_speedup(NARROWEST, tokens=16) > 0.5  # spares slow CPUs seconds
            faster = hopeful and bfloat16_speedup(hidden) >= WORTH_IT
            return torch.bfloat16 if faster else torch.float32
        return torch.float32
    if dtype not in DTYPES:
        raise InputError(f"dtype '{dtype}' is unknown; choose 'auto', {', '.join(map(repr, DTYPES))}.")
    return DTYPES[str(dtype)]


@cache
def bfloat16_speedup(hidden: int, tokens: int = 64, rounds: int = 8) -> float:
    """Time of a float32 (tokens, hidden) x (hidden, 4 hidden) product over that of bfloat16; measured once.

    On one thread, since threads that wait for each other on a busy machine would drown the difference. The best of
    some interleaved rounds; the first warms up, and a hopeless second one ends it.
    """
    best = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    pairs = {dtype: (torch.ones(tokens, hidden).to(dtype), torch.ones(hidden, 4 * hidden).to(dtype)) for dtype in best}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for done in range(rounds):
            for dtype, (left, right) in pairs.items():
                start = time.perf_counter()
                left @ right
                best[dtype] = min(best[dtype], time.perf_counter() - start)
            if done and best[torch.bfloat16] > 3 * best[torch.float32]:
                break
    finally:
        torch.set_num_threads(threads)
    return best[torch.float32] / best[torch.bfloat16]
