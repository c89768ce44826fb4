"""Codes and reconstructions against the algebra written down."""

from __future__ import annotations

import pytest
import torch

from boresight.sae.config import SaeConfig
from boresight.sae.model import SaeModel, reference_code

RULES = {
    "topk": {"architecture": "topk"},
    "batchtopk": {"architecture": "batchtopk"},
    "jumprelu": {"architecture": "jumprelu"},
    "matryoshka": {"architecture": "matryoshka"},
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(3))
def test_codes_are_those_of_the_algebra(rule, seed):
    draw = torch.Generator().manual_seed(seed)
    model = SaeModel(SaeConfig(width=6, n_latents=24, k=5, **RULES[rule]))
    with torch.no_grad():
        for tensor in (*model.parameters(), model.threshold):
            tensor.copy_(torch.randn(tensor.shape, generator=draw))
        model.threshold.mul_(0.3)
    x = torch.randn(17, 6, generator=draw)
    codes = model.encode(x, block=4)
    torch.testing.assert_close(codes.dense(), reference_code(model, x), atol=1e-5, rtol=1e-5)
    expected = reference_code(model, x) @ model.directions + model.bias
    torch.testing.assert_close(model.decode(codes), expected, atol=1e-5, rtol=1e-5)
