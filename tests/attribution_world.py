"""What the tests of attribution share: pairs as a tiny encoder's model takes them, and what must stay as it was."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tiny_encoders import pictures

CAPTIONS = ("a", "hello there", "it is!")


def inputs_of(encoder, captions: Sequence[str] = CAPTIONS) -> tuple[dict, dict]:
    texts = encoder.tokenize(captions)
    if encoder.family.startswith("siglip"):  # trained on padding that it attends to
        texts.pop("attention_mask")
    return encoder.collate(pictures(len(captions))), texts


def one(inputs: dict, row: int) -> dict:
    return {name: value[row : row + 1] for name, value in inputs.items()}


def snapshot(model) -> dict:
    return {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "gradients": [parameter.grad for parameter in model.parameters()],
        "learns": [parameter.requires_grad for parameter in model.parameters()],
        "training": [module.training for module in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()],
        "random": torch.get_rng_state(),
        "grad": torch.is_grad_enabled(),
    }


def assert_same(before: dict, after: dict) -> None:
    for name in ("gradients", "learns", "training", "hooks", "grad"):
        assert before[name] == after[name]
    assert torch.equal(before["random"], after["random"])
    assert all(torch.equal(value, after["weights"][name]) for name, value in before["weights"].items())
