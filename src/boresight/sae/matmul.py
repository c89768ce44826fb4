"""The one dense product of a sparse autoencoder, with the fastest float32 kernel that keeps float32 accuracy."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch import Tensor


def pre_activations(centred: Tensor, weight: Tensor, bias: Tensor, out: Tensor | None = None) -> Tensor:
    """Centred @ weight.T + bias. centred: (B, d), weight: (n, d), bias: (n,) -> (B, n); no gradient.

    `out` (B, n) spares the allocation, which costs as much as a quarter of the product itself.
    """
    with torch.no_grad(), _fast_float32(centred.device):
        return torch.addmm(bias, centred, weight.T, out=out)


@contextlib.contextmanager
def _fast_float32(device: torch.device) -> Iterator[None]:
    """Within the block, float32 products of the CPU use precision "medium" if that loses nothing here.

    On CPUs with AVX-512 and no bfloat16 matrix unit "medium" only picks a faster kernel; elsewhere it rounds to
    bfloat16. The setting is global to the process, so it is put back at once.
    """
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # the precision was set through torch's newer interface, which does not mix with this one
        before = "unknown"
    if device.type != "cpu" or before != "highest" or not medium_is_exact():
        yield
        return
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@functools.cache
def medium_is_exact() -> bool:
    """Whether "medium" products of the CPU err at most four times as much as "highest" ones; measured once."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(256, 512, generator=generator)
    b = torch.randn(512, 256, generator=generator)
    exact = a.double() @ b.double()
    before = torch.get_float32_matmul_precision()
    errors = []
    try:
        for precision in ("highest", "medium"):
            torch.set_float32_matmul_precision(precision)
            errors.append(float((a @ b - exact).abs().max()))
    finally:
        torch.set_float32_matmul_precision(before)
    # float32 accumulation over 512 terms differs by kernel; bfloat16 rounding would be a hundred times worse.
    return errors[1] <= 4 * errors[0]
