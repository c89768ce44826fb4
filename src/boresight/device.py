"""Where, and in which floating-point type, to compute."""

from __future__ import annotations

import torch

from boresight.errors import InputError, first_line

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """`device`, or cuda where there is one, else cpu.

    Apple's 'mps' must be asked for: it has no float64, which exact scores need.

    Raises InputError when a device is asked for that this machine lacks.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"Device '{device}' cannot be used here ({first_line(error)}); pass device='cpu' or another."
        ) from error
    return chosen


def pick_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The type named by `dtype`; for 'auto' bfloat16 on cuda, or float16 on a card without it, and float32 elsewhere.

    Raises InputError for an unknown name.
    """
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    if dtype == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        return torch.float32
    if dtype not in DTYPES:
        raise InputError(f"dtype '{dtype}' is unknown; choose 'auto', {', '.join(map(repr, DTYPES))}.")
    return DTYPES[str(dtype)]
