"""Attribution methods side by side: figures against slow computations by hand, controls at chance, ROAR, the study."""

from __future__ import annotations

import copy
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import attribution as study
from boresight.attribution import M2IB, explain
from boresight.attribution.measures.comparison import evaluate_attribution, randomisation
from boresight.attribution.measures.faithfulness import randomised_copies, soft_mask
from boresight.attribution.measures.grounding import GroundedPairs, scene_pairs
from boresight.attribution.measures.localisation import pointing_game, spearman, swap_test, target_vs_distractor
from boresight.attribution.measures.pairs import CaptionedImages
from boresight.attribution.measures.roar import remove_and_retrain
from boresight.attribution.measures.tables import FAITHFUL, GROUNDED, TEXTUAL, AttributionFigures, AttributionRuns
from boresight.attribution.measures.texts import GroundedTexts, emoji_texts, scene_texts
from boresight.attribution.measures.withheld import blurred, deletable, with_patches, with_tokens
from boresight.data.assemble import dataset_of
from boresight.data.collection import Collection
from boresight.data.worlds.scene_world import HELD_OUT, draw_scene
from boresight.encoders import load_encoder
from boresight.encoders.towers.hf import hf_towers
from boresight.errors import ArtefactError, InputError
from boresight.models import default_model_path
from tiny_encoders import save_tiny

pytestmark = pytest.mark.filterwarnings("ignore:.*longer than the")


@pytest.fixture(scope="module")
def default():
    return load_encoder(default_model_path(), dtype="float32")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """An encoder of random weights of a family, made once."""
    made: dict = {}

    def of(family: str):
        if family not in made:
            made[family] = load_encoder(save_tiny(family, tmp_path_factory.mktemp(family)), dtype="float32")
        return made[family]

    return of


@pytest.fixture(scope="module")
def pairs() -> GroundedPairs:
    return scene_pairs(3, seed=0)


@pytest.fixture(scope="module")
def texts() -> GroundedTexts:
    return scene_texts(3, seed=0)


@pytest.fixture(scope="module")
def figures(default, pairs: GroundedPairs, texts: GroundedTexts) -> AttributionFigures:
    methods = {"legrad": {}, "occlusion": {}, "m2ib, two steps": ("m2ib", {"steps": 2})}
    return evaluate_attribution(default, pairs, methods, texts=texts, seed=3)


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


def test_phrases_are_told_apart_as_by_hand(default, texts, figures) -> None:
    found = explain(default, texts.images, texts.captions, method="occlusion", target="text", seed=3)
    for row in range(len(texts)):
        said = default.tokenized([texts.captions[row]]).tokens[0]

        def weights(span: tuple[int, int], said=said, row=row) -> list[float]:
            inside = [place for place, token in enumerate(said) if token.end > span[0] and token.start < span[1]]
            return [float(found.text[row, place]) for place in inside if not said[place].special]

        true, false = weights(texts.true[row]), weights(texts.false[row])
        assert len(true) == len(texts.captions[row][slice(*texts.true[row])].split())
        auc = np.mean([(a > b) + (a == b) / 2 for a in true for b in false])
        told = figures.values["occlusion"]
        assert float(told["phrase_auc"][row]) == pytest.approx(auc)
        best = max(found.words[row], key=lambda word: word.weight)
        at = said[best.tokens[0]].start
        assert float(told["top_word"][row]) == (texts.true[row][0] <= at < texts.true[row][1])
        assert float(told["top_word_chance"][row]) == pytest.approx(len(true) / len(found.words[row]))


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


def test_words_of_controls_are_at_chance(default, texts) -> None:
    pairs = CaptionedImages(texts.images, texts.captions, "said")
    more = scene_texts(30, seed=4)
    found = evaluate_attribution(
        default, pairs, {"uniform": {}, "random": {}}, texts=more, target="text", batch_size=32
    )
    assert (found.values["uniform"]["phrase_auc"] == 0.5).all()
    torch.testing.assert_close(found.values["uniform"]["top_word"], found.values["uniform"]["top_word_chance"])
    assert abs(found.mean("random", "phrase_auc") - 0.5) < 3.5 * found.error("random", "phrase_auc")
    assert "pointing_game" not in found.values["uniform"]


@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2_fixed", "vision_text"])
def test_every_family_with_one_grid_is_measured(tiny, family) -> None:
    encoder, pairs = tiny(family), scene_pairs(2, seed=0, size=48)
    kept = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    state = torch.get_rng_state()
    methods = {"m2ib": {"steps": 3}, "grad-cam": {}, "rise": {"n_masks": 8}, "random": {}}
    found = evaluate_attribution(encoder, pairs, methods, seed=1)
    again = evaluate_attribution(encoder, pairs, methods, seed=1, batch_size=3)
    other = evaluate_attribution(encoder, pairs, methods, seed=2)
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


def test_what_cannot_be_measured_is_refused(tiny, default, pairs, texts) -> None:
    two = CaptionedImages(pairs.images[:2], pairs.captions[:2], "two")
    long = GroundedTexts(texts.images[:1], ["a " * 90 + "and a star"], [(0, 1)], [(184, 190)], "long")
    cases: list[tuple[Callable, str]] = [
        (lambda: evaluate_attribution(tiny("siglip2_naflex"), two, {"m2ib": {}}), "one for all"),
        (lambda: evaluate_attribution(default, scene_pairs(1, seed=0), {"m2ib": {}}), "has 1 pairs"),
        (lambda: evaluate_attribution(default, two, {}), "no methods"),
        (lambda: evaluate_attribution(default, two, {"m2ib": {"layers": 3}}), "no option 'layers'"),
        (lambda: evaluate_attribution(default, two, {"nib": {}}), "no method 'nib'"),
        (lambda: evaluate_attribution(default, two, {"m2ib": {}}, target="audio"), "target 'audio'"),
        (lambda: evaluate_attribution(default, two, {"uniform": {}}, target="text", texts=long), "is cut before"),
        (lambda: evaluate_attribution(object_with_a_name(), two, {"m2ib": {}}), "does not open"),
    ]
    for call, message in cases:
        with pytest.raises(InputError, match=message):
            call()


def object_with_a_name():
    class Closed:
        name = "closed"

    return Closed()


def test_figures_join_over_seeds_and_survive_json() -> None:
    def run(shift: float) -> AttributionFigures:
        told = torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=torch.float64) + shift
        return AttributionFigures(
            "four", {"m2ib": {"pointing_game": told, "image_seconds": told}, "random": {"iou": told}}
        )

    one = run(0.0)
    assert one.mean("m2ib", "pointing_game") == 0.5
    assert one.error("m2ib", "pointing_game") == pytest.approx(math.sqrt(1 / 3) / 2)
    again = AttributionFigures.from_dict(json.loads(json.dumps(one.to_dict())))
    assert again.measures() == ["pointing_game", "iou", "image_seconds"]
    assert torch.equal(again.values["random"]["iou"], one.values["random"]["iou"])
    runs = AttributionRuns([run(0.0), run(0.1), run(0.2)])
    assert runs.spread("random", "iou").text(2) == "0.60 ± 0.10"
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
    with pytest.raises(InputError, match="no runs"):
        AttributionRuns([])


def test_randomisation_is_the_correlation_with_maps_of_scrambled_copies(tiny) -> None:
    encoder, pairs = tiny("clip"), scene_pairs(4, seed=0, size=48)
    kept = copy.deepcopy(encoder.model.state_dict())
    found = randomisation(encoder, pairs, {"legrad": {}, "random": {}, "uniform": {}}, seed=5)
    assert list(found["legrad"]) == ["head", "block -1", "block -2", "embeddings"]
    assert set(found["random"].values()) == {1.0}
    assert set(found["uniform"].values()) == {0.0}
    own = explain(encoder, pairs.images, pairs.captions, method="legrad", target="image").image
    for stage, scrambled in randomised_copies(encoder.model, 5):
        other = copy.copy(encoder)
        other.model = scrambled
        again = explain(other, pairs.images, pairs.captions, method="legrad", target="image").image
        assert found["legrad"][stage] == pytest.approx(float(spearman(own, again).mean()), abs=1e-9)
    assert found["legrad"]["embeddings"] < 0.9
    assert all(torch.equal(value, kept[name]) for name, value in encoder.model.state_dict().items())


def planted(count: int, seed: int) -> dict[str, Tensor]:
    """Pictures of 4 x 4 patches: the left half has the colour that the caption names, the right half is noise."""
    draw = torch.Generator().manual_seed(seed)
    kinds = torch.randint(8, (count,), generator=draw)
    colours = torch.tensor([[(kind >> bit & 1) * 2 - 1 for bit in range(3)] for kind in range(8)]).float()
    pixels = torch.randn(count, 3, 32, 32, generator=draw)
    pixels[..., :16] = colours[kinds][:, :, None, None]
    ids = torch.stack([torch.full_like(kinds, 512), kinds + 5, torch.full_like(kinds, 513)], 1)
    return {"pixel_values": pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_retraining_misses_what_mattered_and_nothing_else(tiny) -> None:
    model = tiny("clip").model
    kept = copy.deepcopy(model.state_dict())
    train, test = planted(96, 0), planted(48, 1)
    left = torch.zeros(4, 4)
    left[:, :2] = 1
    settings = {"steps": 60, "batch_size": 32, "learning_rate": 3e-3, "seed": 2}
    told = {
        name: remove_and_retrain(model, train, test, half.expand(96, -1, -1), half.expand(48, -1, -1), **settings)
        for name, half in {"left": left, "right": 1 - left}.items()
    }
    assert told["left"][1] > 1.5 * told["right"][1]
    assert told["right"][1] < 0.5 * told["right"][0]
    again = remove_and_retrain(model, train, test, left.expand(96, -1, -1), left.expand(48, -1, -1), **settings)
    assert again == told["left"]
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_retraining_refuses_what_does_not_fit(tiny) -> None:
    model, pairs = tiny("clip").model, planted(4, 0)
    maps = torch.rand(4, 4, 4)
    with pytest.raises(InputError, match="share=1"):
        remove_and_retrain(model, pairs, pairs, maps, maps, share=1)
    with pytest.raises(InputError, match="test has 4 images, 4 captions and 3 maps"):
        remove_and_retrain(model, pairs, pairs, maps, maps[:3])
    with pytest.raises(InputError, match="no longer finite"):
        remove_and_retrain(model, pairs, pairs, maps, maps, learning_rate=1e30, steps=9)


def test_patches_and_tokens_are_withheld_where_they_stand(default) -> None:
    pixels = torch.randn(2, 3, 10, 7)  # 10 = 3 + 3 + 4 rows, 7 = 3 + 4 columns
    keep = torch.tensor([[[True, False], [False, False], [False, True]], [[True] * 2] * 3])
    shown = with_patches(pixels, keep, torch.full_like(pixels, 9.0))
    assert torch.equal(shown[1], pixels[1])
    there = shown[0, 0] != 9
    assert there[:3, :3].all()
    assert there[6:, 3:].all()
    assert int(there.sum()) == 9 + 16
    constant = torch.full((1, 2, 5, 9), 0.7)
    torch.testing.assert_close(blurred(constant, 4.0), constant)
    dot = torch.zeros(1, 1, 21, 21)
    dot[0, 0, 10, 10] = 1
    bell = blurred(dot, 2.0)[0, 0]
    assert float(bell[10, 12] / bell[10, 10]) == pytest.approx(math.exp(-0.5), rel=1e-4)
    torch.testing.assert_close(bell, bell.T)

    captions = ["a red star", "a large striped blue ring"]
    read = default.tokenized(captions)
    free = torch.zeros_like(read.real)
    free[0, 1:4], free[1, 1:6] = True, True
    words = deletable(default.towers().text, read.inputs, free)
    keep = torch.ones_like(free)
    keep[0, 2], keep[1, 1:4] = False, False
    out = with_tokens(words, keep)
    for row, said in enumerate(["a star", "blue ring"]):
        ids = default.tokenize([said])["input_ids"][0]
        assert torch.equal(out["input_ids"][row, : len(ids)], ids)
        assert int(out["attention_mask"][row].sum()) == len(ids)


def test_scenes_have_the_true_phrase_and_not_the_false() -> None:
    found = scene_texts(40, seed=2, size=48)
    for row, caption in enumerate(found.captions):
        scene, _ = draw_scene(2, "test", row, (1, 3))
        true, false = (caption[slice(*span)].split()[-2:] for span in (found.true[row], found.false[row]))
        assert any([thing.colour, thing.shape] == true for thing in scene.things)
        assert all(thing.colour != false[0] and thing.shape != false[1] for thing in scene.things)
        assert false[0] not in scene.background.split()
        assert HELD_OUT[false[0]] != false[1]
        assert caption.count(" and ") == 1
    firsts = [true[0] == 0 for true in found.true]
    assert 8 < sum(firsts) < 32
    assert scene_texts(7, seed=2, size=48).captions == found.captions[:7]
    assert {image.size for image in found.images} == {(48, 48)}


def world(captions: list[list[str]], kinds: list[str] | None = None) -> Collection:
    out = io.BytesIO()
    Image.new("RGB", (8, 6)).save(out, "PNG")
    cell = {"bytes": out.getvalue(), "path": None}
    columns = {
        "id": [str(row) for row in range(len(captions))],
        "image": pa.array([cell] * len(captions), pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "captions": pa.array(captions, pa.list_(pa.string())),
        "split": ["test"] * len(captions),
    }
    if kinds is not None:
        columns["caption_kinds"] = [kinds[: len(texts)] for texts in captions]
    return Collection(dataset_of(pa.table(columns)), "world")


def test_emoji_texts_join_phrases_that_share_nothing() -> None:
    told = [["red dog", "A red dog, running."], ["a cat", "a cat and a dog"], ["the", "of it"], ["dog house"], []]
    found = emoji_texts(60, seed=0, collection=world(told, ["short", "medium"]))
    joins = {
        (caption[slice(*t)], caption[slice(*f)])
        for caption, t, f in zip(found.captions, found.true, found.false, strict=True)
    }
    # A cat's picture shows a dog as well, so neither phrase about a dog is false of it.
    assert joins == {("red dog", "a cat"), ("dog house", "a cat")}
    assert {true[0] == 0 for true in found.true} == {True, False}
    assert emoji_texts(5, seed=0, collection=world(told, ["short", "medium"])).captions == found.captions[:5]
    untold = emoji_texts(9, seed=0, collection=world([["one long caption", "tree"], ["sun", "a red sun"]]))
    assert set(untold.captions) <= {"tree and sun", "sun and tree"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scene_texts(0, seed=0), "0 pairs"),
        (lambda: scene_texts(1, seed=0, objects=(0, 2)), "1 to 9 objects"),
        (lambda: scene_texts(1, seed=0, split="nowhere"), "no split 'nowhere'"),
        (lambda: emoji_texts(0, seed=0, collection=world([["dog"], ["cat"]])), "0 pictures"),
        (lambda: emoji_texts(1, seed=0, collection=world([["dog"], ["a dog"]])), r"world \(2 pictures\)"),
        (lambda: GroundedTexts([], ["a"], [], [], "none"), "0 images and 1 captions"),
        (lambda: GroundedTexts([Image.new("RGB", (4, 4))], ["a b"], [(0, 2)], [(1, 3)], "x"), "overlap"),
        (lambda: GroundedTexts([Image.new("RGB", (4, 4))], ["a b"], [(0, 1)], [(2, 9)], "x"), "3 characters"),
    ],
)
def test_texts_that_cannot_be_made_are_refused(call: Callable, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


@pytest.fixture
def small_options(tmp_path: Path) -> study.Options:
    folder = tmp_path / "photographs"
    (folder / "images").mkdir(parents=True)
    rows = []
    for row in range(3):
        Image.new("RGB", (60, 40 + row), (80 * row, 90, 20)).save(folder / "images" / f"{row}.jpg")
        rows.append({"file_name": f"{row}.jpg", "captions": [f"a red thing {row}", "a green thing"]})
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return study.Options(
        out=tmp_path / "out", seeds=(0, 1), n_pairs=2, worlds=("scenes",), methods=("nib",),
        photographs=folder, n_train=4, n_randomised=2, roar_steps=1,
    )  # fmt: skip


def test_the_study_runs_keeps_what_is_done_and_goes_on(small_options, capsys, monkeypatch) -> None:
    study.main(small_options)
    report = (small_options.out / "test" / "attribution.md").read_text()
    assert "### photographs" in capsys.readouterr().out
    assert report.count("### scenes") == 5
    assert report.count("### photographs") == 2
    assert "(2 pairs of test a seed, seeds 0, 1)" in report
    assert "| head | block -1 |" in report
    assert report.count("\n| nib |") == 7
    files = sorted(small_options.out.rglob("*.json"))
    assert len(files) == 2 * (4 + 2)
    files[0].unlink()
    done: list[str] = []
    monkeypatch.setitem(study.RUNS, "image", lambda *given: done.append(given[1]) or study.run_image(*given))
    study.main(small_options)
    assert len(done) == 1
    assert files[0].is_file()
    settings = json.loads(files[0].read_text())
    files[0].write_text(json.dumps({**settings, "settings": {}}))
    with pytest.raises(ArtefactError, match="other settings"):
        study.main(small_options)


def test_the_study_refuses_unknown_names_and_empty_folders(tmp_path) -> None:
    with pytest.raises(InputError, match="no 'nowhere'"):
        study.main(study.Options(worlds=("nowhere",)))
    with pytest.raises(InputError, match="no 'shap'"):
        study.main(study.Options(methods=("shap",)))
    with pytest.raises(InputError, match=r"captions\.jsonl"):
        study.photographs(tmp_path, 3, 0)


def test_emoji_of_the_study_are_those_of_all_tests(monkeypatch) -> None:
    told = world([["dog"], ["cat"], ["sun"], ["tree"], ["house"], ["star"]])
    splits = ["test-style", "train", "test-style", "test-combination", "validation", "test-style"]
    table = told.dataset.remove_columns("split").add_column("split", splits)
    monkeypatch.setattr(study, "load_emoji", lambda: Collection(table, "emoji"))
    study.emoji_of.cache_clear()
    try:
        assert study.emoji_of("test").ids == ["0", "2", "3", "5"]
        assert study.emoji_of("train").ids == ["1"]
        pairs = study.WORLDS["emoji"].pairs(3, 0, "test")
        assert {*pairs.captions, *pairs.other_captions} <= {"dog", "sun", "tree", "star"}
        assert len(study.WORLDS["emoji"].texts(3, 0, "test")) == 3
    finally:
        study.emoji_of.cache_clear()


def test_rows_of_the_study_are_methods_there_are(default) -> None:
    for name, options in study.ROWS.values():
        study.engines_of({"row": (name, options)}, default.towers(), 4)
    published = study.engines_of({"row": study.ROWS["m2ib, as published"]}, hf_towers(default.model), 4)["row"]
    assert isinstance(published, M2IB)
    assert (published.noise, published.n_samples) == ("iid", 10)
