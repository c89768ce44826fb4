"""A mask that is taught what a caption tells, in a world where that is known, and the dials of its edit."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from boresight.editing import CaptionEditor, CorrectedScorer, EditorConfig, PlainScorer, Scorer
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation import evaluate_retrieval
from boresight.sae import SparseAutoencoder
from boresight.sae.config import SaeConfig
from editing_world import quiet  # noqa: F401

CONCEPTS, SHOWN, TOLD = 96, 8, 2


def planted(
    seed: int, images: int, name: str, count: int = CONCEPTS, many: int = SHOWN, world: int = 0
) -> tuple[Embeddings, torch.Tensor, torch.Tensor]:
    """Images that sum `many` of `count` concepts, captions that tell TOLD of these, turned a little.

    Also told and untold (N, count).
    """
    fixed = torch.Generator().manual_seed(world)
    concepts = F.normalize(torch.randn(count, count, generator=fixed), dim=1)
    turn = torch.eye(count) + 0.03 * torch.randn(count, count, generator=fixed)
    gap = F.normalize(torch.randn(count, generator=fixed), dim=0)
    draw = torch.Generator().manual_seed(seed)
    shown = torch.rand(images, count, generator=draw).topk(many, dim=1).indices
    codes = torch.zeros(images, count).scatter(1, shown, 0.5 + torch.rand(images, many, generator=draw))
    told = torch.zeros(images, count, dtype=torch.bool).scatter(1, shown[:, :TOLD], True)
    texts = F.normalize(told.float() @ concepts, dim=1) @ turn.t() + gap
    texts = texts + 0.02 * torch.randn(images, count, generator=draw)
    names = [f"{name}{row}" for row in range(images)]
    return Embeddings.from_arrays(codes @ concepts, texts, range(images), ids=names), told, (codes > 0) & ~told


def planted_sae(count: int = CONCEPTS, many: int = SHOWN, world: int = 0) -> SparseAutoencoder:
    """Its latents are the concepts; the encoder inverts their sum, so codes are right."""
    fixed = torch.Generator().manual_seed(world)
    concepts = F.normalize(torch.randn(count, count, generator=fixed), dim=1)
    sae = SparseAutoencoder(SaeConfig(width=count, n_latents=count, k=many))
    state = sae.state_dict()
    state["directions"], state["encoder_weight"] = concepts, torch.linalg.inv(concepts).t().contiguous()
    sae.load_state_dict(state)
    return sae


@pytest.fixture(scope="module", autouse=True)
def quicker_masks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("boresight.editing.presence.STEPS", 200)
        yield


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


@pytest.mark.parametrize(("count", "many", "world"), [(96, 8, 1), (128, 9, 3)])
def test_the_default_edits_and_beats_every_rival(count, many, world):
    (train, *_), (validation, *_), (test, told, untold) = (
        planted(seed, images, name, count, many, world)
        for seed, images, name in ((1, 1500, "a"), (2, 200, "b"), (3, 300, "c"))
    )
    sae = planted_sae(count, many, world)
    editor = CaptionEditor.fit(sae, train, validation, steps=60, seed=world)
    tuned = CaptionEditor.fit(sae, train, validation, form="plain", memory="none", steps=60, seed=world)
    rivals = [PlainScorer(), tuned]
    rivals += [CorrectedScorer.fit(one, train, validation, "nnn") for one in (PlainScorer(), tuned)]
    rivals += [CorrectedScorer.fit(one, train, validation, "sinkhorn") for one in (PlainScorer(), tuned)]

    def found(scorer: Scorer) -> float:
        scores = evaluate_retrieval(test, scorer)
        return scores["T2I R@1"] + scores["I2T R@1"]

    assert found(editor) > 1.2 * max(map(found, rivals))
    plain, edited, shown = (
        rows @ torch.linalg.inv(sae.directions)
        for rows in (
            test.images,
            editor.edit(test.images, test.texts),
            editor.shown.edit(test.images, test.texts),
        )
    )
    for rows in (edited, shown):
        assert rows[told].sum() > 0.85 * plain[told].sum()
        assert rows[untold].sum() < 0.3 * plain[untold].sum()
    other = editor.edit(test.images, test.texts.roll(1, 0)) @ torch.linalg.inv(sae.directions)
    assert other[told].sum() < 0.4 * plain[told].sum()  # by the caption of another image


def test_what_a_caption_rules_out_is_kept_too():
    """Concepts 0 and 1 exclude each other: a caption that tells one speaks of the other as well."""
    draw = torch.Generator().manual_seed(0)
    concepts = F.normalize(torch.randn(CONCEPTS, CONCEPTS, generator=torch.Generator().manual_seed(0)), dim=1)

    def pairs(images: int, name: str) -> Embeddings:
        first = torch.rand(images, generator=draw) < 0.5
        codes = torch.zeros(images, CONCEPTS)
        codes[:, 0], codes[:, 1] = first.float(), (~first).float()
        rest = torch.rand(images, CONCEPTS, generator=draw)
        rest[:, :2] = 0
        codes.scatter_(1, rest.topk(SHOWN - 1, dim=1).indices, 1.0)
        texts = torch.where(first[:, None], concepts[0], concepts[1]) + 0.05 * torch.randn(
            images, CONCEPTS, generator=draw
        )
        return Embeddings.from_arrays(codes @ concepts, texts, range(images), ids=[f"{name}{i}" for i in range(images)])

    editor = CaptionEditor.fit(
        planted_sae(), pairs(2000, "a"), pairs(100, "b"), form="residual", length_exponent=0.0, steps=1
    )
    mask = editor.mask(concepts[:2])
    assert mask[:, :2].min() > 0.9  # both, whichever is told
    assert mask[:, 2:].mean() < 0.2


def test_the_form_that_shows_keeps_what_is_told_and_nothing_else(taught):
    editor, *_, (test, *_) = taught
    shown = editor.shown
    mask = shown.mask(test.texts)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(mask, (editor.mask(test.texts) >= 0.5).float())
    code = editor.sae.encode(test.images).dense()
    expected = (mask * code) @ editor.sae.directions + editor.sae.bias
    torch.testing.assert_close(shown.edit(test.images, test.texts), expected, atol=1e-4, rtol=1e-4)
    score = (expected * shown.text(test.texts)).sum(1) / test.images.norm(dim=1)
    torch.testing.assert_close(shown.score(test.images, test.texts).diagonal(), score, atol=1e-4, rtol=1e-4)


def test_the_form_that_shows_is_of_taught_editors_and_not_saved(taught, tmp_path):
    editor, *_ = taught
    with pytest.raises(InputError, match="no mask that was taught what a caption tells"):
        _ = CaptionEditor(editor.sae, EditorConfig()).shown
    with pytest.raises(InputError, match="The form that shows is not saved"):
        editor.shown.save(tmp_path / "shown")


def test_an_editor_that_scores_by_contrast_shows_by_the_taught_mask(taught, tmp_path):
    _, (train, *_), (validation, *_), (test, told, untold) = taught
    train = train.select(range(1200))
    editor = CaptionEditor.fit(planted_sae(), train, validation, length_exponent=1.0, steps=2)
    assert (editor.config.form, editor.config.teacher) == ("gated", "contrast")
    mask = editor.shown.mask(test.texts)
    assert mask[told].mean() > 0.9
    assert mask[untold].mean() < 0.2
    editor.save(tmp_path / "editor")
    loaded = CaptionEditor.load(tmp_path / "editor")
    torch.testing.assert_close(loaded.shown.mask(test.texts), mask)
    torch.testing.assert_close(loaded.raised(test.texts), editor.raised(test.texts))
    shuffled = editor.control("random")
    assert shuffled.shown.mask(test.texts)[told].mean() < 0.5
    assert not torch.equal(shuffled.raised(test.texts), editor.raised(test.texts))
    with pytest.raises(InputError, match="no form that shows"):
        _ = CaptionEditor.fit(planted_sae(), train, validation, teacher="contrast", length_exponent=1.0, steps=0).shown


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
    with pytest.raises(InputError, match=r"The form .reconstruct. .* choose teacher='contrast'"):
        EditorConfig(form="reconstruct", teacher="presence")
    with pytest.raises(InputError, match="strength is 2 and level"):
        editor.with_strength(2)
    with pytest.raises(InputError, match="learnt by contrast, which has no strength"):
        CaptionEditor(editor.sae, EditorConfig()).with_strength(1.0)
    with pytest.raises(InputError, match="sparsity weighs a mask that learns by contrast"):
        CaptionEditor.fit(editor.sae, train, validation, teacher="presence", form="residual", sparsity=0.1)
    with pytest.raises(InputError, match="no teacher 'nobody'"):
        EditorConfig(teacher="nobody")
