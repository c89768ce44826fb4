"""The study of attribution: its worlds of known truth, phrases, retraining, and how it goes on."""

from __future__ import annotations

import copy
import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import Tensor

import attribution as study
from attribution_figures import PHRASES, AttributionRuns, phrase_figures
from boresight.attribution import M2IB, explain
from boresight.attribution.localisation import (
    patch_cover,
)
from boresight.attribution.methods.registry import make_method
from boresight.data.assemble import dataset_of
from boresight.data.collection import Collection
from boresight.data.worlds.scene_world import HELD_OUT, draw_scene
from boresight.errors import ArtefactError, InputError
from boresight.training.model_folder import save_model
from command_line import SHAPE
from encoder_fixtures import default_fixture, tiny_fixture  # noqa: F401
from remove_and_retrain import remove_and_retrain
from worlds.collages import emoji_pairs
from worlds.phrases import GroundedTexts, emoji_texts, scene_texts
from worlds.small_clip import small_clip, small_processor, train_tokenizer


@pytest.fixture(scope="module")
def texts() -> GroundedTexts:
    return scene_texts(3, seed=0)


def test_phrases_are_told_apart_as_by_hand(default, texts) -> None:
    found = explain(default, texts.images, texts.captions, method="occlusion", target="text", seed=3)
    figures = phrase_figures(default, texts, {"occlusion": {}}, seed=3)
    for row in range(len(texts)):
        said = default.tokenized([texts.captions[row]]).tokens[0]

        def weights(span: tuple[int, int], said=said, row=row) -> list[float]:
            inside = [place for place, token in enumerate(said) if token.end > span[0] and token.start < span[1]]
            return [float(found.text[row, place]) for place in inside if not said[place].special]

        true, false = weights(texts.true[row]), weights(texts.false[row])
        assert len(true) == len(texts.captions[row][slice(*texts.true[row])].split())
        auc = np.mean([(a > b) + (a == b) / 2 for a in true for b in false])
        told = figures["occlusion"]
        assert float(told["phrase_auc"][row]) == pytest.approx(auc)
        best = max(found.words[row], key=lambda word: word.weight)
        at = said[best.tokens[0]].start
        assert float(told["top_word"][row]) == (texts.true[row][0] <= at < texts.true[row][1])
        assert float(told["top_word_chance"][row]) == pytest.approx(len(true) / len(found.words[row]))


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


def numbered_pictures(captions: list[list[str]], kinds: list[str] | None = None) -> Collection:
    """Plain pictures of 6 x 8 pixels, red and green telling the number."""
    pictures = []
    for row in range(len(captions)):
        out = io.BytesIO()
        Image.new("RGB", (8, 6), (10 * row, 250 - 10 * row, 0)).save(out, "PNG")
        pictures.append({"bytes": out.getvalue(), "path": None})
    columns = {
        "id": [str(row) for row in range(len(captions))],
        "image": pa.array(pictures, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "captions": pa.array(captions, pa.list_(pa.string())),
        "split": ["test"] * len(captions),
    }
    if kinds is not None:
        columns["caption_kinds"] = [kinds[: len(texts)] for texts in captions]
    return Collection(dataset_of(pa.table(columns)), "world")


def test_collages_show_four_strangers_and_their_masks_the_told_one() -> None:
    told = [[f"kind {row // 2}", f"picture {row}", f"picture {row}, at length"] for row in range(14)]
    told[3] = ["Picture  2"]  # as good as shared with its neighbour
    told[13] = []
    pairs = emoji_pairs(40, seed=0, collection=numbered_pictures(told, ["short", "medium", "long"]), size=32)
    assert len(pairs) == 40
    for row in range(40):
        picture = np.array(pairs.images[row])
        shown = [int(picture[y, x, 0]) // 10 for y in (8, 24) for x in (8, 24)]
        assert len(set(shown)) == 4
        assert 13 not in shown
        assert len({text for image in shown for text in told[image]}) == sum(len(told[image]) for image in shown)
        assert not {2, 3} <= set(shown)
        sides = ((pairs.captions, pairs.targets), (pairs.other_captions, pairs.distractors))
        quarters = []
        for captions, masks in sides:
            cover = patch_cover(masks[row : row + 1], (2, 2)).flatten()
            assert sorted(cover.tolist()) == [0, 0, 0, 1]
            quarters.append(int(cover.argmax()))
            texts = told[shown[quarters[-1]]]
            assert captions[row] in (texts[1:] or texts)
        assert quarters[0] != quarters[1]
    assert len({int(patch_cover(mask[None], (2, 2)).argmax()) for mask in pairs.targets}) == 4
    assert (
        emoji_pairs(8, seed=0, collection=numbered_pictures(told, ["short", "medium", "long"])).captions
        == pairs.captions[:8]
    )
    assert len(emoji_pairs(3, seed=0, collection=numbered_pictures([["a"], ["b"], ["c"], ["d"]]))) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: emoji_pairs(0, seed=0, collection=numbered_pictures([["a"]] * 4)), "0 collages"),
        (lambda: emoji_pairs(1, seed=0, collection=numbered_pictures([["a"]] * 4), size=33), "even size"),
        (lambda: emoji_pairs(1, seed=0, collection=numbered_pictures([["a"]] * 9)), r"world \(9 pictures\)"),
        (lambda: emoji_pairs(1, seed=0, collection=numbered_pictures([["a"], ["b"], ["c"]])), "no four pictures"),
    ],
)
def test_collages_that_cannot_be_made_are_refused(call: Callable, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_figures_join_over_seeds() -> None:
    def run(shift: float) -> dict:
        values = [shift, 1 + shift, 1 + shift, shift]
        return {"m2ib": {"pointing_game": values, "image_seconds": values}, "random": {"iou": values}}

    runs = AttributionRuns([json.loads(json.dumps(run(shift))) for shift in (0.0, 0.1, 0.2)])
    assert runs.measures() == ["pointing_game", "iou", "image_seconds"]
    assert runs.spread("random", "iou").text(2) == "0.60 ± 0.10"
    with pytest.raises(InputError, match="no runs"):
        AttributionRuns([])


def test_words_of_controls_are_at_chance(default) -> None:
    methods = {"uniform": {}, "random": {}}
    found = phrase_figures(default, scene_texts(30, seed=4), methods, batch_size=32)
    assert (found["uniform"]["phrase_auc"] == 0.5).all()
    torch.testing.assert_close(found["uniform"]["top_word"], found["uniform"]["top_word_chance"])
    random = found["random"]["phrase_auc"]
    assert abs(float(random.mean()) - 0.5) < 3.5 * float(random.std()) / math.sqrt(len(random))
    assert set(found["random"]) == set(PHRASES)


def test_a_caption_cut_before_its_phrase_is_refused(default, texts) -> None:
    long = GroundedTexts(texts.images[:1], ["a " * 90 + "and a star"], [(0, 1)], [(184, 190)], "long")
    with pytest.raises(InputError, match="is cut before"):
        phrase_figures(default, long, {"uniform": {}})


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


def test_the_study_runs_keeps_what_is_done_and_goes_on(small_options, tmp_path, capsys, monkeypatch) -> None:
    shape = replace(SHAPE, image_layers=3, text_layers=3)
    tokenizer = train_tokenizer(["a red ring and a blue star on a green ground"], shape)
    processor = small_processor(tokenizer, shape)
    model = tmp_path / "model"
    save_model(model, small_clip(tokenizer, shape, 0), processor.tokenizer, processor.image_processor)
    monkeypatch.setattr(study, "default_model_path", lambda: model)
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
        make_method(name, default.towers(), **options)
    name, options = study.ROWS["m2ib, as published"]
    published = make_method(name, default, **options)
    assert isinstance(published, M2IB)
    assert (published.noise, published.n_samples) == ("iid", 10)
