"""The comparison end to end on a small world: every row, the controls, interruption and resumption."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from boresight.editing import CaptionEditor, EditorFit
from boresight.embeddings import Embeddings
from boresight.errors import ArtefactError, InputError
from boresight.evaluation import compare, evaluate_retrieval, pick_examples, pick_latents
from boresight.evaluation import comparison as module
from boresight.evaluation.comparison_rows import (
    ALTERNATIVES,
    CHANCE,
    EDITED,
    EDITED_SHOWN,
    PLAIN,
    PLAIN_NNN,
    ROWS,
    SHUFFLED,
)
from boresight.evaluation.retrieval import RECALLS
from boresight.runs import JOURNAL
from boresight.sae import SparseAutoencoder, name_latents

WIDTH, CONCEPTS = 24, 40


def world(n, seed, name="world") -> Embeddings:
    """Images hold five concepts each; a caption tells of two or four of them, in a space a little askew."""
    fixed = np.random.default_rng(7)
    concepts = fixed.normal(size=(CONCEPTS, WIDTH))
    askew = np.eye(WIDTH) + 0.2 * fixed.normal(size=(WIDTH, WIDTH))
    draw = np.random.default_rng(seed)
    held = np.stack([draw.permutation(CONCEPTS)[:5] for _ in range(n)])
    images = concepts[held].sum(1) + 0.1 * draw.normal(size=(n, WIDTH))
    texts = np.stack([concepts[row[:size]].sum(0) for row in held for size in (2, 4)]) @ askew
    captions = [f"{size} of {row.tolist()}" for row in held for size in (2, 4)]
    as_floats = [rows.astype(np.float32) for rows in (images, texts)]
    ids = [f"{seed}-{row}" for row in range(n)]
    return Embeddings.from_arrays(*as_floats, np.repeat(np.arange(n), 2), ids=ids, captions=captions, name=name)


@pytest.fixture(scope="module", autouse=True)
def quick_masks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("boresight.editing.presence.STEPS", 30)
        yield


@pytest.fixture(scope="module")
def sets():
    return world(240, 0), world(60, 1), {"first": world(80, 2), "second": world(50, 3)}


OPTIONS = {
    "seeds": (0, 1),
    "n_latents": 48,
    "k": 6,
    "sae_options": {"steps": 30, "batch_size": 64},
    "editor_options": {"steps": 15, "batch_size": 64, "learning_rate": 5e-3, "mask_learning_rate": 2e-2},
    "kinds": {"first": ["short", "long"] * 80},
}


@pytest.fixture(scope="module")
def finished(sets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    return compare(*sets, **OPTIONS, folder=folder), folder


def test_every_row_is_measured_for_every_set_and_seed(finished, sets):
    found, _ = finished
    assert [row.name for row in found.rows] == [row.name for row in ROWS]
    for test in ("first", "second"):
        for row in ROWS:
            seeds = ["-"] if row in (PLAIN, CHANCE) else ["0", "1"]
            assert list(found.figures[test][row.name]) == seeds
    assert found.tests[0].kinds == {"short": 80, "long": 80}
    assert asdict(found)["tests"][0]["kinds"] == {"short": 80, "long": 80}
    assert set(found.measures) == {"0", "1"}
    assert found.figures["second"]["plain"]["-"] == evaluate_retrieval(sets[2]["second"]).to_dict()
    long = found.spread("first", "plain", "T2I R@1", "long").mean
    short = found.spread("first", "plain", "T2I R@1", "short").mean
    assert long > short
    assert "edited" in str(found)


def test_shuffled_images_are_at_chance_and_the_rest_is_not(finished):
    found, _ = finished
    for test, n in (("first", 80), ("second", 50)):
        expected = found.spread(test, CHANCE.name, "T2I R@10").mean
        assert expected == pytest.approx(100 * 10 / n)
        # Each caption hits with probability 10/n; two captions of an image and two seeds are not independent.
        spread = 100 * np.sqrt(0.1 * 0.9 / n)
        assert abs(found.spread(test, SHUFFLED.name, "T2I R@10").mean - expected) < 4 * spread
        assert found.spread(test, EDITED.name, "T2I R@10").mean > expected + 10 * spread


def test_options_of_the_editor_are_those_of_its_fit(sets):
    """An option that there is not is refused in a sentence, and an editor without a form that shows has no such row."""
    quick = {**OPTIONS, "seeds": (0,), "kinds": None, "rows": (EDITED, EDITED_SHOWN)}
    with pytest.raises(InputError, match="There is no option 'rate'; choose from"):
        compare(*sets, **{**quick, "editor_options": {"rate": 1.0}})
    for options in ({"config": EditorFit(teacher="contrast", steps=2)}, {"teacher": "contrast", "steps": 2}):
        found = compare(*sets, **{**quick, "editor_options": options})
        assert EDITED_SHOWN not in found.rows
        assert EDITED in found.rows


def test_rows_are_different_scorers(finished):
    found, _ = finished
    figures = [json.dumps(next(iter(found.figures["first"][row.name].values()))) for row in ROWS]
    assert len(set(figures)) == len(figures)


def test_what_is_finished_is_not_done_again(finished, sets, monkeypatch):
    found, folder = finished
    for kind in (CaptionEditor, SparseAutoencoder):
        monkeypatch.setattr(kind, "fit", None)
    again = compare(*sets, **OPTIONS, folder=folder)
    assert again.figures == found.figures
    assert again.measures == found.measures
    assert again.verdicts == found.verdicts


def test_the_verdict_is_on_edited_and_the_best_alternative(finished):
    found, folder = finished
    assert list(found.verdicts) == ["first", "second"]
    for test, said in found.verdicts.items():
        sums = {
            row.name: sum(found.spread(test, row.name, measure).mean for measure in RECALLS)
            for row in (EDITED, *ALTERNATIVES)
        }
        assert said.ours == pytest.approx(sums.pop("edited"))
        assert said.theirs == pytest.approx(max(sums.values())) == pytest.approx(sums[said.rival])
        assert said.low <= said.difference <= said.high
        assert any("images; with under 200" in warning for warning in said.warnings)
        assert not any("fitted" in warning or "Not among" in warning for warning in said.warnings)
        assert str(found).endswith(f"second: {found.verdicts['second']}")
        assert f"{test}: The edit " in str(found)
        assert asdict(found)["verdicts"][test]["word"] in ("helps", "level", "hurts")
    arrays = [np.load(file) for file in (folder / "hits").iterdir()]
    assert sorted(len(array) for array in arrays) == [50] * 13 + [80] * 13  # plain once, the others for each seed


def test_a_test_set_that_is_not_whole_says_so_beside_its_figures(finished, sets, tmp_path):
    train, validation, tests = sets
    entry = {"what": "unreadable picture", "count": 3, "split": "all"}
    holed = {name: replace(held, manifest={**held.manifest, "left_out": [entry]}) for name, held in tests.items()}
    shutil.copytree(finished[1], tmp_path / "kept")
    found = compare(train, validation, holed, **OPTIONS, folder=tmp_path / "kept")
    assert "second: 50 images, 100 captions; recall in %" in str(found)
    assert str(found).count("\nleft out: 3 x unreadable picture\n") == 2
    assert any("not whole" in warning for warning in found.verdicts["first"].warnings)


def test_hits_that_are_gone_are_taken_again_and_torn_ones_are_named(finished, sets, tmp_path):
    train, validation, tests = sets
    only = [PLAIN_NNN, EDITED]
    options = OPTIONS | {"seeds": (0,), "kinds": None, "folder": tmp_path, "rows": only}
    found = compare(train, validation, {"second": tests["second"]}, **options)
    assert found.verdicts["second"].warnings[-1] == (
        "Not among the alternatives: 'plain, Sinkhorn', 'text fine-tuning', 'text fine-tuning, NNN', "
        "'text fine-tuning, Sinkhorn'."
    )
    kept = sorted((tmp_path / "hits").iterdir())
    assert len(kept) == 3
    for file in kept[:2]:
        file.unlink()
    again = compare(train, validation, {"second": tests["second"]}, **options)
    assert (again.verdicts, again.figures) == (found.verdicts, found.figures)
    kept[0].write_bytes(b"torn")
    with pytest.raises(ArtefactError, match="cannot be read; delete it and run the same again"):
        compare(train, validation, {"second": tests["second"]}, **options)
    assert compare(train, validation, tests, **OPTIONS | {"seeds": (0,), "rows": [PLAIN]}).verdicts == {}


def test_a_picture_under_another_id_is_warned_of(sets):
    train, validation, tests = sets
    test = tests["second"]
    twin = replace(test, images=torch.cat([test.images[:-2], train.images[:1], validation.images[:1]]))
    options = OPTIONS | {"seeds": (0,), "kinds": None, "rows": [EDITED]}
    said = compare(train, validation, {"twin": twin}, **options).verdicts["twin"]
    assert "2 of 50 test images were fitted or chosen on, or are remembered; test on others." in said.warnings


def figures_in(folder):
    """Test set, row and seed of what the journal holds."""
    lines = map(json.loads, (folder / JOURNAL).read_text().splitlines())
    return [line["figure"] for line in lines if "figure" in line]


def test_goes_on_after_an_interruption_to_the_same_figures(finished, sets, tmp_path, monkeypatch):
    found, _ = finished
    calls = []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 33:
            raise KeyboardInterrupt
        return evaluate_retrieval(*arguments, **options)

    monkeypatch.setattr(module, "evaluate_retrieval", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(*sets, **OPTIONS, folder=tmp_path)
    assert 0 < len(figures_in(tmp_path)) < 64
    before = len(calls)
    assert compare(*sets, **OPTIONS, folder=tmp_path).figures == found.figures
    assert len(calls) - before < 64 - 27


def test_other_settings_start_anew(finished, sets, tmp_path):
    (tmp_path / JOURNAL).write_text((finished[1] / JOURNAL).read_text())
    train, validation, tests = sets
    options = OPTIONS | {"seeds": (0,), "kinds": None}
    found = compare(train, validation, {"second": tests["second"]}, **options, folder=tmp_path)
    assert list(found.figures) == ["second"]
    assert {test for test, *_ in figures_in(tmp_path)} == {"second"}


def test_the_editor_that_was_kept_gives_the_figures(finished, sets):
    found, folder = finished
    editor = CaptionEditor.load(folder / "seed-1" / "edited")
    again = evaluate_retrieval(sets[2]["second"], editor).to_dict()
    assert again == pytest.approx(found.figures["second"]["edited"]["1"])


def test_unusable_input_is_refused_in_a_sentence(sets):
    train, validation, tests = sets
    with pytest.raises(InputError, match="at least one test set and one seed"):
        compare(train, validation, {}, **OPTIONS)
    with pytest.raises(InputError, match="seeds 0, 0 repeat"):
        compare(train, validation, tests, seeds=(0, 0))
    with pytest.raises(
        InputError, match="kinds are given for 'third', which is no test set; the test sets: first, second"
    ):
        compare(train, validation, tests, kinds={"third": []})
    with pytest.raises(InputError, match="kinds of 'first' has 1 entries and the set has 160 captions"):
        compare(train, validation, tests, kinds={"first": ["short"]})


def test_a_test_image_may_not_be_fitted_or_chosen_on(sets):
    train, validation, _ = sets
    for part, name in ((train, "training"), (validation, "validation")):
        with pytest.raises(InputError, match=f"is in both {name} and 'first'"):
            compare(train, validation, {"first": part}, seeds=(0,))


def test_examples_follow_their_rules(finished, sets):
    test = sets[2]["first"]
    editor = CaptionEditor.load(finished[1] / "seed-0" / "edited")
    names = ["" if latent % 2 else f"name {latent}" for latent in range(48)]
    examples = pick_examples(test, editor, names, kinds=["short", "long"] * 80, per_rule=2)
    assert examples == pick_examples(test, editor, names, kinds=["short", "long"] * 80, per_rule=2)
    before, after = evaluate_retrieval(test).t2i_ranks, evaluate_retrieval(test, editor).t2i_ranks
    change = 1 / after - 1 / before
    gains = [example for example in examples if example.rule == "largest gain"]
    losses = [example for example in examples if example.rule == "largest loss"]
    assert gains
    assert 1 / gains[0].ranks["edited"] - 1 / gains[0].ranks["plain"] == pytest.approx(change.max())
    assert all(example.ranks["edited"] > example.ranks["plain"] for example in losses)
    assert sum(example.rule == "drawn at random" for example in examples) == 2
    assert len({example.image_id for example in examples}) == len(examples)
    for example in examples:
        for places, rank in ((example.rankings[way], example.ranks[way]) for way in ("plain", "edited")):
            assert [place.rank for place in places if place.right] == [round(rank)]
            assert [place.rank for place in places[:5]] == [1, 2, 3, 4, 5]
        assert example.kind == ("short" if example.caption.startswith("2") else "long")
        assert {latent.name for latent in example.explanation.latents} <= {*names}
        assert not any(pair.captions for pair in example.explanation.image_memory)
        assert example.shown.edited_score == pytest.approx(sum(example.shown.parts.values()), abs=1e-5)


def test_examples_know_names_words_and_the_form_that_shows(finished, sets):
    train, _, tests = sets
    folder = finished[1] / "seed-0"
    sae, editor = SparseAutoencoder.load(folder / "sae"), CaptionEditor.load(folder / "edited")
    certainty = torch.linspace(0.1, 0.9, 48)
    names = replace(
        name_latents(sae, embeddings=train), names=[f"name {row}" for row in range(48)], certainty=certainty
    )
    options = {"remembered": train, "per_rule": 1}
    for example in pick_examples(tests["first"], editor, names, **options):
        for latent in (*example.explanation.latents, *example.shown.latents):
            assert latent.certainty == pytest.approx(float(certainty[latent.index]))
        assert all(pair.captions for pair in example.explanation.image_memory)
        image = tests["first"].images[tests["first"].ids.index(example.image_id)]
        alone = editor.shown.explain_edit(image, tests["first"].texts[example.row])
        assert example.shown.edited_score == alone.edited_score
        assert example.shown.edited_score == pytest.approx(sum(example.shown.parts.values()), abs=1e-5)
    for card in pick_latents(tests["first"], sae, names, count=5, top=3):
        assert (card.certainty, card.source) == (pytest.approx(float(certainty[card.latent])), "captions")
    by_contrast = CaptionEditor.fit(sae, *sets[:2], teacher="contrast", steps=2)
    assert {example.shown for example in pick_examples(tests["first"], by_contrast, per_rule=1)} == {None}
    unnamed = pick_latents(tests["first"], sae, replace(names, names=[""] * 48), count=5, top=3)
    assert {card.certainty for card in unnamed} == {None}


def test_latents_are_shown_with_the_images_in_which_they_are_strongest(finished, sets):
    test = sets[2]["first"]
    sae = SparseAutoencoder.load(finished[1] / "seed-0" / "sae")
    cards = pick_latents(test, sae, ["first name", *[""] * 47], count=5, top=3)
    codes = sae.encode(test.images).dense()
    assert len(cards) == 5
    for card in cards:
        strength = codes[:, card.latent]
        rows = [test.ids.index(name) for name in card.image_ids]
        assert card.share == pytest.approx(float((strength > 0).float().mean()))
        assert torch.equal(strength[rows], strength.topk(3).values)
        assert card.name == ("first name" if card.latent == 0 else f"latent {card.latent}")
    assert pick_latents(test, sae, (), top=81) == []


def test_an_editor_of_another_encoder_or_width_is_refused(finished, sets):
    editor = CaptionEditor.load(finished[1] / "seed-0" / "edited")
    narrow = Embeddings.from_arrays(np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32), range(4))
    with pytest.raises(ArtefactError, match="width 24 and these embeddings are 4 wide"):
        evaluate_retrieval(narrow, editor)
