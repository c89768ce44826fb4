"""Which floating-point type an encoder computes in."""

from __future__ import annotations

import time
from functools import cache

import torch

from boresight.errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WORTH_IT = 1.3  # how many times faster bfloat16 must multiply before its rounding is accepted on a CPU


def pick_dtype(dtype: str | torch.dtype, device: torch.device, hidden: int) -> torch.dtype:
    """The type named by `dtype`, or for 'auto' the best one on `device`.

    On cuda 'auto' is bfloat16 where the card has it and float16 elsewhere. On a CPU it is bfloat16 only where a
    small measurement at the model's hidden size finds it at least 1.3 times as fast as float32; everywhere else
    it is float32. Raises InputError for an unknown name.
    """
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    if dtype == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        if device.type == "cpu":
            return torch.bfloat16 if bfloat16_speedup(hidden) >= WORTH_IT else torch.float32
        return torch.float32
    if dtype not in DTYPES:
        raise InputError(f"dtype '{dtype}' is unknown; choose 'auto', {', '.join(map(repr, DTYPES))}.")
    return DTYPES[str(dtype)]


@cache
def bfloat16_speedup(hidden: int, tokens: int = 256, repeats: int = 5) -> float:
    """Time of a float32 (tokens, hidden) x (hidden, 4 hidden) product over that of bfloat16; measured once."""

    def seconds(dtype: torch.dtype) -> float:
        left = torch.ones(tokens, hidden, dtype=dtype)
        right = torch.ones(hidden, 4 * hidden, dtype=dtype)
        best = float("inf")
        for _ in range(repeats + 1):  # the first run warms up and is beaten by a later one
            start = time.perf_counter()
            left @ right
            best = min(best, time.perf_counter() - start)
        return best

    with torch.inference_mode():
        return seconds(torch.float32) / seconds(torch.bfloat16)
