"""Explanations: parts sum to the score in every form, each says what it claims, what is not known is not named."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from boresight.editing import CaptionEditor, EditorConfig
from boresight.editing.config import Correction
from boresight.editing.explanation import GATE, IMAGE_HUBNESS, MOVED, PICTURED, REST, TEXT_HUBNESS
from boresight.editing.masks import OnesMask
from boresight.editing.memory import Memory
from boresight.sae import name_latents
from editing_world import ATTRIBUTES, WIDTH, quiet, sae_fixture, world, world_sae  # noqa: F401

FORMS = ["gated", "residual", "reconstruct", "raw", "plain"]


def unit(count: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)), dim=1)


def random_editor(seed: int, **options) -> CaptionEditor:
    """Every weight at a random value; a memory of 30 pairs where one is asked for."""
    editor = CaptionEditor(world_sae(seed % 5, bias=0.1), EditorConfig(**options))
    draw = torch.Generator().manual_seed(seed)
    if editor.memory is not None:
        editor.memory = Memory(unit(30, seed + 1), 0.8 * unit(30, seed + 2), [f"r{row}" for row in range(30)])
        with torch.no_grad():
            editor.memory.strengths.copy_(torch.rand(2, generator=draw))
    with torch.no_grad():
        for name, parameter in editor.named_parameters():
            if parameter.requires_grad and name.startswith(("head", "mask", "gate", "dials")):
                parameter.copy_(0.6 * torch.randn(parameter.shape, generator=draw))
        editor.usual.copy_(torch.rand(editor.usual.shape, generator=draw))
    return editor


corrections = st.sampled_from(
    [None, Correction(reach=4, share=0.7), Correction(method="sinkhorn", reach=0.1, share=1.0)]
)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    form=st.sampled_from(FORMS),
    memory=st.sampled_from(["none", "text", "both"]),
    text=st.sampled_from(["finetuned", "frozen"]),
    exponent=st.sampled_from([0.0, 0.4, 1.0]),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
    of_images=corrections,
    of_texts=corrections,
    taught=st.booleans(),
)
def test_parts_sum_to_the_score(seed, form, memory, text, exponent, scale, of_images, of_texts, taught):
    rules = {} if memory == "none" else {"image_correction": of_images, "text_correction": of_texts}
    if taught and (form == "residual" or (form == "gated" and not exponent)):
        rules["teacher"] = "presence"
    editor = random_editor(seed, form=form, memory=memory, text=text, length_exponent=exponent, **rules)
    image, caption = scale * unit(1, seed + 3)[0], scale * unit(1, seed + 4)[0]
    found = editor.explain_edit(image, caption)
    score = float(editor.score(image[None], caption[None]))
    near = {"abs": 2e-5 * max(1.0, 1 / found.length), "rel": 1e-4}
    assert found.edited_score == pytest.approx(score, **near)
    assert sum(found.parts.values()) == pytest.approx(score, **near)
    assert sum(found.caption_parts.values()) == pytest.approx(score, **near)
    carried = sum(amount for name, amount in found.parts.items() if name.startswith("latents"))
    assert sum(latent.kept for latent in found.latents) == pytest.approx(carried, **near)
    assert found.plain_score == pytest.approx(float(F.cosine_similarity(image, caption, dim=0)), abs=1e-5)
    shown = found.rounded()
    assert shown.edited_score == round(found.edited_score, 4)
    for mine, theirs in ((shown.parts, found.parts), (shown.caption_parts, found.caption_parts)):
        assert sum(round(1e4 * amount) for amount in mine.values()) == round(1e4 * shown.edited_score)
        assert list(mine.values()) == pytest.approx(list(theirs.values()), abs=1.1e-4)
        assert all(round(amount, 4) == pytest.approx(amount, abs=1e-9) for amount in mine.values())
    for name, of_part in (("latents kept", True), ("latents dropped, what is left", False)):
        units = [round(1e4 * latent.kept) for latent in shown.latents if (latent.mask >= 0.5) == of_part]
        assert sum(units) == round(1e4 * shown.parts.get(name, 0))
    assert (MOVED in found.parts) == (memory == "both")
    assert (GATE in found.caption_parts) == editor.config.has_gate
    assert {IMAGE_HUBNESS, TEXT_HUBNESS} & set(found.parts) == set(found.hubness)


@pytest.mark.parametrize("form", ["gated", "residual", "reconstruct"])
def test_a_latent_says_what_its_loss_and_its_return_would_change(form):
    editor = random_editor(1, form=form, memory="both")
    image, caption = unit(1, 8), unit(1, 9)
    score = float(editor.score(image, caption))
    found = editor.explain_edit(image[0], caption[0])
    codes, mask = editor.sae.encode(image), editor.mask(caption)
    assert {latent.index for latent in found.latents} == set(codes.indices[0][codes.values[0] > 0].tolist())

    class Fixed(torch.nn.Module):
        def __init__(self, mask):
            super().__init__()
            self.kept = mask

        def forward(self, texts):
            return self.kept.expand(len(texts), -1)

    for latent in found.latents:
        assert latent.mask == pytest.approx(float(mask[0, latent.index]))
        for value, effect in ((0.0, latent.kept), (1.0, latent.dropped)):
            other = mask.clone()
            other[0, latent.index] = value
            twin = editor._twin(editor.config)
            twin.mask_network = Fixed(other)
            assert score - effect == pytest.approx(float(twin.score(image, caption)), abs=1e-5)


def test_a_gate_says_what_opening_it_would_change():
    editor = random_editor(2, form="raw", memory="both")
    image, caption = unit(1, 8), unit(1, 9)
    opened = editor._twin(editor.config)
    opened.gate_network = OnesMask(WIDTH)
    change = float(editor.score(image, caption)) - float(opened.score(image, caption))
    assert editor.explain_edit(image[0], caption[0]).caption_parts[GATE] == pytest.approx(change, abs=1e-5)


def test_remembered_pairs_sum_to_what_the_memory_moved():
    editor = random_editor(3, form="gated", memory="both")
    image, caption = unit(1, 8)[0], unit(1, 9)[0]
    found = editor.explain_edit(image, caption)
    for pairs in (found.image_memory, found.text_memory):
        assert len(pairs) == 30
        assert sum(pair.weight for pair in pairs) == pytest.approx(1, abs=1e-5)
        effects = [abs(pair.effect) for pair in pairs]
        assert effects == sorted(effects, reverse=True)
        assert all(pair.image_id == f"r{pair.row}" for pair in pairs)
    own = F.normalize(caption + editor.head_map @ caption + editor.head_bias, dim=0)
    recall = editor.memory.recall_texts(caption, own)
    torch.testing.assert_close(own + recall.moved, editor.text(caption[None])[0], atol=1e-5, rtol=1e-5)
    moved = editor._moved(image[None], None)[0]
    torch.testing.assert_close(
        image + editor.memory.recall_images(image, editor.head_map).moved, moved, atol=1e-5, rtol=1e-5
    )


def test_what_is_not_listed_makes_up_the_part():
    editor = random_editor(7, form="gated", memory="both")
    found = editor.explain_edit(unit(1, 8)[0], unit(1, 9)[0], top=2)
    left = found.unlisted
    kept = sorted((latent.kept for latent in found.latents if latent.mask >= 0.5), key=lambda effect: -abs(effect))
    assert len(kept) == 5
    assert left["latents kept"] == pytest.approx(sum(kept[2:]), abs=1e-5)
    for part, pairs, whole in (
        (MOVED, found.image_memory, found.parts[MOVED]),
        (PICTURED, found.text_memory, found.caption_parts[PICTURED]),
    ):
        assert left[part] == pytest.approx(whole - sum(pair.effect for pair in pairs[:2]))
    shown = str(found)
    assert f"all others{' ' * 51}score {found.rounded().unlisted['latents kept']:+.4f}" in shown
    assert shown.count("all others, less the room they take") == 2
    assert "latents kept" not in replace(found, top=len(kept)).unlisted
    assert random_editor(5, form="raw").explain_edit(unit(1, 8)[0], unit(1, 9)[0]).unlisted == {}


def test_the_order_is_that_of_the_effects():
    found = random_editor(4, form="gated").explain_edit(unit(1, 8)[0], unit(1, 9)[0], top=3)
    for chosen, effect in ((found.kept, "kept"), (found.dropped, "dropped")):
        effects = [abs(getattr(latent, effect)) for latent in chosen]
        assert effects == sorted(effects, reverse=True)
        assert 0 < len(effects) <= 3
    assert all(latent.mask >= 0.5 for latent in found.kept)
    assert all(latent.mask < 0.5 for latent in found.dropped)


def test_it_prints_every_part_and_what_is_not_known(sae, tmp_path):
    train, validation = world(sae, 60, 0), world(sae, 20, 1)
    editor = CaptionEditor.fit(sae, train, validation, form="gated", length_exponent=0.0, steps=5)
    editor.config = replace(editor.config, image_correction=Correction(reach=3, share=0.5))
    image, caption = validation.images[0], validation.texts[0]
    editor.memory.strengths.fill_(0.0)
    silent = editor.explain_edit(image, caption, remembered=train)
    assert silent.image_memory == silent.text_memory == ()
    assert "remembered pairs" not in str(silent)
    editor.memory.strengths.fill_(0.3)
    names = ["", *(f"attribute {index}" for index in range(1, ATTRIBUTES))]
    found = editor.explain_edit(image, caption, names=names, remembered=train)
    shown = str(found)
    for part in (*found.parts, *found.caption_parts, "attribute", f"edited {found.edited_score:.4f}"):
        assert part in shown
    assert all(latent.label == (latent.name or "latent 0") for latent in found.latents)
    best = found.image_memory[0]
    assert best.image_id in train.ids
    owned = (train.owners == train.ids.index(best.image_id)).nonzero()[:, 0].tolist()
    assert best.captions == tuple(train.captions[row] for row in owned)
    assert f"'{best.captions[0]}' {best.image_id}" in shown
    assert "sure" not in shown
    certainty = torch.linspace(0, 0.9, ATTRIBUTES)
    sure = replace(name_latents(sae, embeddings=train), names=names, certainty=certainty)
    named = editor.explain_edit(image, caption, names=sure)
    assert all(latent.certainty == pytest.approx(float(certainty[latent.index])) for latent in named.latents)
    best = max((*named.kept, *named.dropped), key=lambda latent: latent.certainty)
    assert f"  {best.name:<24} sure {best.certainty:.2f}  z" in str(named)
    best = found.image_memory[0]
    editor.save(tmp_path / "editor")
    loaded = CaptionEditor.load(tmp_path / "editor")
    assert loaded.memory.ids == editor.memory.ids
    assert loaded.explain_edit(image, caption).text_memory[0].captions == ()  # the editor keeps no words
    loaded.memory.ids = []
    assert f"pair {best.row} " in str(loaded.explain_edit(image, caption))


def test_a_form_without_latents_has_none():
    found = random_editor(5, form="plain").explain_edit(unit(1, 8)[0], unit(1, 9)[0])
    assert found.latents == found.kept == found.dropped == ()
    assert list(found.parts) == [REST]
    assert PICTURED not in found.caption_parts
    assert "latents kept: none" in str(found)
