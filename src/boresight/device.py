"""Choice of device."""

from __future__ import annotations

import torch

from boresight.errors import InputError


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
        reason = str(error).splitlines()[0]
        raise InputError(f"Device '{device}' cannot be used here ({reason}); pass device='cpu' or another.") from error
    return chosen
