"""Interaction of patches with tokens against full Jacobians, and its sums."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from attribution_world import assert_same, encoders_fixture, inputs_of, mean_towers, one, snapshot  # noqa: F401
from boresight.attribution.methods.interaction import contributions, interaction
from boresight.encoders.towers.hf import hf_towers
from boresight.encoders.towers.tower import Hidden, Tower
from tiny_encoders import FAMILIES


@pytest.mark.parametrize("family", [*FAMILIES, "mean"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_interaction_against_full_jacobians(encoders: dict, family: str, layer: int) -> None:
    encoder = encoders["clip" if family == "mean" else family]
    images, texts = inputs_of(encoder)
    towers = mean_towers(encoder) if family == "mean" else hf_towers(encoder.model)
    found = interaction(towers, images, texts, layer=layer, batch_size=2)
    assert found.shape[:2] == (3, texts["input_ids"].shape[1])
    for row in range(3):
        moved = []
        for tower, inputs in ((towers.image, one(images, row)), (towers.text, one(texts, row))):
            hidden = tower.lower(inputs, layer)

            def embed(states: torch.Tensor, tower: Tower = tower, hidden: Hidden = hidden) -> torch.Tensor:
                return F.normalize(tower.upper(hidden.with_states(states)), dim=-1)[0]

            jacobian = torch.autograd.functional.jacobian(embed, hidden.states)[:, 0]
            moved.append(torch.einsum("dnc,nc->nd", jacobian, hidden.states[0]))
        grid = images["spatial_shapes"][row].tolist() if "spatial_shapes" in images else [4, 4]
        expected = moved[1] @ moved[0][towers.image.prefix :][: grid[0] * grid[1]].T
        real = texts["attention_mask"][row].bool() if "attention_mask" in texts else torch.ones(len(expected)).bool()
        actual = found[row, :, : grid[0], : grid[1]].flatten(1)
        scale = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(actual[real] / scale, expected[real] / scale, atol=1e-5, rtol=0)
        assert actual[~real].isnan().all()
        assert int(found[row].isfinite().sum()) == int(real.sum()) * grid[0] * grid[1]


def test_interaction_sums(encoders: dict) -> None:
    """Together the tokens move the embedding as finite differences at the input do."""
    encoder = encoders["siglip"]
    images, texts = inputs_of(encoder)
    towers = hf_towers(encoder.model)
    with torch.no_grad():
        for tower, inputs in ((towers.image, images), (towers.text, texts)):
            hidden = tower.lower(inputs, 1)
            more, less = (
                F.normalize(tower.upper(hidden.with_states(share * hidden.states)), dim=-1) for share in (1.01, 0.99)
            )
            torch.testing.assert_close(contributions(tower, hidden).sum(0), (more - less) / 0.02, atol=1e-3, rtol=0)


def test_interaction_leaves_the_model_untouched(encoders: dict) -> None:
    encoder = encoders["clip"]
    images, texts = inputs_of(encoder)
    before = snapshot(encoder.model)
    interaction(hf_towers(encoder.model), images, texts)
    assert_same(before, snapshot(encoder.model))
