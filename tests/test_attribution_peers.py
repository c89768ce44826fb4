"""The peers of M2IB against slow references and closed forms, and what they leave of the user's model."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import naive_peers as naive
from attribution_world import assert_same, inputs_of, one, snapshot
from boresight.attribution.attention import AttentionRollout, Chefer, LeGrad
from boresight.attribution.controls import UniformMap
from boresight.attribution.gradients import GradCam, GradientXInput, IntegratedGradients
from boresight.attribution.interaction import contributions, interaction
from boresight.attribution.masking import Patches, Words, units_of
from boresight.attribution.perturbation import KernelShap, Occlusion, Rise, coalitions
from boresight.encoders import load_encoder
from boresight.encoders.hf_towers import hf_towers
from boresight.encoders.towers import Attention, Block, Hidden, Linear, Tower, Towers
from boresight.errors import InputError
from boresight.seeds import generator
from tiny_encoders import FAMILIES, save_tiny

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


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("encoders")
    return {name: load_encoder(save_tiny(name, folder / name), dtype="float32") for name in FAMILIES}


def make(name: str, model, **options):
    kind, small = METHODS[name]
    return kind(model, **{**small, **options})


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


def mean_towers(encoder) -> Towers:
    towers = hf_towers(encoder.model)
    return Towers(replace(towers.image, pooling="mean", probe=None), towers.text)


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
def test_integrated_gradients_are_captums(encoders: dict, family: str) -> None:
    captum = pytest.importorskip("captum.attr")
    encoder = encoders[family]
    towers = hf_towers(encoder.model)
    for side, inputs, other, found in both_sides(encoder, IntegratedGradients(encoder.model, layer=1, steps=6)):
        tower = getattr(towers, side)
        hidden = tower.lower(inputs, 1)

        def fit(states, tower=tower, hidden=hidden, other=other):
            copies = hidden.select(torch.zeros(len(states), dtype=torch.int64))
            return F.cosine_similarity(tower.upper(copies.with_states(states)), other)

        expected = captum.IntegratedGradients(fit).attribute(hidden.states.detach(), n_steps=6).sum(-1)[0]
        torch.testing.assert_close(found, expected.float()[tower.prefix :], atol=1e-5, rtol=1e-4)


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


def pixel_patches(encoder, images: dict, row: int) -> tuple[torch.Tensor, int, int]:
    """Normalised pixels (1, C, H, W) of one image, and its grid."""
    if "spatial_shapes" not in images:
        return images["pixel_values"][row : row + 1], 4, 4
    rows, columns = images["spatial_shapes"][row].tolist()
    patches = images["pixel_values"][row, : rows * columns].reshape(rows, columns, 8, 8, 3)
    return patches.permute(4, 0, 2, 1, 3).reshape(1, 3, rows * 8, columns * 8), rows, columns


def image_scores(encoder, pixels: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    inputs = encoder.collate(list(pixels)) if encoder.family == "siglip2" else {"pixel_values": pixels}
    with torch.no_grad():
        return F.cosine_similarity(naive.features(encoder.model, "image", inputs), other)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("window", [1, 3])
def test_occlusion_of_patches_by_a_loop(encoders: dict, family: str, window: int) -> None:
    encoder = encoders[family]
    images, texts = inputs_of(encoder)
    found = Occlusion(encoder.model, window=window).attribute(**images, **texts, target="image")[0]
    for row in range(3):
        other = unit(encoder, "text", one(texts, row))
        pixels, height, width = pixel_patches(encoder, images, row)
        down, across = min(window, height), min(window, width)
        whole, drops = image_scores(encoder, pixels, other), {}
        for top in range(height - down + 1):
            for left in range(width - across + 1):
                gone = list(itertools.product(range(top, top + down), range(left, left + across)))
                drop = whole - image_scores(encoder, naive.without_patches(pixels, 8, gone), other)
                for patch in gone:
                    drops.setdefault(patch, []).append(float(drop))
        for (y, x), values in drops.items():
            assert float(found[row, y, x]) == pytest.approx(sum(values) / len(values), abs=1e-5)
        assert len(drops) == height * width


def movable(encoder, texts: dict) -> list[int]:
    """Columns that may go, of one caption without padding where the model takes a mask."""
    ids = texts["input_ids"][0].tolist()
    if encoder.family == "clip":
        return list(range(1, len(ids) - 1))
    if "attention_mask" in texts:
        return list(range(1, len(ids)))
    end = len(ids)
    while end and ids[end - 1] == ids[-1]:
        end -= 1
    return list(range(end))


@pytest.mark.parametrize("family", FAMILIES)
def test_occlusion_of_tokens_by_a_loop(encoders: dict, family: str) -> None:
    encoder = encoders[family]
    for side, inputs, other, found in both_sides(encoder, Occlusion(encoder.model)):
        if side == "text":
            expected = torch.zeros(inputs["input_ids"].shape[1])
            for column in movable(encoder, inputs):
                closed = naive.without_tokens(inputs, [column], refill=encoder.family.startswith("siglip"))
                expected[column] = unit(encoder, side, inputs)[0] @ other[0] - unit(encoder, side, closed)[0] @ other[0]
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
            assert (expected != 0).any()


@pytest.mark.parametrize("family", ["clip", "siglip2_naflex"])
def test_rise_by_a_loop(encoders: dict, family: str) -> None:
    encoder = encoders[family]
    images, texts = inputs_of(encoder)
    method = Rise(encoder.model, n_masks=12, grid=3, probability=0.4, rows_at_once=5)
    found = method.attribute(**images, **texts, seed=4)
    for row in range(3):
        other = unit(encoder, "text", alone(encoder, "text", texts, row))
        pixels, rows, columns = pixel_patches(encoder, images, row)
        height, width = pixels.shape[-2:]
        cell = math.ceil(height / 3), math.ceil(width / 3)
        source = generator(4, f"rise {height} x {width} pixels")
        cells = torch.rand(12, 3, 3, generator=source) < 0.4
        shifts = [torch.randint(side, (12,), generator=source).tolist() for side in cell]
        shown, scores = [], []
        for k in range(12):
            large = F.interpolate(cells[k].float()[None, None], (4 * cell[0], 4 * cell[1]), mode="bilinear")[0, 0]
            mask = large[shifts[0][k] :, shifts[1][k] :][:height, :width]
            scores.append(float(image_scores(encoder, pixels * mask, other)))
            shown.append(mask.reshape(rows, 8, columns, 8).mean((1, 3)))
        mean = sum(scores) / 12
        expected = sum((score - mean) * mask for score, mask in zip(scores, shown, strict=True)) / sum(shown)
        torch.testing.assert_close(found[0][row, :rows, :columns], expected, atol=1e-5, rtol=1e-3)
    text = alone(encoder, "text", texts, 1)
    other, places = unit(encoder, "image", alone(encoder, "image", images, 1)), movable(encoder, text)
    keep = torch.rand(12, len(places), generator=generator(4, f"rise {len(places)} tokens")) < 0.4
    scores = []
    for mask in keep:
        gone = [place for place, kept in zip(places, mask.tolist(), strict=True) if not kept]
        closed = naive.without_tokens(text, gone, refill=encoder.family.startswith("siglip"))
        scores.append(unit(encoder, "text", closed)[0] @ other[0])
    scores = torch.stack(scores) - torch.stack(scores).mean()
    expected = (scores @ keep.float()) / keep.sum(0).clamp(min=1)
    torch.testing.assert_close(found[1][1, places], expected, atol=1e-5, rtol=1e-3)


def shapley(units: int, game) -> torch.Tensor:
    """Mean gain of each unit over all orders in which they may come."""
    values, orders = torch.zeros(units, dtype=torch.float64), list(itertools.permutations(range(units)))
    known = {subset: game(subset) for size in range(units + 1) for subset in itertools.combinations(range(units), size)}
    for order in orders:
        for place, one_unit in enumerate(order):
            before, after = tuple(sorted(order[:place])), tuple(sorted(order[: place + 1]))
            values[one_unit] += known[after] - known[before]
    return values / len(orders)


@pytest.mark.parametrize("family", FAMILIES)
def test_kernelshap_of_four_tokens_is_exact(encoders: dict, family: str) -> None:
    encoder = encoders[family]
    images, texts = inputs_of(encoder, ["x yz", "wa b", "qrst"])
    text = alone(encoder, "text", texts, 2)
    places = movable(encoder, text)
    assert 4 <= len(places) <= 6
    other = unit(encoder, "image", alone(encoder, "image", images, 2))

    def game(kept: tuple) -> float:
        gone = [place for unit_, place in enumerate(places) if unit_ not in kept]
        closed = naive.without_tokens(text, gone, refill=encoder.family.startswith("siglip"))
        return float(unit(encoder, "text", closed)[0] @ other[0])

    found = KernelShap(encoder.model, n_samples=2 ** len(places)).attribute(**images, **texts, target="text")[1][2]
    torch.testing.assert_close(found[places].double(), shapley(len(places), game), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("units", "n_samples"), [(1, 2), (2, 2), (3, 6), (5, 100), (9, 64), (12, 60), (49, 512)])
def test_coalitions(units: int, n_samples: int) -> None:
    keep, weights = coalitions(units, n_samples, generator(0))
    assert len(keep) == len(weights) <= n_samples
    if units == 1:
        assert len(keep) == 0
        return
    sizes = keep.sum(1)
    assert 1 <= int(sizes.min()) <= int(sizes.max()) <= units - 1
    assert float(weights.sum()) == pytest.approx(1.0)
    kernel = torch.tensor([1 / (k * (units - k)) for k in range(1, units)], dtype=torch.float64)
    kernel /= kernel.sum()
    if len(keep) == 2**units - 2:
        assert len(keep.unique(dim=0)) == len(keep)
        expected = kernel[sizes - 1] / torch.tensor([math.comb(units, k) for k in sizes.tolist()])
        torch.testing.assert_close(weights, expected)
    else:
        assert len(keep) == n_samples
        several = [coalitions(units, n_samples, generator(seed)) for seed in range(60)]
        share = sum(torch.zeros(units + 1).double().index_add(0, k.sum(1), w) for k, w in several)[1:units] / 60
        torch.testing.assert_close(share, kernel, atol=0.02, rtol=0)
        assert len({tuple(k.flatten().tolist()) for k, _ in several}) == 60


@pytest.mark.parametrize("units", [7, 30])
def test_kernelshap_of_a_sum_is_its_terms(units: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A game without interactions has its terms for values, however few coalitions beyond `units` are drawn."""
    terms = torch.randn(units, 2, generator=generator(1), dtype=torch.float64)
    monkeypatch.setattr(KernelShap, "asked", lambda self, of, ask, keep: keep.double() @ terms + 0.3)
    words = Words({}, torch.arange(units), 0, False, False)
    found = KernelShap(None, n_samples=4 * units).weigh(words, None, 0)
    torch.testing.assert_close(found, terms.T, atol=1e-9, rtol=0)
    few = KernelShap(None, n_samples=6).weigh(words, None, 0)
    torch.testing.assert_close(few.sum(1), terms.sum(0))


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
    ("ids", "options", "places"),
    [
        ([5, 6, 1, 0, 0], {}, [0, 1, 2]),
        ([5, 6, 1, 1, 1], {}, [0, 1]),  # padded with the end token
        ([5, 6, 7, 1, 0], {}, [0, 1, 2, 3]),
        ([5, 6, 7, 8, 1], {}, [0, 1, 2, 3]),  # no padding: the last position is read
        ([5, 6, 7, 8, 8], {"padding_id": 0}, [0, 1, 2, 3]),
    ],
)
def test_which_tokens_may_go_without_a_mask(encoders: dict, ids: list, options: dict, places: list) -> None:
    tower = hf_towers(encoders["siglip"].model).text
    hidden = tower.lower({"input_ids": torch.tensor([ids])}, 0)
    assert units_of(tower, hidden, 0, **options).places.tolist() == places
    closed = replace(tower, blocks=(), pooling="cls")
    if len(set(ids[-2:])) == 1:  # a black box takes only repetition for padding
        assert units_of(closed, hidden, 0).places.tolist() == [k for k in range(5) if ids[k] != ids[-1]]
    else:
        assert units_of(closed, hidden, 0).places.tolist() == [0, 1, 2, 3, 4]
    assert units_of(closed, hidden, 0, padding_id=8).places.tolist() == [
        k for k in range(5) if ids[3:] != [8, 8] or k < 3
    ]


def test_a_caption_of_special_tokens_alone(encoders: dict) -> None:
    encoder = encoders["clip"]
    images, texts = inputs_of(encoder, ["", "ab"])
    for name in SCORES_ONLY:
        found = make(name, encoder.model).attribute(**images, **texts)[1]
        assert (found[0, :2] == 0).all()
        assert found[0, 2:].isnan().all()
        assert (found[1, 1:3] != 0).all()


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


def closed_form(towers: Towers, images: dict, texts: dict) -> tuple:
    """In float64: (u (2, d), what each token adds to it (2, N, d), unit embedding of the caption (2, d), bias (d,))."""
    hidden = towers.image.lower(images, 0)
    head, tokens = towers.image.head, hidden.states.shape[1]
    bias = head(torch.zeros(hidden.states.shape[-1]))
    parts = (head(hidden.states) - bias) / tokens
    parts[:, 0] += head(hidden.states[:, 0]) - bias
    other = F.normalize(towers.text.upper(towers.text.lower(texts, 0)), dim=-1)
    return (bias + parts.sum(1)).double(), parts.double(), other.double(), bias.double()


def parts_by_head(towers: Towers, images: dict) -> torch.Tensor:
    """(2, patches, heads, d), what each of two attention heads adds to u."""
    states = towers.image.lower(images, 0).states
    head, width = towers.image.head, states.shape[-1]
    own = torch.eye(2).repeat_interleave(width // 2, dim=1)
    split = head(states[:, 1:, None] * own) - head(torch.zeros(width))
    return split.double() / states.shape[1]


def slope(u: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """d cos(u, other) / d u."""
    length = u.norm(dim=-1, keepdim=True)
    return (other - (u * other).sum(-1, keepdim=True) / length * u / length) / length


def test_closed_forms() -> None:
    towers, images, texts = planted()
    u, parts, other, bias = closed_form(towers, images, texts)
    patches = parts[:, 1:]

    def of(method) -> torch.Tensor:
        return method.attribute(**images, **texts, target="image")[0].flatten(1).double()

    def cos(x: torch.Tensor) -> torch.Tensor:
        return F.cosine_similarity(x, other, dim=-1)

    grads = torch.einsum("bd,bnd->bn", slope(u, other), parts)
    torch.testing.assert_close(of(GradientXInput(towers)), grads[:, 1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(of(GradCam(towers)), grads[:, 1:].relu(), atol=1e-5, rtol=0)
    halves = torch.einsum("bd,bnhd->bnh", slope(u, other), parts_by_head(towers, images))
    torch.testing.assert_close(halves.sum(-1), grads[:, 1:], atol=1e-6, rtol=0)
    for method in (LeGrad(towers), Chefer(towers)):  # the same where attention is uniform
        torch.testing.assert_close(of(method), halves.relu().mean(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(of(AttentionRollout(towers)), torch.full((2, 6), 1 / 14).double(), atol=1e-6, rtol=0)
    drops = torch.stack([cos(u) - cos(u - patches[:, n]) for n in range(6)], 1)
    torch.testing.assert_close(of(Occlusion(towers)), drops, atol=1e-5, rtol=0)

    points = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    path = torch.stack([slope(bias + share * (u - bias), other) for share in points]).mean(0)
    integrated = torch.einsum("bd,bnd->bn", path, parts)
    torch.testing.assert_close(of(IntegratedGradients(towers, steps=64)), integrated[:, 1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(integrated.sum(1), cos(u) - cos(bias.expand(2, -1)), atol=1e-6, rtol=0)

    for row in range(2):
        rest = u[row] - patches[row].sum(0)
        exact = shapley(6, lambda kept, row=row, rest=rest: cos(rest + patches[row, list(kept)].sum(0))[row])
        torch.testing.assert_close(of(KernelShap(towers, n_samples=62))[row], exact, atol=1e-5, rtol=0)


def test_methods_agree_where_the_cosine_is_nearly_linear() -> None:
    towers, images, texts = planted()
    faint = {"pixel_values": images["pixel_values"] * 1e-2}
    by_gradient, *others = (
        method.attribute(**faint, **texts, target="image")[0]
        for method in (GradientXInput(towers), Occlusion(towers), KernelShap(towers))
    )
    for found in others:
        assert float((found - by_gradient).abs().max()) < 0.03 * float(by_gradient.abs().max())


@pytest.mark.parametrize("name", METHODS)
def test_seeds(encoders: dict, name: str) -> None:
    encoder = encoders["clip"]
    images, texts = inputs_of(encoder)
    method = make(name, encoder.model)
    first, again, other = (method.attribute(**images, **texts, seed=seed) for seed in (0, 0, 1))
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.nan_to_num(), b.nan_to_num())
    assert torch.equal(first[0], other[0]) == (name not in ("rise", "kernelshap"))


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
    """Finite differences at the input, and along the path the product of what both embeddings move by."""
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

    towers, images, texts = planted()
    moved, ends = [], []
    for tower, inputs in ((towers.image, images), (towers.text, texts)):
        hidden = tower.lower(inputs, 0)
        whole, nothing = (
            F.normalize(tower.upper(hidden.with_states(share * hidden.states)), dim=-1) for share in (1, 0)
        )
        moved.append(contributions(tower, hidden, steps=40))
        ends.append(whole - nothing)
        torch.testing.assert_close(moved[-1].sum(0), ends[-1], atol=1e-5, rtol=0)
    found = interaction(towers, images, texts, layer=0, steps=40)
    torch.testing.assert_close(found.flatten(2), torch.einsum("ibd,jbd->bij", moved[1], moved[0][1:]))
    with_prefix = found.sum((1, 2, 3)) + torch.einsum("ibd,bd->b", moved[1], moved[0][0])
    torch.testing.assert_close(with_prefix, (ends[0] * ends[1]).sum(1), atol=1e-5, rtol=0)


def test_interaction_leaves_the_model_untouched(encoders: dict) -> None:
    encoder = encoders["clip"]
    images, texts = inputs_of(encoder)
    before = snapshot(encoder.model)
    interaction(hf_towers(encoder.model), images, texts)
    assert_same(before, snapshot(encoder.model))


def test_bad_input(encoders: dict) -> None:
    encoder = encoders["clip"]
    images, texts = inputs_of(encoder)
    for kind, options, word in (
        (IntegratedGradients, {"steps": 0}, "0 steps"), (IntegratedGradients, {"rows_at_once": 0}, "0 rows"),
        (LeGrad, {"layers": 0}, "0 layers"), (Occlusion, {"window": 0}, "window of 0"),
        (Occlusion, {"rows_at_once": 0}, "0 rows"), (Rise, {"n_masks": 0}, "n_masks=0"),
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
    with pytest.raises(InputError, match="0 steps"):
        interaction(towers, images, texts, steps=0)
    with pytest.raises(InputError, match="3 images and 2 captions"):
        interaction(towers, images, {k: v[:2] for k, v in texts.items()})
    with pytest.raises(InputError, match="no hidden states 9"):
        interaction(towers, images, texts, layer=9)
