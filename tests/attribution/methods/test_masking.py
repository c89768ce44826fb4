"""Inputs with patches or tokens hidden: what a perturbation hides, and how often it runs the model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attribution_world import SCORES_ONLY, encoders_fixture, inputs_of, make, one, unit  # noqa: F401
from boresight.attribution.methods.masking import Patches, Words, units_of
from boresight.encoders.towers.hf import hf_towers
from boresight.encoders.towers.tower import Hidden, Tower
from boresight.seeds import generator


def test_masked_inputs(encoders: dict) -> None:
    pixels = torch.rand(1, 3, 34, 33) + 1
    patches = Patches({"pixel_values": pixels}, (4, 4), torch.arange(16))
    keep = torch.ones(2, 16, dtype=torch.bool)
    keep[0, 1], keep[1, 15] = False, False
    first, last = patches.hide(keep)["pixel_values"]
    expected = pixels[0].clone()
    expected[:, :8, 8:16] = 0
    assert torch.equal(first, expected)
    expected = pixels[0].clone()
    expected[:, 24:, 24:] = 0  # with what the grid leaves over
    assert torch.equal(last, expected)
    images, _ = inputs_of(encoders["siglip2_naflex"])
    height, width = images["spatial_shapes"][1].tolist()
    patches = Patches(one(images, 1), (height, width), torch.arange(height * width))
    keep = torch.rand(3, height * width, generator=generator(0)) < 0.5
    hidden = patches.hide(keep)
    real = hidden["pixel_values"][:, : height * width]
    assert torch.equal(real, images["pixel_values"][1, : height * width] * keep[..., None])
    assert torch.equal(hidden["spatial_shapes"], images["spatial_shapes"][[1, 1, 1]])
    torch.testing.assert_close(patches.shares(torch.ones(2, height * 8, width * 8)), torch.ones(2, height * width))


def test_closed_up_captions() -> None:
    ids, keep = torch.tensor([[9, 5, 6, 7, 0, 0]]), torch.tensor([[False, True], [True, True]])
    masks = {"attention_mask": (ids > 0).long(), "token_type_ids": torch.arange(6)[None]}
    right = Words({"input_ids": ids, **masks}, torch.tensor([1, 3]), 0, False, True).hide(keep)
    assert right["input_ids"].tolist() == [[9, 6, 7, 0, 0, 0], [9, 5, 6, 7, 0, 0]]
    assert right["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]]
    assert right["token_type_ids"][0].tolist() == [0, 2, 3, 4, 5, 0]
    left = Words(
        {"input_ids": ids.flip(1), "attention_mask": masks["attention_mask"].flip(1)},
        torch.tensor([2, 4]),
        0,
        True,
        True,
    )
    assert left.hide(keep)["input_ids"].tolist() == [[0, 0, 0, 6, 5, 9], [0, 0, 7, 6, 5, 9]]
    assert left.hide(keep)["attention_mask"].tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]]
    unmasked = Words({"input_ids": ids}, torch.tensor([1, 3]), 4, False, False).hide(keep)
    assert unmasked["input_ids"].tolist() == [[9, 6, 7, 0, 0, 4], [9, 5, 6, 7, 0, 0]]
    assert "attention_mask" not in unmasked


@pytest.mark.parametrize(
    ("ids", "places"),
    [
        ([5, 6, 1, 0, 0], [0, 1, 2]),
        ([5, 6, 1, 1, 1], [0, 1]),  # padded with the end token
        ([5, 6, 7, 1, 0], [0, 1, 2, 3]),
        ([5, 6, 7, 8, 1], [0, 1, 2, 3]),  # no padding: the last position is read
    ],
)
def test_which_tokens_may_go_without_a_mask(encoders: dict, ids: list, places: list) -> None:
    tower = hf_towers(encoders["siglip"].model).text
    hidden = tower.lower({"input_ids": torch.tensor([ids])}, 0)
    assert units_of(tower, hidden, 0).columns.tolist() == places
    closed = replace(tower, blocks=(), pooling="cls")
    if len(set(ids[-2:])) == 1:  # a black box takes only repetition for padding
        assert units_of(closed, hidden, 0).columns.tolist() == [k for k in range(5) if ids[k] != ids[-1]]
    else:
        assert units_of(closed, hidden, 0).columns.tolist() == [0, 1, 2, 3, 4]


def test_a_caption_of_special_tokens_alone(encoders: dict) -> None:
    encoder = encoders["clip"]
    images, texts = inputs_of(encoder, ["", "ab"])
    for name in SCORES_ONLY:
        found = make(name, encoder.model).attribute(**images, **texts)[1]
        assert (found[0, :2] == 0).all()
        assert found[0, 2:].isnan().all()
        assert (found[1, 1:3] != 0).all()


@pytest.mark.parametrize("name", SCORES_ONLY)
def test_an_image_of_several_pairs_is_perturbed_once(
    encoders: dict, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoders["clip"]
    images, texts = inputs_of(encoder)
    towers = hf_towers(encoder.model)
    same = {"pixel_values": images["pixel_values"][[1, 1, 1]]}
    seen, lower = [], Tower.lower

    def counting(self: Tower, inputs: dict, layer: int) -> Hidden:
        seen.append(len(inputs["pixel_values"]))
        return lower(self, inputs, layer)

    hidden, other = towers.image.lower(same, 0), unit(encoder, "text", texts)
    monkeypatch.setattr(Tower, "lower", counting)
    with torch.no_grad():
        together = make(name, towers).scores(towers.image, hidden, other, 0)
        rows = sum(seen)
        for row in range(3):
            chosen = torch.tensor([row])
            single = make(name, towers).scores(towers.image, hidden.select(chosen), other[chosen], 0)
            torch.testing.assert_close(together[chosen], single, atol=1e-5, rtol=1e-4)
    assert sum(seen) == 4 * rows
    assert not torch.allclose(together[0], together[1])
