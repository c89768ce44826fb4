"""What the tests of attribution share: methods, encoders and inputs, a closed form, and what must stay as it was."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import naive_peers as naive
from boresight.attribution.methods.attention import AttentionRollout, Chefer, LeGrad
from boresight.attribution.methods.gradients import GradCam, GradientXInput, IntegratedGradients
from boresight.attribution.methods.perturbation import KernelShap, Occlusion, Rise
from boresight.encoders import load_encoder
from boresight.encoders.towers.hf import hf_towers
from boresight.encoders.towers.layers import Attention, Block, Linear
from boresight.encoders.towers.tower import Hidden, Tower, Towers
from boresight.seeds import generator
from tiny_encoders import FAMILIES, pictures, save_tiny

CAPTIONS = ("a", "hello there", "it is!")
METHODS = {
    "gradient": (GradientXInput, {}),
    "integrated": (IntegratedGradients, {"steps": 8, "rows_at_once": 10}),
    "gradcam": (GradCam, {}),
    "chefer": (Chefer, {"layer": 0}),
    "legrad": (LeGrad, {}),
    "rollout": (AttentionRollout, {}),
    "occlusion": (Occlusion, {"rows_at_once": 7}),
    "rise": (Rise, {"n_masks": 20, "grid": 3}),
    "kernelshap": (KernelShap, {"n_samples": 40}),
}
SCORES_ONLY = ("occlusion", "rise", "kernelshap")
SIDES = ("image", "text")


@pytest.fixture(scope="module", name="encoders")
def encoders_fixture(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """For a test file to import; its tests ask for `encoders`."""
    folder = tmp_path_factory.mktemp("encoders")
    return {name: load_encoder(save_tiny(name, folder / name), dtype="float32") for name in FAMILIES}


def make(name: str, model, **options):
    kind, small = METHODS[name]
    return kind(model, **{**small, **options})


def inputs_of(encoder, captions: Sequence[str] = CAPTIONS) -> tuple[dict, dict]:
    texts = encoder.tokenize(captions)
    if encoder.family.startswith("siglip"):  # trained on padding that it attends to
        texts.pop("attention_mask")
    return encoder.collate(pictures(len(captions))), texts


def one(inputs: dict, row: int) -> dict:
    return {name: value[row : row + 1] for name, value in inputs.items()}


def alone(encoder, side: str, inputs: dict, row: int) -> dict:
    """One input without its padding, where the model was not trained on it."""
    inputs = one(inputs, row)
    if "attention_mask" in inputs:
        length = int(inputs["attention_mask"].sum())
        return {name: value[:, :length] for name, value in inputs.items()}
    if "spatial_shapes" in inputs:
        count = int(inputs["pixel_attention_mask"].sum())
        cut = {name: inputs[name][:, :count] for name in ("pixel_values", "pixel_attention_mask")}
        return inputs | cut
    return inputs


def unit(encoder, side: str, inputs: dict) -> torch.Tensor:
    with torch.no_grad():
        return F.normalize(naive.features(encoder.model, side, inputs), dim=-1)


def numbers(values: torch.Tensor) -> torch.Tensor:
    return values.flatten()[~values.flatten().isnan()]


def both_sides(encoder, method) -> list[tuple]:
    """(side, inputs of one pair, the other side's unit embedding, found scores of the real tokens) of three pairs."""
    images, texts = inputs_of(encoder)
    found = dict(zip(SIDES, method.attribute(**images, **texts), strict=True))
    rows = []
    for row in range(3):
        pair = {"image": alone(encoder, "image", images, row), "text": alone(encoder, "text", texts, row)}
        for side, against in (SIDES, SIDES[::-1]):
            rows.append((side, pair[side], unit(encoder, against, pair[against]), numbers(found[side][row])))
    return rows


def mean_towers(encoder) -> Towers:
    towers = hf_towers(encoder.model)
    return Towers(replace(towers.image, pooling="mean", probe=None), towers.text)


def planted(patches: int = 6, width: int = 8) -> tuple[Towers, dict, dict]:
    """Uniform attention, identity values, no MLP, a linear head: before it is normalised, u = b + W (c + mean x)."""
    source = generator(5)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=source)

    none, whole, still = Linear(torch.zeros(width, width)), Linear(torch.eye(width)), lambda x: torch.zeros_like(x)
    block = Block(lambda x: x, Attention(2, none, none, whole, whole), lambda x: x, still)
    first, embed, head, bias = draw(width), draw(width, 12), draw(5, width), draw(5)

    def start(inputs: dict) -> Hidden:
        pixels = inputs["pixel_values"]
        x = F.unfold(pixels, 2, stride=2).transpose(1, 2) @ embed.T
        x = torch.cat([first.expand(len(x), 1, -1), x], dim=1)
        row = torch.zeros(len(x), dtype=torch.int64)
        return Hidden(x, 0, None, row, inputs, ((2, patches // 2),) * len(x))

    def words(inputs: dict) -> Hidden:
        ids = inputs["input_ids"]
        table = torch.randn(10, width, generator=generator(6))
        return Hidden(table[ids], 0, None, torch.zeros(len(ids), dtype=torch.int64), inputs)

    image = Tower("image", start, (block,), None, "cls", lambda x: F.linear(x, head, bias), prefix=1)
    text = Tower("text", words, (block,), None, "cls", lambda x: F.linear(x, head, bias))
    return (
        Towers(image, text),
        {"pixel_values": draw(2, 3, 4, patches)},
        {"input_ids": torch.randint(10, (2, 4), generator=source)},
    )


def shapley(units: int, game) -> torch.Tensor:
    """Mean gain of each unit over all orders in which they may come."""
    values, orders = torch.zeros(units, dtype=torch.float64), list(itertools.permutations(range(units)))
    known = {subset: game(subset) for size in range(units + 1) for subset in itertools.combinations(range(units), size)}
    for order in orders:
        for place, one_unit in enumerate(order):
            before, after = tuple(sorted(order[:place])), tuple(sorted(order[: place + 1]))
            values[one_unit] += known[after] - known[before]
    return values / len(orders)


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
