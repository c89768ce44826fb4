"""Occlusion, RISE and Kernel SHAP against loops, and against sums over all orders."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

import naive_peers as naive
from attribution_world import alone, both_sides, encoders_fixture, inputs_of, one, shapley, unit  # noqa: F401
from boresight.attribution.methods.masking import Words
from boresight.attribution.methods.perturbation import KernelShap, Occlusion, Rise, coalitions
from boresight.seeds import generator
from tiny_encoders import FAMILIES


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
def test_occlusion_of_patches_by_a_loop(encoders: dict, family: str) -> None:
    encoder = encoders[family]
    images, texts = inputs_of(encoder)
    found = Occlusion(encoder.model).attribute(**images, **texts, target="image")[0]
    for row in range(3):
        other = unit(encoder, "text", one(texts, row))
        pixels, height, width = pixel_patches(encoder, images, row)
        whole = image_scores(encoder, pixels, other)
        for y, x in itertools.product(range(height), range(width)):
            drop = whole - image_scores(encoder, naive.without_patches(pixels, 8, [(y, x)]), other)
            assert float(found[row, y, x]) == pytest.approx(float(drop), abs=1e-5)


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
