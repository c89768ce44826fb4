"""A mask and a scorer of the user's own, against editors and scorers that come along."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import boresight as bs
from boresight.editing import CaptionEditor, CorrectedScorer, EditorConfig, PlainScorer, Scorer
from boresight.editing.model import reference_edit
from boresight.errors import InputError
from boresight.evaluation import evaluate_attack
from editing_world import ATTRIBUTES, WIDTH, quiet, sae_fixture, world  # noqa: F401
from retrieval_world import noisy


def nearest(sae) -> object:
    """A mask that keeps the latents whose directions point the caption's way."""
    return lambda texts: (4 * texts @ sae.directions.T).sigmoid()


FORMS = [("residual", 0.0), ("residual", 1.0), ("reconstruct", 1.0), ("gated", 1.0)]


@pytest.mark.parametrize(("form", "exponent"), FORMS)
def test_a_mask_of_your_own(sae, form: str, exponent: float) -> None:
    """Every score is the reference's with the callable's values for the mask."""
    mask, test = nearest(sae), world(sae, 12, 3)
    editor = CaptionEditor(sae, EditorConfig(form=form, length_exponent=exponent), mask=mask)
    assert editor.config.mask == "own"
    torch.testing.assert_close(editor.mask(test.texts), mask(F.normalize(test.texts, dim=1)))
    scores = editor.score(test.images, test.texts)
    for row, image in enumerate(test.images):
        for column, text in enumerate(test.texts):
            assert float(scores[row, column]) == pytest.approx(float(reference_edit(editor, image, text)[1]), abs=1e-5)
    assert bs.evaluate_retrieval(test, editor).counts["images"] == 12
    assert len(editor.explain_edit(test.images[0], test.texts[0]).latents) == sae.k
    assert editor.control("random").score(test.images, test.texts).shape == scores.shape


def test_around_a_mask_of_your_own_the_rest_is_fitted(sae, tmp_path) -> None:
    train, validation = world(sae, 60, 0), world(sae, 30, 1)
    mask = nearest(sae)
    editor = CaptionEditor.fit(sae, train, validation, mask=mask, steps=20)
    assert editor.config.mask == "own"
    assert editor.config.teacher == "contrast"
    torch.testing.assert_close(editor.mask(train.texts), mask(F.normalize(train.texts, dim=1)))
    editor.save(tmp_path / "editor")
    with pytest.raises(InputError, match=r"editor was saved without its mask, one of your own; pass the callable as"):
        CaptionEditor.load(tmp_path / "editor")
    again = CaptionEditor.load(tmp_path / "editor", mask=mask)
    torch.testing.assert_close(again.score(train.images, train.texts), editor.score(train.images, train.texts))


def test_a_module_is_trained_in_a_copy(sae) -> None:
    class Learnt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(WIDTH, ATTRIBUTES)
            nn.init.zeros_(self.layer.weight)
            self.layer.bias.data = torch.tensor([3.0, -3.0]).repeat(ATTRIBUTES // 2)  # a half, whatever the caption

        def forward(self, texts):
            return self.layer(texts).sigmoid()

    mask = Learnt()
    before = mask.layer.weight.detach().clone()
    train, validation = world(sae, 60, 0), world(sae, 30, 1)
    options = {"form": "reconstruct", "length_exponent": 1.0, "mask_learning_rate": 0.05}
    editor = CaptionEditor.fit(sae, train, validation, mask=mask, steps=200, **options)
    assert torch.equal(mask.layer.weight, before)
    assert not torch.equal(editor.mask_network.mask.layer.weight, before)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (
            lambda texts: torch.ones(len(texts), 3),
            r"gave a tensor \(1, 3\) of 1 captions; a tensor \(1, 48\) is needed",
        ),
        (lambda texts: [1.0], "gave a list of 1 captions"),
        (lambda texts: torch.full((len(texts), ATTRIBUTES), 2.0), r"outside \[0, 1\], or NaN"),
        (lambda texts: torch.full((len(texts), ATTRIBUTES), torch.nan), r"outside \[0, 1\], or NaN"),
    ],
)
def test_what_is_no_mask(sae, mask, said: str) -> None:
    with pytest.raises(InputError, match=said):
        CaptionEditor(sae, EditorConfig(form="residual"), mask=mask).mask(torch.ones(1, WIDTH))


def test_a_mask_of_your_own_is_named_by_no_word(sae) -> None:
    with pytest.raises(InputError, match="The mask 'own' is a callable of yours; pass it as `mask`"):
        CaptionEditor(sae, EditorConfig(form="residual", mask="own"))
    train, validation = world(sae, 60, 0), world(sae, 30, 1)
    with pytest.raises(InputError, match="A mask of your own says itself what it keeps"):
        CaptionEditor.fit(sae, train, validation, mask=nearest(sae), teacher="presence")
    for given in (True, torch.ones(3)):
        with pytest.raises(InputError, match="mask"):
            CaptionEditor.fit(sae, train, validation, mask=given)


class Cosine(Scorer):
    """With three methods alone, and bare tensors for what is prepared."""

    def prepare_images(self, images):
        return F.normalize(images, dim=1)

    def prepare_texts(self, texts):
        return F.normalize(texts, dim=1)

    def score_prepared(self, images, texts):
        return images @ texts.T


@pytest.mark.parametrize("inference", [False, True])
def test_a_scorer_of_your_own_goes_wherever_the_plain_one_goes(inference: bool) -> None:
    test, train, validation = noisy(40, 0.8), noisy(80, 0.8, seed=1), noisy(40, 0.8, seed=2)
    both = {}
    with torch.inference_mode(inference):
        for scorer in (Cosine(), PlainScorer()):
            corrected = CorrectedScorer.fit(scorer, train, validation, "nnn")
            both[type(scorer)] = [
                bs.evaluate_retrieval(test, scorer).values,
                bs.evaluate_retrieval(test, corrected).values,
                evaluate_attack(test, test.texts[:5], [0, 1, 2, 3, 4], corrected, side="texts").values,
            ]
    assert both[Cosine] == both[PlainScorer]


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_loop_of_the_guide_gives_plain_numbers(sae, inference: bool, dtype: torch.dtype) -> None:
    """Of a fitted editor and of a loaded one: no graph grows along with the scores."""
    editor = CaptionEditor.fit(sae, world(sae, 60, 0), world(sae, 30, 1), steps=20)
    test = world(sae, 20, 2)
    images, texts = test.images.to(dtype), test.texts.to(dtype)
    with torch.inference_mode(inference):
        prepared = editor.prepare_images(images)
        blocks = [editor.score_prepared(prepared, editor.prepare_texts(block)) for block in texts.split(7)]
    assert not any(block.requires_grad for block in blocks)
    torch.testing.assert_close(torch.cat(blocks, 1), editor.score(images, texts))
    editor.requires_grad_(True)
    assert editor.score_prepared(editor.prepare_images(images), editor.prepare_texts(texts)).requires_grad
