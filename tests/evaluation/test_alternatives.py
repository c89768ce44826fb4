"""What needs no training beside an editor that is fitted: the bank, what is chosen where, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from boresight.editing import CaptionEditor, CorrectedScorer, PlainScorer
from boresight.embeddings import Embeddings
from boresight.errors import ArtefactError, InputError
from boresight.evaluation import evaluate_editor, evaluate_retrieval
from boresight.evaluation.alternatives import _bank_and_choice, judge_editor, untrained_alternatives
from editing_world import WIDTH, quiet, sae_fixture  # noqa: F401
from retrieval_world import noisy

ALL = ["plain", "plain, NNN", "plain, Sinkhorn", "edited"]


@pytest.fixture(scope="module")
def whole():
    parts = [noisy(count, 1.0, seed, width=WIDTH) for seed, count in ((5, 300), (6, 80), (7, 60))]
    offsets = np.cumsum([0, 300, 80])
    return Embeddings.from_arrays(
        torch.cat([part.images for part in parts]),
        torch.cat([part.texts for part in parts]),
        torch.cat([part.owners + int(by) for part, by in zip(parts, offsets, strict=True)]),
        splits=["train"] * 300 + ["validation"] * 80 + ["test"] * 60,
        name="whole",
    )


@pytest.fixture(scope="module")
def editor(whole, sae):
    return CaptionEditor.fit(sae, whole, steps=20, length_exponent=0, memory="both", form="gated")


@pytest.fixture(scope="module")
def forgetful(whole, sae):
    return CaptionEditor.fit(sae, whole, steps=5, length_exponent=0, memory="none", form="gated")


def test_an_editor_stands_beside_what_needs_no_training(whole, editor):
    scores, said = evaluate_editor(whole, editor)
    assert list(scores) == ALL
    assert scores["edited"].values == evaluate_retrieval(whole.test, editor).values
    assert scores["plain"].values == evaluate_retrieval(whole.test).values
    by_train = CorrectedScorer.fit(PlainScorer(), whole.train, whole.validation, "nnn")
    assert scores["plain, NNN"]["T2I R@1"] == pytest.approx(evaluate_retrieval(whole.test, by_train)["T2I R@1"], abs=2)
    assert said.ours == pytest.approx(scores["edited"].recall_sum)
    assert said.theirs == pytest.approx(max(score.recall_sum for name, score in scores.items() if name != "edited"))
    assert any("'boresight compare' trains it" in warning for warning in said.warnings)
    assert not any("remembered" in warning for warning in said.warnings)
    assert list(said.chosen) == ["plain, NNN", "plain, Sinkhorn", "bank", "chosen on"]
    assert said.chosen["bank"] == "300 pairs that the editor remembers"
    assert said.chosen["chosen on"] == "the split 'validation' of whole, 80 images"
    rule = by_train.text_rule
    if rule.share:
        assert f"{rule.share:g} of the mean over the {rule.reach:g} nearest off captions" in said.chosen["plain, NNN"]
    assert str(said).endswith("chosen on: the split 'validation' of whole, 80 images")


def test_what_is_remembered_or_fitted_on_is_counted(whole, editor):
    _, said = evaluate_editor(whole, editor, "train")
    assert any(warning.startswith("300 of 300 test images were fitted") for warning in said.warnings)
    rows = [*range(5), *range(300, 440)]
    mixed = replace(whole.select(rows), splits=["test"] * 5 + ["validation"] * 80 + ["test"] * 60)
    _, said = evaluate_editor(mixed, editor)  # the split 'train' is not there, the memory is
    assert any(warning.startswith("5 of 65 test images were fitted") for warning in said.warnings)
    _, said = evaluate_editor(replace(whole.validation, splits=["test"] * 80), editor, bank=whole)
    assert any(warning.startswith("80 of 80 test images were fitted") for warning in said.warnings)


def test_splits_of_other_names_that_it_was_fitted_on_are_warned_of(whole, sae, tmp_path):
    names = {"train": "mine", "validation": "to choose", "test": "new"}
    renamed = replace(whole, splits=[names[split] for split in whole.splits])
    parts = renamed.split("mine"), renamed.split("to choose")
    CaptionEditor.fit(sae, *parts, steps=2, length_exponent=0, memory="none", form="gated").save(tmp_path / "e")
    editor = CaptionEditor.load(tmp_path / "e")
    assert editor.fitted_on == {"mine", "to choose"}
    for split, known in (("mine", True), ("to choose", True), ("new", False)):
        notes = evaluate_editor(renamed, editor, split)[1].warnings
        assert any("images were fitted or chosen on" in note for note in notes) == known, split


def test_without_a_validation_set_it_is_chosen_on_a_part_of_what_is_remembered(whole, editor):
    scores, said = evaluate_editor(whole.test, editor)
    assert list(scores) == ALL
    assert said.chosen["bank"] == "225 pairs that the editor remembers"
    assert said.chosen["chosen on"] == "75 other pairs that the editor remembers, for want of a validation set"
    bank, _, held, _ = _bank_and_choice(editor, None)
    apart = {row.numpy().tobytes() for row in bank.images} & {row.numpy().tobytes() for row in held.images}
    assert (len(bank), len(held), apart) == (225, 75, set())
    memory = editor.memory.images.float()
    assert torch.equal(torch.cat([bank.images, held.images]).sum(0).half(), memory.sum(0).half())
    wrong = replace(whole.test, texts=whole.test.texts.flip(0))
    assert evaluate_editor(wrong, editor)[1].chosen == said.chosen  # the test set chooses nothing


def test_without_pairs_plain_stands_alone_and_it_says_so(whole, editor, forgetful):
    scores, said = evaluate_editor(whole.test, forgetful)
    assert list(scores) == ["plain", "edited"]
    said_so = [warning for warning in said.warnings if "without a correction of hubness" in warning]
    assert len(said_so) == 1
    assert "the editor remembers 0 pairs" in said_so[0]
    assert "with the splits 'train' and 'validation'; pass some as `bank`." in said_so[0]
    assert said.chosen == {}
    assert list(evaluate_editor(whole, forgetful)[0]) == ALL
    scores, said = evaluate_editor(whole.test, forgetful, bank=whole)
    assert list(scores) == ALL
    assert said.chosen["bank"] == "300 pairs of the split 'train' of whole"
    held = whole.select(range(300, 440))
    _, said = evaluate_editor(held, forgetful)
    assert any("the editor remembers 0 pairs" in warning for warning in said.warnings)
    assert evaluate_editor(held, editor)[1].chosen["bank"] == "300 pairs that the editor remembers"


def test_a_bank_must_have_pairs_to_choose_on_and_be_of_the_encoder(whole, editor):
    with pytest.raises(InputError, match="The bank whole has no split 'validation' to choose on; present: train"):
        evaluate_editor(whole, editor, bank=whole.train)
    with pytest.raises(ArtefactError, match="wide"):
        evaluate_editor(whole, editor, bank=replace(noisy(30, 1.0, width=4), splits=["validation"] * 30))


def test_an_editor_of_another_width_is_refused(editor):
    narrow = replace(noisy(30, 1.0, width=4), splits=["test"] * 30)
    with pytest.raises(ArtefactError, match="wide"):
        evaluate_editor(narrow, editor)


def test_a_verdict_over_galleries(whole, editor):
    galleries = [whole.test.select(range(30)), whole.test.select(range(30, 60))]
    alternatives = untrained_alternatives(editor)
    scores, said = judge_editor(galleries, editor, alternatives, fitted=[])
    assert [len(each) for each in scores.values()] == [2] * 4
    for name, scorer in alternatives.scorers.items():
        assert scores[name][1].values == evaluate_retrieval(galleries[1], scorer).values
    assert said.ours == pytest.approx(np.mean([each.recall_sum for each in scores["edited"]]))
