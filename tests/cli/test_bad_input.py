"""Sets that are too small, too alike or too old for an edit: each is done all the same, or refused in a sentence."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boresight.editing import CaptionEditor, CorrectedScorer, PlainScorer
from boresight.editing.config import Correction
from boresight.editing.hubness import Bank
from boresight.embeddings import Embeddings
from boresight.errors import ArtefactError, InputError
from boresight.evaluation import compare, evaluate_editor, evaluate_retrieval, pick_examples
from boresight.sae import SparseAutoencoder
from collection_files import put_pictures
from command_line import boresight, refused
from editing_world import quiet, sae_fixture, world  # noqa: F401

SPLITS = ("train", "validation", "test")


def three_sets(sae, sizes=(60, 40, 40), captions=2) -> Embeddings:
    """One collection with the three splits."""
    parts = [world(sae, size, 30 + number, captions) for number, size in enumerate(sizes)]
    starts = [sum(sizes[:number]) for number in range(3)]
    return Embeddings.from_arrays(
        torch.cat([part.images for part in parts]),
        torch.cat([part.texts for part in parts]),
        torch.cat([part.owners + start for part, start in zip(parts, starts, strict=True)]),
        captions=[caption for part in parts for caption in part.captions],
        splits=[name for name, size in zip(SPLITS, sizes, strict=True) for _ in range(size)],
        name="photos",
        encoder="world",
    )


def repeating(embeddings: Embeddings, different: int) -> Embeddings:
    """The same with a few captions between all images."""
    of = torch.arange(len(embeddings.owners)) % different
    return replace(
        embeddings, texts=embeddings.texts[:different][of], captions=[f"caption {row}" for row in of.tolist()]
    )


def compared(embeddings: Embeddings):
    tests = {"test": embeddings.test}
    options = {"n_latents": 48, "k": 6, "editor_options": {"steps": 3}, "sae_options": {"steps": 5}}
    return compare(embeddings.train, embeddings.validation, tests, seeds=(0,), **options)


@pytest.fixture(scope="module", autouse=True)
def quick_masks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("boresight.editing.presence.STEPS", 20)
        yield


@pytest.fixture(scope="module")
def work(sae, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings, an autoencoder and an editor in a folder."""
    folder, whole = tmp_path_factory.mktemp("work"), three_sets(sae)
    whole.save(folder / "emb")
    sae.save(folder / "sae")
    CaptionEditor.fit(sae, whole, steps=3, form="gated", length_exponent=0.0).save(folder / "editor")
    return folder


def test_no_validation_set(sae, work: Path) -> None:
    bare = replace(three_sets(sae).train, splits=["train"] * 60)
    way_out = (
        "present: train. Choose one of these, name images 'validation' in `splits`, or embed with splits drawn anew"
    )
    with pytest.raises(InputError, match=f"The split 'validation' of photos is empty; {way_out}"):
        CaptionEditor.fit(sae, bare)
    with pytest.raises(InputError, match="validation set has 0 images and 1 are needed; check the splits"):
        CaptionEditor.fit(sae, bare, bare.select([]))
    bare.save(work / "bare")
    assert way_out in refused("editor", "bare", "--sae", "sae", "--out", "x", cwd=work)
    said = refused("compare", "bare", "--out", "x", cwd=work)
    assert "needs a split 'validation' and the collection has: train; name the splits so" in said
    assert not (work / "x").exists()
    code, out, err = boresight("evaluate", "bare", "--split", "train", "--editor", "editor", cwd=work)
    assert code == 0, err
    assert "60 of 60 test images were fitted or chosen on" in out
    assert "chosen on: 15 other pairs that the editor remembers, for want of a validation set" in out


def test_a_bank_smaller_than_k(sae, work: Path) -> None:
    plain, test = PlainScorer(), three_sets(sae).test
    few = Bank(plain.score_prepared, plain.prepare_images(test.images[:5]), plain.prepare_texts(test.texts[:5]))
    rule, sentence = Correction(reach=6, share=1), "The bank has 5 pairs and 6 neighbours are asked for; choose fewer."
    with pytest.raises(InputError, match=sentence):
        evaluate_retrieval(test, CorrectedScorer(plain, few, rule, Correction(reach=1, share=0)))
    with pytest.raises(InputError, match=sentence):
        evaluate_retrieval(test, CorrectedScorer(plain, few, Correction(reach=1, share=0), rule))
    for size in (1, 2, 5):  # what is chosen always fits
        chosen = CorrectedScorer.fit(plain, test.select(range(size)), three_sets(sae).validation, "nnn")
        assert max(chosen.image_rule.reach, chosen.text_rule.reach) <= size
    shutil.copytree(work / "editor", work / "greedy")
    manifest = json.loads((work / "greedy" / "manifest.json").read_text())
    manifest["config"]["image_correction"] = {"method": "nnn", "reach": 61, "share": 1}
    (work / "greedy" / "manifest.json").write_text(json.dumps(manifest))
    said = refused("evaluate", "emb", "--editor", "greedy", cwd=work)
    assert "The bank has 60 pairs and 61 neighbours are asked for; choose fewer." in said


def test_captions_that_repeat_across_images(sae, work: Path) -> None:
    whole = three_sets(sae)
    alike, sentence = (
        repeating(whole, 1),
        r"All \d+ captions of the training set read the same; give images their own\.",
    )
    for same in (alike, replace(alike, captions=None)):
        with pytest.raises(InputError, match=sentence):
            CaptionEditor.fit(sae, same)
    with pytest.raises(InputError, match="of the validation set read the same"):
        CaptionEditor.fit(sae, whole.train, alike.validation)
    alike.save(work / "alike")
    assert "captions of the training set read the same" in refused(
        "editor", "alike", "--sae", "sae", "--out", "x", cwd=work
    )
    few = repeating(whole, 7)
    editor = CaptionEditor.fit(sae, few, steps=3)
    _, said = evaluate_editor(few, editor)
    warning = "60 of 60 test captions read like one of another image, and nothing can tell which image such a caption"
    assert any(each.startswith(warning) for each in said.warnings)
    assert any(each.startswith(warning) for each in compared(few).verdicts["test"].warnings)
    assert not any("read like" in each for each in evaluate_editor(whole, editor)[1].warnings)
    few.save(work / "few")
    code, out, err = boresight("evaluate", "few", "--editor", "editor", cwd=work)
    assert code == 0, err
    assert warning in out


def test_one_caption_an_image(sae, work: Path) -> None:
    whole = three_sets(sae, captions=1)
    assert len(whole.owners) == len(whole)
    editor = CaptionEditor.fit(sae, whole, steps=3, memory="both")
    scores, _ = evaluate_editor(whole, editor)
    assert list(scores) == ["plain", "plain, NNN", "plain, Sinkhorn", "edited"]
    explained = pick_examples(whole.test, editor, remembered=whole.train)[0].explanation
    assert all(len(pair.captions) == 1 for pair in explained.image_memory)
    assert compared(whole).verdicts["test"].rival
    whole.save(work / "one")
    code, out, err = boresight("evaluate", "one", "--editor", "editor", cwd=work)
    assert code == 0, err
    assert "\nThe edit " in out


def test_five_images(sae, work: Path) -> None:
    whole = three_sets(sae, sizes=(5, 5, 5))
    SparseAutoencoder.fit(whole.train.images, n_latents=16, k=4, steps=5)
    editor = CaptionEditor.fit(sae, whole, steps=3, memory="both")
    _, said = evaluate_editor(whole, editor)
    assert "The test set has 5 images; with under 200 a few of them decide." in said.warnings
    assert said.chosen["bank"] == "5 pairs that the editor remembers"
    _, said = evaluate_editor(whole.test, editor)
    alone = "the editor remembers 5 pairs, of which 40 would do, and there are no embeddings with the splits"
    assert any(alone in warning and "pass some as `bank`" in warning for warning in said.warnings)
    assert pick_examples(whole.test, editor)
    assert "The test set has 5 images" in str(compared(whole))
    whole.save(work / "five")
    code, out, err = boresight("evaluate", "five", "--editor", "editor", cwd=work)
    assert code == 0, err
    assert "Warning: The test set has 5 images; with under 200 a few of them decide." in out


def test_an_editor_of_format_1(work: Path) -> None:
    put_pictures(work / "two", ("a.png", "b.png"))
    rows = [{"file_name": name, "captions": ["a thing"], "split": "test"} for name in ("a.png", "b.png")]
    (work / "two" / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    shutil.copytree(work / "editor", work / "old")
    manifest = json.loads((work / "old" / "manifest.json").read_text())
    (work / "old" / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))
    sentence = "old was written in format 1 and this version reads 2; make it again by the command that wrote it."
    with pytest.raises(ArtefactError, match=sentence):
        CaptionEditor.load(work / "old")
    for words in (
        ("evaluate", "emb", "--editor", "old"),
        ("evaluate", "retrieval", "--data", "two", "--editor", "old"),
        ("explain", "a.png", "a dog", "--editor", "old"),
    ):
        assert sentence in refused(*words, cwd=work)
