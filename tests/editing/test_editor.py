"""The caption editor: edit, score, mask, explanation, controls, folders and bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boresight.editing import CaptionEditor, EditorConfig, PlainScorer
from boresight.editing.scoring import MIN_LENGTH
from boresight.errors import ArtefactError, InputError
from editing_world import ATTRIBUTES, WIDTH, world, world_sae

torch.set_num_threads(1)


def trained_like(sae, seed: int = 0, **config) -> CaptionEditor:
    """An editor with random weights everywhere: nothing at its starting value."""
    editor = CaptionEditor(sae, EditorConfig(**config))
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in editor.named_parameters():
            if not name.startswith("sae."):
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=draw))
    return editor


def rows(count: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


CONFIGS = [
    {"form": form, "length_exponent": exponent}
    for form in ("gated", "residual", "reconstruct", "raw")
    for exponent in (0.0, 0.5, 1.0)
] + [{"form": "plain"}, {"form": "residual", "mask": "mlp", "length_exponent": 1.0}]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: "-".join(str(value) for value in config.values()))
def test_scores_are_those_of_the_edited_rows(config):
    sae = world_sae(bias=0.1)
    editor = trained_like(sae, **config)
    images, texts = rows(7, 1, 2.0), rows(11, 2)
    scores = editor.score(images, texts)
    assert scores.shape == (7, 11)
    assert scores.dtype == torch.float32

    def edits(of: Tensor) -> Tensor:
        pairs = [editor.edit(of, texts[j].expand(len(of), -1)) for j in range(len(texts))]
        return torch.stack(pairs, 1).double()

    def measured(of: Tensor) -> Tensor:
        """What the length is taken of: the edit, or in the form 'gated' the image behind the gate."""
        return (of.unsqueeze(1) * editor.gate(texts)).double() if config["form"] == "gated" else edits(of)

    def relative(of: Tensor) -> Tensor:
        return (measured(of).norm(dim=2) / of.double().norm(dim=1, keepdim=True)).clamp_min(MIN_LENGTH)

    u = editor.text(texts).double()
    lengths = relative(images)
    products = (edits(images) * u).sum(2) / images.double().norm(dim=1, keepdim=True)
    expected = products if config["form"] == "plain" else products / lengths**editor.config.length_exponent
    torch.testing.assert_close(scores.double(), expected, atol=1e-6, rtol=1e-5)


def test_edit_is_the_formula_of_its_form():
    sae = world_sae(bias=0.1)
    images, texts = rows(5, 1, 2.0), rows(5, 2)
    z, d = sae.encode(images).dense(), sae.directions
    for form in ("gated", "residual", "reconstruct"):
        editor = trained_like(sae, form=form)
        m = editor.mask(texts)
        assert m.shape == (5, ATTRIBUTES)
        assert float(m.min()) >= 0
        assert float(m.max()) <= 1
        r = editor.gate(texts)
        assert (float(r.min()) < 1) == (form == "gated")
        expected = (m * z) @ d + sae.bias if form == "reconstruct" else r * (images - ((1 - m) * z) @ d)
        torch.testing.assert_close(editor.edit(images, texts), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", ["gated", "residual", "raw", "plain"])
@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_an_untrained_editor_is_the_plain_cosine(form, exponent):
    editor = CaptionEditor(world_sae(), EditorConfig(form=form, length_exponent=exponent))
    images, texts = rows(6, 1, 3.0), rows(8, 2)
    plain = PlainScorer()
    expected = plain.score_prepared(plain.prepare_images(images), plain.prepare_texts(texts))
    torch.testing.assert_close(editor.score(images, texts), expected, atol=2e-6, rtol=0)
    assert torch.equal(editor.mask(texts), torch.ones(8, ATTRIBUTES))


def test_an_untrained_reconstruct_is_the_reconstruction():
    sae = world_sae(bias=0.1)
    editor = CaptionEditor(sae, EditorConfig(form="reconstruct", mask="ones", text="frozen", length_exponent=1.0))
    images, texts = rows(6, 1), rows(4, 2)
    reconstruction = sae.decode(sae.encode(images))
    expected = torch.nn.functional.cosine_similarity(reconstruction.unsqueeze(1), texts.unsqueeze(0), dim=2)
    torch.testing.assert_close(editor.score(images, texts), expected, atol=1e-6, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    images=st.integers(0, 9),
    texts=st.integers(0, 9),
    cut=st.integers(0, 9),
    form=st.sampled_from(["gated", "residual", "raw", "plain"]),
    exponent=st.sampled_from([0.0, 1.0]),
)
def test_prepared_slices_give_the_same_scores(images, texts, cut, form, exponent):
    editor = trained_like(world_sae(), form=form, length_exponent=exponent)
    with torch.no_grad():
        left, right = editor.prepare_images(rows(images, 1)), editor.prepare_texts(rows(texts, 2))
        whole = editor.score_prepared(left, right)
        assert (len(left), len(right)) == whole.shape == (images, texts)
        part = editor.score_prepared(left[cut:], right[:cut])
    torch.testing.assert_close(part, whole[cut:, :cut], atol=1e-6, rtol=1e-5)


def test_score_does_not_depend_on_blocks(monkeypatch):
    editor = trained_like(world_sae(), length_exponent=1.0)
    images, texts = rows(9, 1), rows(150, 2)
    whole = editor.score(images, texts)
    monkeypatch.setattr("boresight.editing.model._IMAGES_AT_ONCE", 4)
    monkeypatch.setattr("boresight.editing.model._TEXT_FLOATS", 1)
    torch.testing.assert_close(editor.score(images, texts), whole, atol=1e-6, rtol=1e-5)
    edited = editor.edit(rows(150, 3), texts)
    torch.testing.assert_close(edited[70:71], editor.edit(rows(150, 3)[70:71], texts[70:71]))


def test_half_precision_memory_maps_are_read_as_they_are(tmp_path):
    editor = trained_like(world_sae(), length_exponent=1.0)
    images, texts = rows(6, 1).half(), rows(5, 2).half()
    np.save(tmp_path / "images.npy", images.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "images.npy", mmap_mode="c"))
    torch.testing.assert_close(editor.score(mapped, texts), editor.score(images.float(), texts.float()))


def test_controls():
    editor = trained_like(world_sae(), length_exponent=1.0)
    images, texts = rows(4, 1), rows(6, 2)
    random, again, other = editor.control("random", 1), editor.control("random", 1), editor.control("random", 2)
    mask = editor.mask(texts)
    permuted = random.mask(texts)
    torch.testing.assert_close(permuted.sort(1).values, mask.sort(1).values)
    assert not torch.equal(permuted, mask)
    assert torch.equal(permuted, again.mask(texts))
    torch.testing.assert_close(permuted[2:4], random.mask(texts[2:4]))
    assert not torch.equal(permuted, other.mask(texts))
    assert not torch.allclose(random.score(images, texts), editor.score(images, texts))
    head = editor.text(texts)
    expected = torch.nn.functional.cosine_similarity(images.unsqueeze(1), head.unsqueeze(0), dim=2)
    torch.testing.assert_close(editor.control("ones").score(images, texts), expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(editor.mask(texts), mask)  # which no control has touched
    with pytest.raises(InputError, match="A control is not saved"):
        random.save("never")


@pytest.mark.parametrize(
    "config",
    [
        {"form": "residual", "length_exponent": 1.0},
        {"form": "reconstruct", "mask": "mlp", "text": "frozen"},
        {"form": "raw"},
        {"form": "plain"},
    ],
)
def test_a_folder_holds_all_of_it(tmp_path, config):
    editor = trained_like(world_sae(), **config)
    editor.manifest["encoder"] = "world"
    editor.save(tmp_path / "editor")
    loaded = CaptionEditor.load(tmp_path / "editor")
    images, texts = rows(3, 1), rows(4, 2)
    assert torch.equal(loaded.score(images, texts), editor.score(images, texts))
    assert loaded.config == editor.config
    assert loaded.fingerprint == editor.fingerprint
    assert loaded.manifest["encoder"] == "world"
    assert loaded.sae.fingerprint == editor.sae.fingerprint
    assert loaded.sae.manifest == editor.sae.manifest


def test_torn_and_foreign_folders_are_refused(tmp_path):
    folder = tmp_path / "editor"
    trained_like(world_sae()).save(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "config": {"form": "other"}}))
    with pytest.raises(ArtefactError, match=r"does not hold what its manifest says.*fit it again"):
        CaptionEditor.load(folder)
    world_sae().save(tmp_path / "sae")
    with pytest.raises(ArtefactError, match="kind 'sae', not 'editor'"):
        CaptionEditor.load(tmp_path / "sae")


def test_another_encoder_is_refused():
    sae = world_sae()
    editor, embeddings = trained_like(sae), world(sae, 4, 0)
    editor.require_same_encoder(embeddings)
    embeddings.manifest["encoder"] = "another"
    with pytest.raises(ArtefactError, match=r"'world'.*'another'"):
        editor.require_same_encoder(embeddings)


def test_bad_input_is_named():
    sae = world_sae()
    editor = trained_like(sae)
    good = rows(3, 1)
    broken = good.clone()
    broken[1, 2] = torch.nan
    with pytest.raises(InputError, match="Row 1 of the images holds NaN"):
        editor.score(broken, good)
    with pytest.raises(InputError, match="Row 1 of the captions holds NaN"):
        editor.score(good, broken)
    with pytest.raises(InputError, match=f"width {WIDTH}"):
        editor.score(good[:, :5], good[:, :5])
    with pytest.raises(InputError, match="3 images and 2 captions"):
        editor.edit(good, good[:2])
    with pytest.raises(InputError, match="no form 'sideways'"):
        EditorConfig(form="sideways")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="length_exponent is 2"):
        EditorConfig(length_exponent=2)


def test_controls_are_named_and_not_saved(tmp_path):
    editor = CaptionEditor(world_sae(), EditorConfig())
    with pytest.raises(InputError, match="There is no control 'shufled'"):
        editor.control("shufled")
    for kind in ("random", "ones"):
        with pytest.raises(InputError, match="A control is not saved"):
            editor.control(kind).save(tmp_path / kind)


def test_rows_without_direction_are_named_wherever_they_enter():
    editor = trained_like(world_sae())
    images, texts = rows(4, 1), rows(4, 2)
    holed = texts.clone()
    holed[2, 0] = torch.nan
    for call in (
        lambda: editor.edit(images, holed),
        lambda: editor.mask(holed),
        lambda: editor.text(holed),
        lambda: editor.score(images, holed),
        lambda: editor.explain_edit(images[0], holed[2]),
    ):
        with pytest.raises(InputError, match=r"Row \d of the (captions|text) holds NaN"):
            call()
    with pytest.raises(InputError, match="Row 0 of the image is all zero"):
        editor.explain_edit(torch.zeros(WIDTH), texts[0])
    with pytest.raises(InputError, match="do not fit an editor of width"):
        editor.score(images[0], texts)
    torch.testing.assert_close(editor.score(images.numpy(), texts.numpy()), editor.score(images, texts))


def test_names_of_another_autoencoder_are_refused():
    editor = trained_like(world_sae())
    with pytest.raises(InputError, match="3 names for"):
        editor.explain_edit(rows(1, 1), rows(1, 2), names=["a", "b", "c"])
