"""M2IB: the fast engine against the plain one, its options, and what it leaves of the user's model."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from attribution_world import assert_same, inputs_of, one, snapshot
from boresight.attribution import M2IB, BottleneckPath, RandomMap, UniformMap
from boresight.attribution.methods.bottleneck import divergence, draw_noise, moments
from boresight.encoders import load_encoder
from boresight.encoders.towers.hf import hf_towers
from boresight.encoders.towers.tower import Tower
from boresight.errors import InputError
from naive_m2ib import naive_m2ib
from tiny_encoders import FAMILIES, save_tiny


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("encoders")
    return {name: load_encoder(save_tiny(name, folder / name), dtype="float32") for name in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_towers_give_the_models_embeddings_from_every_layer(encoders: dict, family: str) -> None:
    encoder = encoders[family]
    images, texts = inputs_of(encoder)
    towers = hf_towers(encoder.model)
    with torch.no_grad():
        seen = encoder.model.get_image_features(**images).pooler_output
        told = encoder.model.get_text_features(**texts).pooler_output
        for layer in range(3):
            for tower, inputs, expected in ((towers.image, images, seen), (towers.text, texts, told)):
                hidden = tower.lower(inputs, layer)
                torch.testing.assert_close(tower.upper(hidden), expected, atol=1e-5, rtol=1e-5)
                samples = hidden.with_states(hidden.states.expand(2, 1, *hidden.states.shape))
                torch.testing.assert_close(tower.upper(samples)[1, 0], expected, atol=1e-5, rtol=1e-5)
                torch.testing.assert_close(
                    tower.pool(tower.climb(hidden, 2)), expected, atol=1e-5, rtol=1e-5
                )  # the last block in full, and not one row of it


@pytest.mark.parametrize("vision", [hf.CLIPVisionConfig, hf.SiglipVisionConfig, hf.ViTConfig])
@pytest.mark.parametrize("text", [hf.RobertaConfig, hf.XLMRobertaConfig, hf.CLIPTextConfig])
def test_towers_of_mixed_dual_encoders(vision: type, text: type) -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = hf.VisionTextDualEncoderConfig.from_vision_text_configs(
        vision(**shape, patch_size=8, image_size=32),
        text(**shape, vocab_size=50, max_position_embeddings=20, bos_token_id=0, eos_token_id=2, pad_token_id=1),
        projection_dim=24,
    )
    model = hf.VisionTextDualEncoderModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ids = torch.tensor([[0, 7, 9, 30, 2, 1, 1], [0, 12, 2, 1, 1, 1, 1]])
    images, texts = {"pixel_values": torch.randn(2, 3, 32, 32)}, {"input_ids": ids, "attention_mask": (ids != 1).long()}
    towers = hf_towers(model)
    with torch.no_grad():
        seen, told = model.get_image_features(**images).pooler_output, model.get_text_features(**texts).pooler_output
        for layer in range(3):
            torch.testing.assert_close(
                towers.image.upper(towers.image.lower(images, layer)), seen, atol=1e-5, rtol=1e-5
            )
            torch.testing.assert_close(towers.text.upper(towers.text.lower(texts, layer)), told, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("noise", "layer"), [("iid", 0), ("antithetic", 1)])
def test_equal_to_the_naive_engine(encoders: dict, family: str, noise: str, layer: int) -> None:
    encoder = encoders[family]
    method = M2IB(encoder.model, layer=layer, noise=noise, n_samples=4, standardise=layer == 1)
    images, texts = inputs_of(encoder)
    found = dict(zip(("image", "text"), method.attribute(**images, **texts, seed=3), strict=True))
    towers, model = hf_towers(encoder.model), copy.deepcopy(encoder.model)
    for row in range(3):
        for side, tower in (("image", towers.image), ("text", towers.text)):
            image, text = one(images, row), one(texts, row)
            if "attention_mask" in text:
                length = int(text["attention_mask"].sum())
                text = {name: value[:, :length] for name, value in text.items()}
            if "spatial_shapes" in image:  # the naive engine takes the mean over all tokens, so none may be padding
                count = int(image["pixel_attention_mask"].sum())
                image["pixel_values"] = image["pixel_values"][:, :count]
                image["pixel_attention_mask"] = image["pixel_attention_mask"][:, :count]
            x = tower.lower(image if side == "image" else text, layer).states
            drawn = [draw_noise(tower, x, noise, 4, 3, step)[:, 0] for step in range(10)]
            expected = naive_m2ib(model, image, text, side, layer, drawn.__getitem__, standardise=layer == 1)
            actual = found[side][row].flatten()
            actual = actual[~actual.isnan()]
            expected = expected[tower.prefix :] if side == "image" else expected
            scale = max(1.0, float(expected.abs().max()))
            torch.testing.assert_close(actual / scale, expected / scale, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", [M2IB, BottleneckPath, RandomMap, UniformMap])
def test_a_pair_does_not_depend_on_its_batch(encoders: dict, family: str, kind: type) -> None:
    encoder = encoders[family]
    images, texts = inputs_of(encoder)
    whole = kind(encoder.model).attribute(**images, **texts)
    for row in range(3):
        alone = kind(encoder.model, batch_size=1).attribute(**one(images, row), **one(texts, row))
        for batched, single in zip(whole, alone, strict=True):
            expected, single = batched[row].flatten(), single[0].flatten()
            torch.testing.assert_close(single[~single.isnan()], expected[~expected.isnan()], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [M2IB, BottleneckPath])
def test_padding_changes_nothing(encoders: dict, kind: type) -> None:
    encoder = encoders["clip"]
    images, texts = inputs_of(encoder)
    padded = {name: F.pad(value, (0, 2)) for name, value in texts.items()}
    short, long = (kind(encoder.model).attribute(**images, **each)[1] for each in (texts, padded))
    unmasked = kind(encoder.model).attribute(images["pixel_values"], padded["input_ids"])[1]
    assert long.shape[1] == short.shape[1] + 2
    assert long[:, -2:].isnan().all()
    torch.testing.assert_close(short, long[:, :-2], equal_nan=True, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(unmasked, long, equal_nan=True, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_untouched(encoders: dict, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoders[family]
    images, texts = inputs_of(encoder)
    encoder.model.train()
    before = snapshot(encoder.model)
    in_training = M2IB(encoder.model).attribute(**images, **texts)
    assert_same(before, snapshot(encoder.model))
    calls, upper = [], Tower.upper

    def failing(self: Tower, hidden: object) -> object:
        calls.append(hidden)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return upper(self, hidden)

    monkeypatch.setattr(Tower, "upper", failing)
    with pytest.raises(KeyboardInterrupt):
        M2IB(encoder.model).attribute(**images, **texts)
    monkeypatch.undo()
    assert_same(before, snapshot(encoder.model))
    encoder.model.eval()
    for trained, evaluated in zip(in_training, M2IB(encoder.model).attribute(**images, **texts), strict=True):
        torch.testing.assert_close(trained, evaluated, equal_nan=True)


def test_half_precision(encoders: dict) -> None:
    encoder = encoders["clip"]
    images, texts = inputs_of(encoder)
    for dtype in (torch.float16, torch.bfloat16):
        model = copy.deepcopy(encoder.model).to(dtype)
        rounded = copy.deepcopy(model).float()
        for half, full in zip(
            M2IB(model).attribute(**images, **texts), M2IB(rounded).attribute(**images, **texts), strict=True
        ):
            torch.testing.assert_close(half, full, equal_nan=True)
        assert model.dtype == dtype


def test_seeds_and_targets(encoders: dict) -> None:
    encoder = encoders["clip"]
    images, texts = inputs_of(encoder)
    method = M2IB(encoder.model)
    first, again, other = (method.attribute(**images, **texts, seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    image, nothing = method.attribute(**images, **texts, target="image")
    assert nothing is None
    assert torch.equal(image, first)


def test_gates_for_tokens_and_options_matter(encoders: dict) -> None:
    encoder = encoders["siglip"]
    images, texts = inputs_of(encoder)
    plain = M2IB(encoder.model).attribute(**images, **texts)[0]
    for options in (
        {"gate": "token"}, {"beta": 1.0}, {"steps": 5}, {"layer": 1}, {"standardise": True}, {"noise": "none"},
        {"n_samples": 8}, {"learning_rate": 0.5},
    ):  # fmt: skip
        found = M2IB(encoder.model, **options).attribute(**images, **texts)[0]
        assert found.isfinite().all()
        assert not torch.allclose(found, plain, atol=1e-3), options


@given(st.floats(-30, 30), st.floats(-50, 50))
@settings(deadline=None)
def test_divergence_against_torch(alpha: float, x: float) -> None:
    gate = torch.tensor(alpha, dtype=torch.float64).sigmoid()
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(
        normal(gate * x, (-torch.tensor(alpha, dtype=torch.float64)).sigmoid()), normal(0.0, 1.0)
    )
    found = divergence(torch.tensor(alpha, dtype=torch.float64), torch.tensor(x, dtype=torch.float64))
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-6, check_dtype=False)


def test_divergence_stays_finite() -> None:
    assert divergence(torch.tensor([-1e4, -100.0, 100.0, 1e4]), torch.ones(4)).isfinite().all()


def test_bad_input(encoders: dict) -> None:
    encoder = encoders["clip"]
    images, texts = inputs_of(encoder)
    for options, word in (
        ({"noise": "pink"}, "pink"), ({"gate": "channel"}, "channel"), ({"steps": 0}, "0 steps"),
        ({"n_samples": 3}, "even"), ({"beta": float("nan")}, "finite"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=word):
            M2IB(encoder.model, **options)
    with pytest.raises(InputError, match="has 2 layers and no hidden states 7"):
        M2IB(encoder.model, layer=7).attribute(**images, **texts)
    with pytest.raises(InputError, match="no hidden states -4"):
        M2IB(encoder.model, layer=-4).attribute(**images, **texts)
    with pytest.raises(InputError, match="3 images and 2 captions"):
        M2IB(encoder.model).attribute(images["pixel_values"], texts["input_ids"][:2])
    with pytest.raises(InputError, match="no pairs"):
        M2IB(encoder.model).attribute(images["pixel_values"][:0], texts["input_ids"][:0])
    with pytest.raises(InputError, match="target='pixels'"):
        M2IB(encoder.model).attribute(**images, **texts, target="pixels")
    broken = images["pixel_values"].clone()
    broken[1, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="no finite embedding for image 1"):
        M2IB(encoder.model).attribute(broken, **texts)
    with pytest.raises(InputError, match="own preprocessing"):
        M2IB(encoder.model).attribute(torch.zeros(3, 3, 40, 40), **texts)
    with pytest.raises(InputError, match="the model reads 16"):
        M2IB(encoder.model).attribute(images["pixel_values"], torch.zeros(3, 40, dtype=torch.int64))
    with pytest.raises(InputError, match="outside the model's"):
        M2IB(encoder.model).attribute(images["pixel_values"], torch.full((3, 4), 10_000))
    with pytest.raises(InputError, match=r"cannot open a 'Linear' model.*occlusion"):
        M2IB(torch.nn.Linear(2, 2)).attribute(**images, **texts)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_path_adds_up_to_what_the_input_has_over_noise(encoders: dict, family: str) -> None:
    encoder = encoders[family]
    images, texts = inputs_of(encoder)
    towers = hf_towers(encoder.model)
    method = BottleneckPath(towers, steps=200, n_samples=2, layer=1)
    with torch.no_grad():
        told = F.normalize(towers.text.upper(towers.text.lower(texts, 1)), dim=1)
        hidden = towers.image.lower(images, 1)
        found = method.scores(towers.image, hidden, told, seed=0)
        mean, deviation = moments(hidden.states, hidden.keep)
        drawn = torch.cat([draw_noise(towers.image, hidden.states, "antithetic", 2, 0, step) for step in range(200)])
        ends = [hidden.states, mean + deviation * drawn]
        full, closed = (F.cosine_similarity(towers.image.upper(hidden.with_states(z)), told, dim=-1) for z in ends)
    live = found if hidden.keep is None else found.masked_fill(~hidden.keep, 0)
    torch.testing.assert_close(live.sum(1), full - closed.mean(0), atol=0.02, rtol=0)


def test_the_path_against_finite_differences(encoders: dict) -> None:
    encoder = encoders["clip"]
    images, texts = inputs_of(encoder)
    towers = hf_towers(encoder.model)
    method = BottleneckPath(towers, steps=3)
    with torch.no_grad():
        told = F.normalize(towers.text.upper(towers.text.lower(texts, 1)), dim=1)
        hidden = towers.image.lower(images, 1)
        x, (mean, deviation) = hidden.states, moments(hidden.states, None)
        expected, width = torch.zeros(x.shape[:-1]), 1e-2
        for step in range(3):
            noise = draw_noise(towers.image, x, "antithetic", 2, 5, step)
            for token in range(x.shape[1]):
                fits = []
                for side in (width, -width):
                    gates = torch.full((1, x.shape[1], 1), (step + 0.5) / 3)
                    gates[:, token] += side
                    z = mean + gates * (x - mean) + (1 - gates) * deviation * noise
                    fits.append(F.cosine_similarity(towers.image.upper(hidden.with_states(z)), told, dim=-1).mean(0))
                expected[:, token] += (fits[0] - fits[1]) / (2 * width) / 3
        found = method.scores(towers.image, hidden, told, seed=5)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-2)


def test_path_bad_input(encoders: dict) -> None:
    for options in ({"steps": 0}, {"n_samples": 3}, {"n_samples": 0}):
        with pytest.raises(InputError, match="make no path"):
            BottleneckPath(encoders["clip"].model, **options)
