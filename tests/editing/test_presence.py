"""A mask that is taught what a caption tells, in a world where that is known, and the dials of its edit."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from boresight.editing import CaptionEditor, CorrectedScorer, EditorConfig, Scorer
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation import evaluate_retrieval
from boresight.sae import SparseAutoencoder
from boresight.sae.config import SaeConfig
from editing_world import quiet  # noqa: F401

CONCEPTS, SHOWN, TOLD = 96, 8, 2


def planted(seed: int, images: int, name: str) -> tuple[Embeddings, torch.Tensor, torch.Tensor]:
    """Images that sum SHOWN of CONCEPTS, captions that tell TOLD of these, turned a little; told and untold (N, C)."""
    fixed = torch.Generator().manual_seed(0)
    concepts = F.normalize(torch.randn(CONCEPTS, CONCEPTS, generator=fixed), dim=1)
    turn = torch.eye(CONCEPTS) + 0.03 * torch.randn(CONCEPTS, CONCEPTS, generator=fixed)
    gap = F.normalize(torch.randn(CONCEPTS, generator=fixed), dim=0)
    draw = torch.Generator().manual_seed(seed)
    shown = torch.rand(images, CONCEPTS, generator=draw).topk(SHOWN, dim=1).indices
    codes = torch.zeros(images, CONCEPTS).scatter(1, shown, 0.5 + torch.rand(images, SHOWN, generator=draw))
    told = torch.zeros(images, CONCEPTS, dtype=torch.bool).scatter(1, shown[:, :TOLD], True)
    texts = F.normalize(told.float() @ concepts, dim=1) @ turn.t() + gap
    texts = texts + 0.02 * torch.randn(images, CONCEPTS, generator=draw)
    names = [f"{name}{row}" for row in range(images)]
    return Embeddings.from_arrays(codes @ concepts, texts, range(images), ids=names), told, (codes > 0) & ~told


def planted_sae() -> SparseAutoencoder:
    """Its latents are the concepts; the encoder inverts their sum, so codes are right."""
    fixed = torch.Generator().manual_seed(0)
    concepts = F.normalize(torch.randn(CONCEPTS, CONCEPTS, generator=fixed), dim=1)
    sae = SparseAutoencoder(SaeConfig(width=CONCEPTS, n_latents=CONCEPTS, k=SHOWN))
    state = sae.state_dict()
    state["directions"], state["encoder_weight"] = concepts, torch.linalg.inv(concepts).t().contiguous()
    sae.load_state_dict(state)
    return sae


@pytest.fixture(scope="module")
def taught():
    sets = [planted(seed, images, name) for seed, images, name in ((1, 3000, "a"), (2, 300, "b"), (3, 400, "c"))]
    editor = CaptionEditor.fit(
        planted_sae(), sets[0][0], sets[1][0], form="residual", length_exponent=0.0, teacher="presence", steps=150
    )
    return editor, *sets


def test_the_mask_tells_told_from_untold(taught):
    editor, *_, (test, told, untold) = taught
    mask = editor.mask(test.texts)
    assert mask[told].mean() > 0.9
    assert mask[untold].mean() < 0.2
    shuffled = mask[torch.randperm(len(mask), generator=torch.Generator().manual_seed(0))]
    assert shuffled[told].mean() < 0.3  # it is of this caption, not of captions


def test_what_is_told_stays_and_the_rest_goes(taught):
    editor, *_, (test, told, untold) = taught
    concepts = editor.sae.directions
    left = [
        rows @ torch.linalg.inv(concepts)
        for rows in (test.images, editor.with_strength(1.0).edit(test.images, test.texts))
    ]
    assert left[1][told].sum() > 0.85 * left[0][told].sum()
    assert left[1][untold].sum() < 0.3 * left[0][untold].sum()


def test_it_finds_what_the_same_text_side_and_an_open_mask_do_not(taught):
    editor, (train, *_), (validation, *_), (test, *_) = taught
    rival = CaptionEditor.fit(editor.sae, train, validation, form="plain", memory="none", steps=150)
    corrected = CorrectedScorer.fit(rival, train, validation, "nnn")
    opened = editor.control("ones")
    shuffled = editor.control("random")

    def found(scorer: Scorer | None) -> float:
        scores = evaluate_retrieval(test, scorer)
        return scores["T2I R@1"] + scores["I2T R@1"]

    assert found(editor) > 1.15 * max(map(found, (None, rival, opened, corrected)))
    assert found(shuffled) < found(editor) / 2


def test_the_mask_is_kept_where_nothing_that_follows_pays(taught):
    editor, (train, *_), (validation, *_), (test, told, untold) = taught
    rates = dict.fromkeys(("learning_rate", "mask_learning_rate"), 5e-3)
    still = CaptionEditor.fit(
        editor.sae, train, validation, form="residual", length_exponent=0.0, teacher="presence", steps=1, **rates
    )
    mask = still.mask(test.texts)
    assert mask[told].mean() - mask[untold].mean() > 0.5


def test_strength_0_is_the_unedited_score(taught):
    editor, *_, (test, *_) = taught
    none = editor.with_strength(0.0)
    torch.testing.assert_close(none.edit(test.images, test.texts), test.images, atol=1e-5, rtol=1e-5)
    assert editor.with_strength(0.5, level=1.0).strength_and_level[1] == pytest.approx(1.0)
    assert none.sae is editor.sae


def test_a_folder_holds_the_dials(taught, tmp_path):
    editor, *_, (test, *_) = taught
    editor.save(tmp_path / "editor")
    loaded = CaptionEditor.load(tmp_path / "editor")
    torch.testing.assert_close(loaded.score(test.images, test.texts), editor.score(test.images, test.texts))


def test_an_untrained_one_is_the_plain_cosine():
    editor = CaptionEditor(planted_sae(), EditorConfig(form="gated", teacher="presence"))
    test, *_ = planted(4, 20, "d")
    cosines = F.normalize(test.images, dim=1) @ F.normalize(test.texts, dim=1).t()
    torch.testing.assert_close(editor.score(test.images, test.texts), cosines, atol=1e-5, rtol=1e-5)


def test_bad_input_is_named(taught):
    editor, (train, *_), (validation, *_), _ = taught
    for form, exponent in (("reconstruct", 0.0), ("gated", 1.0)):
        with pytest.raises(InputError, match=f"The form '{form}' .* choose teacher='contrast'"):
            EditorConfig(form=form, teacher="presence", length_exponent=exponent)
    with pytest.raises(InputError, match="strength is 2 and level"):
        editor.with_strength(2)
    with pytest.raises(InputError, match="Only an edit whose mask was taught"):
        CaptionEditor(editor.sae, EditorConfig()).with_strength(1.0)
    with pytest.raises(InputError, match="sparsity weighs a mask that learns by contrast"):
        CaptionEditor.fit(editor.sae, train, validation, teacher="presence", form="residual", sparsity=0.1)
    with pytest.raises(InputError, match="no teacher 'nobody'"):
        EditorConfig(teacher="nobody")
