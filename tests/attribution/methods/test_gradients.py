"""Gradients and attention as attribution, against hooks on the model's own forward."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import naive_peers as naive
from attribution_world import both_sides, encoders_fixture, inputs_of, unit  # noqa: F401
from boresight.attribution.methods.attention import AttentionRollout, Chefer, LeGrad
from boresight.attribution.methods.gradients import GradCam, GradientXInput, IntegratedGradients
from boresight.encoders.towers.hf import hf_towers
from tiny_encoders import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", [0, 1])
def test_gradients_against_hooks(encoders: dict, family: str, layer: int) -> None:
    encoder = encoders[family]
    prefix = {"image": hf_towers(encoder.model).image.prefix, "text": 0}
    for side, inputs, other, found in both_sides(encoder, GradientXInput(encoder.model, layer=layer)):
        expected = naive.gradient_x_input(encoder.model, side, inputs, layer, other)[prefix[side] :]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    nodes, weights = np.polynomial.legendre.leggauss(6)
    nodes, weights = ((nodes + 1) / 2).tolist(), (weights / 2).tolist()
    method = IntegratedGradients(encoder.model, layer=layer, steps=6, rows_at_once=8)
    for side, inputs, other, found in both_sides(encoder, method):
        expected = naive.integrated_gradients(encoder.model, side, inputs, layer, other, nodes, weights)
        torch.testing.assert_close(found, expected[prefix[side] :], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_captums(encoders: dict, family: str) -> None:
    captum = pytest.importorskip("captum.attr")
    encoder = encoders[family]
    towers = hf_towers(encoder.model)
    for method, engine, options in (
        (GradientXInput(encoder.model, layer=1), captum.InputXGradient, {}),
        (IntegratedGradients(encoder.model, layer=1, steps=6), captum.IntegratedGradients, {"n_steps": 6}),
    ):
        for side, inputs, other, found in both_sides(encoder, method):
            tower = getattr(towers, side)
            hidden = tower.lower(inputs, 1)

            def fit(states, tower=tower, hidden=hidden, other=other):
                copies = hidden.select(torch.zeros(len(states), dtype=torch.int64))
                return F.cosine_similarity(tower.upper(copies.with_states(states)), other)

            states = hidden.states.detach().requires_grad_()
            expected = engine(fit).attribute(states, **options).detach().sum(-1)[0]
            torch.testing.assert_close(found, expected.float()[tower.prefix :], atol=1e-6, rtol=1e-5)


def test_integrated_gradients_add_up(encoders: dict) -> None:
    encoder = encoders["clip"]
    towers = hf_towers(encoder.model)
    images, texts = inputs_of(encoder)
    with torch.no_grad():
        hidden, other = towers.image.lower(images, 1), unit(encoder, "text", texts)
        found = IntegratedGradients(towers, layer=1, steps=400).scores(towers.image, hidden, other, 0).sum(1)
        full, empty = (
            F.cosine_similarity(towers.image.upper(hidden.with_states(share * hidden.states)), other)
            for share in (1.0, 0.0)
        )
    torch.testing.assert_close(found, full - empty, atol=2e-3, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradcam_against_hooks(encoders: dict, family: str) -> None:
    encoder = encoders[family]
    prefix = {"image": hf_towers(encoder.model).image.prefix, "text": 0}
    for side, inputs, other, found in both_sides(encoder, GradCam(encoder.model)):
        expected = naive.grad_cam(encoder.model, side, inputs, other, prefix[side])[prefix[side] :]
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def eager(encoder):
    model = copy.deepcopy(encoder.model)
    model.set_attn_implementation("eager")
    return model


@pytest.mark.parametrize("family", ["clip", "vision_text"])
@pytest.mark.parametrize("layer", [0, -2])
def test_chefer_and_rollout_against_hooks(encoders: dict, family: str, layer: int) -> None:
    encoder, model = encoders[family], eager(encoders[family])
    chefer, rollout = (
        both_sides(encoder, m) for m in (Chefer(encoder.model, layer=layer), AttentionRollout(encoder.model))
    )
    for (side, inputs, other, found), (*_, rolled) in zip(chefer, rollout, strict=True):
        maps, slopes = naive.attention_weights(model, side, inputs, other)
        relevance = product = torch.eye(maps[0].shape[-1])
        for weights, slope in list(zip(maps, slopes, strict=True))[layer if layer == 0 else layer + 1 :]:
            relevance = relevance + (weights * slope)[0].clamp(min=0).mean(0).detach() @ relevance
        for weights in maps:
            mixed = 0.5 * weights[0].detach().mean(0) + 0.5 * torch.eye(len(product))
            product = mixed / mixed.sum(-1, keepdim=True) @ product
        row = 0 if side == "image" or family == "vision_text" else len(relevance) - 1
        first = 1 if side == "image" else 0
        torch.testing.assert_close(found, relevance[row, first:], atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(rolled, product[row, first:], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("family", ["siglip", "siglip2_naflex"])
def test_attention_pooling_is_the_last_step(encoders: dict, family: str) -> None:
    encoder, model = encoders[family], eager(encoders[family])
    methods = [Chefer(encoder.model, layer=0), AttentionRollout(encoder.model), LeGrad(encoder.model, layers=1)]
    by_method = [both_sides(encoder, method)[::2] for method in methods]
    for (side, inputs, other, found), (*_, rolled), (*_, felt) in zip(*by_method, strict=True):
        kept, maps = [], []
        keep = model.vision_model.post_layernorm.register_forward_hook(
            lambda m, a, output, kept=kept: kept.append(output)
        )

        def remember(module, args, output, maps=maps):
            maps.append(output[1])

        hooks = [block.self_attn.register_forward_hook(remember) for block in naive.blocks_of(model, side)]
        with naive.hooked(keep, *hooks):
            naive.features(model, side, inputs)
        embedding, probes = naive.probe_weights(model.vision_model.head, kept[0])
        fit = torch.cosine_similarity(embedding, other).sum()
        slopes = torch.autograd.grad(fit, [*maps, *probes])
        relevance = rollout = torch.eye(maps[0].shape[-1])
        for weights, slope in zip(maps, slopes, strict=False):
            relevance = relevance + (weights * slope)[0].clamp(min=0).mean(0).detach() @ relevance
            rollout = (weights[0].mean(0).detach() + torch.eye(len(rollout))) / 2 @ rollout
        weights, slopes = torch.stack(probes).detach(), torch.stack(slopes[len(maps) :])
        torch.testing.assert_close(found, (weights * slopes).clamp(min=0).mean(0) @ relevance, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(rolled, weights.mean(0) @ rollout, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(felt, slopes.clamp(min=0).mean(0), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("layers", [None, 1])
def test_legrad_against_a_model_cut_short(encoders: dict, layers: int | None) -> None:
    encoder = encoders["clip"]
    for side, inputs, other, found in both_sides(encoder, LeGrad(encoder.model, layers=layers)):
        total = torch.zeros(())
        for depth in (1, 2) if layers is None else (2,):
            model = eager(encoder)
            tower = model.vision_model if side == "image" else model.text_model
            tower.encoder.layers = tower.encoder.layers[:depth]
            slope = naive.attention_weights(model, side, inputs, other)[1][-1][0]
            total = total + slope.clamp(min=0).mean((0, 1))
        torch.testing.assert_close(found, total[1:] if side == "image" else total, atol=1e-6, rtol=1e-4)
