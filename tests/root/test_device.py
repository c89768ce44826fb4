"""Which type is computed in."""

from __future__ import annotations

import torch

from boresight.device import pick_dtype


def test_float32_unless_another_is_named():
    cpu = torch.device("cpu")
    assert pick_dtype("auto", cpu) == torch.float32
    assert pick_dtype("auto", torch.device("mps")) == torch.float32
    assert pick_dtype("bfloat16", cpu) == torch.bfloat16
    assert pick_dtype(torch.float16, cpu) == torch.float16


def test_the_best_type_of_a_card(monkeypatch):
    for has, best in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has: has)
        assert pick_dtype("auto", torch.device("cuda")) == best
