"""What the peers of M2IB share: finite maps, batches, padding, seeds, black boxes, and what they leave of the model."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

import naive_peers as naive
from attribution_world import (
    METHODS,
    SCORES_ONLY,
    assert_same,
    encoders_fixture,  # noqa: F401
    inputs_of,
    make,
    mean_towers,
    numbers,
    one,
    snapshot,
)
from boresight.attribution.methods.attention import Chefer, LeGrad
from boresight.attribution.methods.controls import UniformMap
from boresight.attribution.methods.gradients import GradientXInput, IntegratedGradients
from boresight.attribution.methods.interaction import interaction
from boresight.attribution.methods.perturbation import KernelShap, Occlusion, Rise
from boresight.encoders.towers.hf import hf_towers
from boresight.encoders.towers.tower import Hidden, Tower, Towers
from boresight.errors import InputError
from tiny_encoders import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", METHODS)
def test_maps_are_finite_and_do_not_depend_on_the_batch(encoders: dict, family: str, name: str) -> None:
    encoder = encoders[family]
    images, texts = inputs_of(encoder)
    whole = make(name, encoder.model).attribute(**images, **texts)
    grids = images["spatial_shapes"].tolist() if "spatial_shapes" in images else [[4, 4]] * 3
    assert whole[0].shape == (3, *(max(grid[axis] for grid in grids) for axis in (0, 1)))
    assert whole[1].shape == texts["input_ids"].shape
    for row, (height, width) in enumerate(grids):
        assert whole[0][row, :height, :width].isfinite().all()
        assert whole[0][row].isfinite().sum() == height * width
    if "attention_mask" in texts:
        assert torch.equal(whole[1].isfinite(), texts["attention_mask"].bool())
    else:
        assert whole[1].isfinite().all()
    for row in range(3):
        single = make(name, encoder.model, batch_size=1).attribute(**one(images, row), **one(texts, row))
        for batched, found in zip(whole, single, strict=True):
            torch.testing.assert_close(numbers(found[0]), numbers(batched[row]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_mean_pooling(encoders: dict, name: str) -> None:
    for family in ("clip", "siglip"):
        images, texts = inputs_of(encoders[family])
        towers = mean_towers(encoders[family])
        found = make(name, towers).attribute(**images, **texts, target="image")[0]
        assert found.isfinite().all()
        if name not in SCORES_ONLY:
            assert found.std() > 0


@pytest.mark.parametrize("name", METHODS)
def test_padding_changes_nothing(encoders: dict, name: str) -> None:
    encoder = encoders["clip"]
    images, texts = inputs_of(encoder)
    padded = {key: F.pad(value, (0, 2)) for key, value in texts.items()}
    method = make(name, encoder.model)
    short, long = (method.attribute(**images, **each, target="text")[1] for each in (texts, padded))
    unmasked = method.attribute(images["pixel_values"], padded["input_ids"], target="text")[1]
    assert long[:, -2:].isnan().all()
    torch.testing.assert_close(short, long[:, :-2], equal_nan=True, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(unmasked, long, equal_nan=True, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", METHODS)
def test_the_model_is_untouched(encoders: dict, family: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoders[family]
    images, texts = inputs_of(encoder)
    given = {key: value.clone() for key, value in (images | texts).items()}
    encoder.model.train()
    before = snapshot(encoder.model)
    in_training = make(name, encoder.model).attribute(**images, **texts)
    assert_same(before, snapshot(encoder.model))
    assert all(torch.equal(value, (images | texts)[key]) for key, value in given.items())

    calls, last = [], math.inf
    for kind in ("upper", "pool"):
        original = getattr(Tower, kind)

        def failing(self: Tower, *args: object, original=original) -> object:
            calls.append(self)
            if len(calls) > last:
                raise KeyboardInterrupt
            return original(self, *args)

        monkeypatch.setattr(Tower, kind, failing)
    UniformMap(encoder.model).attribute(**images, **texts)
    last = len(calls) + 1  # in the middle of the method, behind what the driver asks for
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        make(name, encoder.model).attribute(**images, **texts)
    monkeypatch.undo()
    assert_same(before, snapshot(encoder.model))
    encoder.model.eval()
    for trained, evaluated in zip(in_training, make(name, encoder.model).attribute(**images, **texts), strict=True):
        torch.testing.assert_close(trained, evaluated, equal_nan=True)


def black_box(encoder) -> Towers:
    """Towers without layers, whose hidden states are embeddings."""

    def tower(side: str) -> Tower:
        def start(inputs: dict) -> Hidden:
            states = naive.features(encoder.model, side, dict(inputs))[:, None]
            row = torch.zeros(len(states), dtype=torch.int64)
            return Hidden(states, 0, None, row, inputs, ((4, 4),) * len(states) if side == "image" else None)

        return Tower(side, start, (), None, "cls", lambda x: x)

    return Towers(tower("image"), tower("text"))


@pytest.mark.parametrize("name", METHODS)
def test_black_boxes(encoders: dict, name: str) -> None:
    encoder = encoders["clip"]
    images, texts = inputs_of(encoder)
    towers = black_box(encoder)
    if name not in SCORES_ONLY:
        with pytest.raises(InputError):
            make(name, towers).attribute(**images, **texts)
        return
    found, opened = (make(name, model).attribute(**images, **texts) for model in (towers, encoder.model))
    torch.testing.assert_close(found[0], opened[0], atol=1e-5, rtol=1e-3)
    assert found[1].shape == texts["input_ids"].shape
    assert torch.equal(found[1].isfinite(), texts["attention_mask"].bool())
    if name == "occlusion":  # of a black box the first and the last token may go, too
        inner = texts["attention_mask"].bool()
        inner[:, 0] = False
        inner[torch.arange(3), texts["attention_mask"].sum(1) - 1] = False
        torch.testing.assert_close(found[1][inner], opened[1][inner], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_seeds(encoders: dict, name: str) -> None:
    encoder = encoders["clip"]
    images, texts = inputs_of(encoder)
    method = make(name, encoder.model)
    first, again, other = (method.attribute(**images, **texts, seed=seed) for seed in (0, 0, 1))
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.nan_to_num(), b.nan_to_num())
    assert torch.equal(first[0], other[0]) == (name not in ("rise", "kernelshap"))


def test_bad_input(encoders: dict) -> None:
    encoder = encoders["clip"]
    images, texts = inputs_of(encoder)
    for kind, options, word in (
        (IntegratedGradients, {"steps": 0}, "0 steps"), (IntegratedGradients, {"rows_at_once": 0}, "0 rows"),
        (LeGrad, {"layers": 0}, "0 layers"), (Occlusion, {"rows_at_once": 0}, "0 rows"),
        (Rise, {"n_masks": 0}, "n_masks=0"),
        (Rise, {"probability": 1.0}, "probability=1.0"), (KernelShap, {"n_samples": 1}, "1 coalitions"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=word):
            kind(encoder.model, **options)
    with pytest.raises(InputError, match="No attention lies above"):
        Chefer(encoder.model, layer=-1).attribute(**images, **texts)
    with pytest.raises(InputError, match="no hidden states -6"):
        LeGrad(encoder.model, layers=5).attribute(**images, **texts)
    with pytest.raises(InputError, match=r"Gradient times input looks into .*'occlusion'"):
        GradientXInput(black_box(encoder)).attribute(**images, **texts)
    towers = hf_towers(encoder.model)
    with pytest.raises(InputError, match="Interaction looks into"):
        interaction(black_box(encoder), images, texts)
    with pytest.raises(InputError, match="0 pairs at once"):
        interaction(towers, images, texts, batch_size=0)
    with pytest.raises(InputError, match="3 images and 2 captions"):
        interaction(towers, images, {k: v[:2] for k, v in texts.items()})
    with pytest.raises(InputError, match="no hidden states 9"):
        interaction(towers, images, texts, layer=9)
