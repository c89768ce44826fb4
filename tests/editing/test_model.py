"""The fast path against the algebra written down for one pair, and what the facade adds to neither."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from boresight.editing.config import EditorConfig
from boresight.editing.memory import Memory
from boresight.editing.model import EditModel, reference_edit
from editing_world import WIDTH, world_sae

torch.set_num_threads(1)


def random_model(seed: int, **config) -> EditModel:
    """A model with random weights everywhere, a memory included: nothing at its starting value."""
    draw = torch.Generator().manual_seed(seed)
    model = EditModel(world_sae(seed % 5, bias=0.1), EditorConfig(**config))
    if model.memory is not None:
        model.memory = Memory(*(F.normalize(torch.randn(30, WIDTH, generator=draw), dim=1) for _ in range(2)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith(("sae.", "memory.log_sharpness")):
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=draw))
        model.usual.copy_(torch.rand(model.usual.shape, generator=draw))
    return model


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    form=st.sampled_from(["gated", "residual", "reconstruct", "raw", "plain"]),
    mask=st.sampled_from(["bilinear", "mlp", "ones"]),
    exponent=st.sampled_from([0.0, 0.5, 1.0]),
    memory=st.sampled_from(["none", "text", "both"]),
    teacher=st.sampled_from(["presence", "contrast"]),
)
def test_edits_and_scores_are_those_of_the_algebra(seed, form, mask, exponent, memory, teacher):
    if form == "reconstruct":
        teacher = "contrast"
    model = random_model(seed, form=form, mask=mask, length_exponent=exponent, memory=memory, teacher=teacher)
    draw = torch.Generator().manual_seed(seed)
    images, texts = 2 * torch.randn(3, WIDTH, generator=draw), torch.randn(4, WIDTH, generator=draw)
    scores = model.score(images, texts)
    for i, x in enumerate(images):
        edited = model.edit(x.expand(4, -1), texts)
        for j, t in enumerate(texts):
            expected, score = reference_edit(model, x, t)
            torch.testing.assert_close(edited[j], expected, atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(scores[i, j], score, atol=2e-5, rtol=1e-4)
