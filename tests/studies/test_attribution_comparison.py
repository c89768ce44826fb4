"""Attribution methods side by side: figures against slow computations by hand, and controls at chance."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from attribution_measures.comparison import evaluate_attribution
from attribution_measures.distractors import swap_test, target_vs_distractor
from attribution_measures.faithfulness import soft_mask
from attribution_measures.figures import FAITHFUL, GROUNDED, TEXTUAL, AttributionFigures
from attribution_measures.scores import blurred
from boresight.attribution import explain
from boresight.attribution.localisation import pointing_game
from boresight.errors import InputError
from encoder_fixtures import default_fixture, tiny_fixture  # noqa: F401
from worlds.grounded import CaptionedImages, GroundedPairs, scene_pairs

pytestmark = pytest.mark.filterwarnings("ignore:.*longer than the")


@pytest.fixture(scope="module")
def pairs() -> GroundedPairs:
    return scene_pairs(2, seed=0)


@pytest.fixture(scope="module")
def figures(default, pairs: GroundedPairs) -> AttributionFigures:
    methods = {"legrad": {}, "occlusion": {}, "m2ib, two steps": ("m2ib", {"steps": 2})}
    return evaluate_attribution(default, pairs, methods, seed=3)


def image_score(encoder, pixels: Tensor, caption: str) -> float:
    with torch.no_grad():
        image = encoder.model.get_image_features(pixel_values=pixels[None]).pooler_output[0]
    return float(F.normalize(image, dim=0) @ encoder.embed_texts([caption])[0])


def text_score(encoder, image: Image.Image, ids: list[int]) -> float:
    with torch.no_grad():
        text = encoder.model.get_text_features(input_ids=torch.tensor([ids])).pooler_output[0]
    return float(F.normalize(text, dim=0) @ encoder.embed_images([image])[0])


def mean_over(scores: list[float]) -> float:
    return float(np.trapezoid(scores, dx=1 / (len(scores) - 1)))


@pytest.mark.parametrize("filling", ["mean", "blur"])
def test_deletion_and_insertion_are_those_of_patches_painted_over_by_hand(default, pairs, figures, filling) -> None:
    row, side = 1, 16
    found = explain(default, pairs.images[row], pairs.captions[row], method="legrad", target="image")
    pixels = default.preprocess(pairs.images[row])
    cover = torch.zeros_like(pixels) if filling == "mean" else blurred(pixels[None], side)[0]
    order = found.image[0].flatten().argsort(descending=True).tolist()
    for name, start, end in (("deletion", pixels, cover), ("insertion", cover, pixels)):
        shown, scores = start.clone(), [image_score(default, start, pairs.captions[row])]
        for patch in order:
            at = (
                slice(None),
                slice(patch // 6 * side, patch // 6 * side + side),
                slice(patch % 6 * side, patch % 6 * side + side),
            )
            shown[at] = end[at]
            scores.append(image_score(default, shown, pairs.captions[row]))
        expected = float(figures.values["legrad"][f"{name}_{filling}"][row])
        assert mean_over(scores) == pytest.approx(expected, abs=1e-5), name


def test_confidence_of_images_is_that_of_masked_pixels(default, pairs, figures) -> None:
    for row in range(len(pairs)):
        found = explain(default, pairs.images[row], pairs.captions[row], method="occlusion", target="image")
        pixels = default.preprocess(pairs.images[row])
        full = image_score(default, pixels, pairs.captions[row])
        masked = image_score(default, pixels * soft_mask(found.image, (96, 96)), pairs.captions[row])
        told = figures.values["occlusion"]
        assert float(told["image_drop"][row]) == pytest.approx(100 * max(0, full - masked), abs=1e-3)
        assert float(told["image_increase"][row]) == 100 * (masked > full)


def test_measures_against_masks_are_those_of_the_maps_of_explain(default, pairs, figures) -> None:
    def maps(captions: list[str]) -> Tensor:
        return explain(default, pairs.images, captions, method="m2ib", steps=2, seed=3, target="image").image

    own, other, foreign = (
        maps(said) for said in (pairs.captions, pairs.other_captions, [*pairs.captions[1:], pairs.captions[0]])
    )
    told = figures.values["m2ib, two steps"]
    torch.testing.assert_close(told["pointing_game"], pointing_game(own, pairs.targets))
    torch.testing.assert_close(
        told["target_vs_distractor"], target_vs_distractor(own, pairs.targets, pairs.distractors)
    )
    torch.testing.assert_close(told["swap_test"], swap_test(own, other, pairs.targets, pairs.distractors))
    above = [[float(a > b) + float(a == b) / 2 for b in foreign.sum((1, 2))] for a in own.sum((1, 2))]
    assert figures.mean("m2ib, two steps", "mismatch") == pytest.approx(float(np.mean(above)))


def test_deletion_of_tokens_is_that_of_captions_without_them(default, pairs, figures) -> None:
    for row in range(len(pairs)):
        found = explain(default, pairs.images[row], pairs.captions[row], method="legrad", target="text")
        ids = default.tokenize([pairs.captions[row]])["input_ids"][0].tolist()
        free = [place for place in range(len(ids)) if not found.special[0, place]]
        assert len(free) == len(ids) - 2
        order = sorted(free, key=lambda place, of=found: -float(of.text[0, place]))

        def score(kept: set[int], ids=ids, free=free, row=row) -> float:
            closed_up = [number for place, number in enumerate(ids) if place in kept or place not in free]
            return text_score(default, pairs.images[row], closed_up)

        gone = [score({*order[step:]}) for step in range(len(order) + 1)]
        come = [score({*order[:step]}) for step in range(len(order) + 1)]
        told = figures.values["legrad"]
        assert float(told["text_deletion"][row]) == pytest.approx(mean_over(gone), abs=1e-5)
        assert float(told["text_insertion"][row]) == pytest.approx(mean_over(come), abs=1e-5)
        middle = sorted(float(found.text[0, place]) for place in free)[(len(free) - 1) // 2]
        masked = score({place for place in free if float(found.text[0, place]) > middle})
        assert float(told["text_drop"][row]) == pytest.approx(100 * max(0, gone[0] - masked), abs=1e-3)
        assert float(told["text_increase"][row]) == 100 * (masked > gone[0])


def test_every_value_is_there_once(figures, pairs) -> None:
    for told in figures.values.values():
        assert set(told) == {*GROUNDED, *FAITHFUL, *TEXTUAL}
        assert all(values.shape == (len(pairs),) and values.dtype == torch.float64 for values in told.values())
        assert (told["image_seconds"] > 0).all()
        assert (told["text_seconds"] > 0).all()


def test_controls_are_at_chance(tiny) -> None:
    encoder, pairs = tiny("clip"), scene_pairs(60, seed=1, size=48)
    found = evaluate_attribution(
        encoder, pairs, {"uniform": {}, "random": {}, "rollout": {}}, target="image", batch_size=32
    )
    for row in ("uniform", "random", "rollout"):
        assert (found.values[row]["swap_test"] == 0.5).all()
    for row in ("uniform", "random"):
        assert found.mean(row, "mismatch") == pytest.approx(0.5, abs=1e-12)
    assert (found.values["uniform"]["target_vs_distractor"] == 0.5).all()
    assert (found.values["uniform"]["roc_auc"] == 0.5).all()
    assert (found.values["uniform"]["image_drop"] == 0).all()
    assert (found.values["uniform"]["image_increase"] == 0).all()
    for measure in ("target_vs_distractor", "roc_auc", "pointing_game", "energy_in_mask"):
        away = found.mean("random", measure) - found.mean("uniform", measure)
        assert abs(away) < 3.5 * found.error("random", measure), measure


def test_pairs_without_masks_have_no_figures_of_masks(tiny, pairs) -> None:
    without = CaptionedImages(pairs.images, pairs.captions, "said")
    found = evaluate_attribution(tiny("clip"), without, {"uniform": {}})
    assert "pointing_game" not in found.values["uniform"]
    assert set(found.values["uniform"]) == {*FAITHFUL, *TEXTUAL}


@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2_fixed", "vision_text"])
def test_every_family_with_one_grid_is_measured(tiny, family) -> None:
    encoder, pairs = tiny(family), scene_pairs(2, seed=0, size=48)
    kept = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    state = torch.get_rng_state()
    methods = {"m2ib": {"steps": 3}, "grad-cam": {}, "rise": {"n_masks": 8}, "random": {}}
    found = evaluate_attribution(encoder, pairs, methods, seed=1)
    again = evaluate_attribution(encoder, pairs, methods, seed=1, batch_size=3)
    other = evaluate_attribution(encoder, pairs, {"random": {}}, seed=2)
    for row, told in found.values.items():
        for measure, values in told.items():
            assert torch.isfinite(values).all()
            if not measure.endswith("seconds"):
                torch.testing.assert_close(again.values[row][measure], values, atol=1e-4, rtol=0)
    assert any(
        not torch.equal(other.values["random"][measure], told) for measure, told in found.values["random"].items()
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert not encoder.model.training
    assert all(parameter.grad is None for parameter in encoder.model.parameters())
    assert all(torch.equal(value, kept[name]) for name, value in encoder.model.state_dict().items())


def test_masks_follow_what_the_model_sees_of_a_picture(tiny) -> None:
    """64 x 32 pixels, of which the middle square is seen."""
    masks = torch.zeros(2, 2, 32, 64, dtype=torch.bool)
    masks[0, :, :16, 16:32], masks[1, :, 16:, 32:48] = True, True
    images = [Image.fromarray(np.full((32, 64, 3), shade, np.uint8)) for shade in (90, 160)]
    made = GroundedPairs(images, ["a", "b"], masks[0], ["b", "a"], masks[1], "halves")
    found = evaluate_attribution(tiny("clip"), made, {"uniform": {}}, target="image")
    assert (found.values["uniform"]["energy_in_mask"] == 0.25).all()
    unseen = torch.zeros_like(masks[0])
    unseen[:, :, :10] = True
    hidden = GroundedPairs(images, ["a", "b"], unseen, ["b", "a"], masks[1], "halves")
    with pytest.raises(InputError, match="touches no patch"):
        evaluate_attribution(tiny("clip"), hidden, {"uniform": {}}, target="image")


def test_what_cannot_be_measured_is_refused(tiny, default, pairs) -> None:
    two = CaptionedImages(pairs.images[:2], pairs.captions[:2], "two")
    cases: list[tuple[Callable, str]] = [
        (lambda: evaluate_attribution(tiny("siglip2_naflex"), two, {"m2ib": {}}), "one for all"),
        (lambda: evaluate_attribution(default, scene_pairs(1, seed=0), {"m2ib": {}}), "has 1 pairs"),
        (lambda: evaluate_attribution(default, two, {}), "no methods"),
        (lambda: evaluate_attribution(default, two, {"m2ib": {"layers": 3}}), "no option 'layers'"),
        (lambda: evaluate_attribution(default, two, {"nib": {}}), "no method 'nib'"),
        (lambda: evaluate_attribution(default, two, {"m2ib": {}}, target="audio"), "target='audio'"),
        (lambda: evaluate_attribution(object_with_a_name(), two, {"m2ib": {}}), "does not open"),
    ]
    for call, message in cases:
        with pytest.raises(InputError, match=message):
            call()


def object_with_a_name():
    class Closed:
        name = "closed"

    return Closed()


def test_figures_are_means_with_their_errors() -> None:
    values = torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    one = AttributionFigures(
        "four", {"m2ib": {"pointing_game": values, "image_seconds": values}, "random": {"iou": values}}
    )
    assert one.mean("m2ib", "pointing_game") == 0.5
    assert one.error("m2ib", "pointing_game") == pytest.approx(math.sqrt(1 / 3) / 2)
    assert one.measures() == ["pointing_game", "iou", "image_seconds"]
    only = AttributionFigures("one", {"m2ib": one.values["m2ib"]})
    assert only.table(["pointing_game"]).splitlines() == [
        "| method | pointing ↑ |",
        "|---|---|",
        "| m2ib | 0.500 ± 0.289 |",
    ]
    with pytest.raises(InputError, match="no 'iou' of 'm2ib' for four"):
        one.mean("m2ib", "iou")
    with pytest.raises(InputError, match="no measure 'speed'"):
        only.table(["speed"])
