"""Edits by what words name: against the algebra written down, and in a world where every attribute is known."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from boresight.editing import CaptionEditor, EditorConfig, Values, Words, attributes
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.sae import SparseAutoencoder
from boresight.sae.config import SaeConfig
from editing_world import (
    WIDTH,
    quiet,  # noqa: F401
    world_sae,
)

KINDS, VALUES = "qxzv", "abcdef"
CONCEPTS = [kind + value for kind in KINDS for value in VALUES]  # 'qa' is a value of the attribute 'q'


class Dictionary:
    """A language model: knows of a word, or of two, what it is a value of, and of 'name of q' which attribute it names.

    Its space: an axis an attribute, and one a value.
    """

    def embed_texts(self, texts):
        rows = torch.zeros(len(texts), len(KINDS) + len(CONCEPTS))
        for row, text in zip(rows, texts, strict=True):
            for word in text.removeprefix("name of ").split():
                row[KINDS.index(word[0])] += 1
                if word in CONCEPTS:
                    row[len(KINDS) + CONCEPTS.index(word)] += 1
        return rows


def random_editor(seed: int) -> CaptionEditor:
    draw = torch.Generator().manual_seed(seed)
    editor = CaptionEditor(world_sae(seed % 5, bias=0.1), EditorConfig(form="residual", teacher="presence"))
    with torch.no_grad():
        for parameter in (editor.mask_network.map, editor.mask_network.bias):
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=draw))
    return editor


def planted(seed: int, images: int, name: str) -> tuple[Embeddings, torch.Tensor]:
    """Images that sum one value of each attribute, captions that tell two of these; (N, KINDS) which value."""
    fixed = torch.Generator().manual_seed(0)
    concepts = F.normalize(torch.randn(len(CONCEPTS), len(CONCEPTS), generator=fixed), dim=1)
    turn = torch.eye(len(CONCEPTS)) + 0.05 * torch.randn(len(CONCEPTS), len(CONCEPTS), generator=fixed)
    draw = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(VALUES), (images, len(KINDS)), generator=draw)
    shown = drawn + len(VALUES) * torch.arange(len(KINDS))
    codes = torch.zeros(images, len(CONCEPTS)).scatter(1, shown, 0.5 + torch.rand(images, len(KINDS), generator=draw))
    told = torch.rand(images, len(KINDS), generator=draw).topk(2, dim=1).indices.sort(dim=1).values
    said = shown.gather(1, told)
    texts = F.normalize(concepts[said].sum(1) @ turn.t() + 0.3, dim=1)
    captions = [" ".join(CONCEPTS[value] for value in row) for row in said.tolist()]
    names = [f"{name}{row}" for row in range(images)]
    return Embeddings.from_arrays(codes @ concepts, texts, range(images), ids=names, captions=captions), drawn


@pytest.fixture(scope="module")
def taught():
    fixed = torch.Generator().manual_seed(0)
    concepts = F.normalize(torch.randn(len(CONCEPTS), len(CONCEPTS), generator=fixed), dim=1)
    sae = SparseAutoencoder(SaeConfig(width=len(CONCEPTS), n_latents=len(CONCEPTS), k=len(KINDS)))
    state = sae.state_dict()
    state["directions"], state["encoder_weight"] = concepts, torch.linalg.inv(concepts).t().contiguous()
    sae.load_state_dict(state)
    train, validation, test = planted(1, 3000, "a")[0], planted(2, 100, "b")[0], planted(3, 300, "c")
    options = {"form": "residual", "length_exponent": 0.0, "teacher": "presence", "memory": "none", "steps": 1}
    editor = CaptionEditor.fit(sae, train, validation, mask_learning_rate=2e-2, **options)
    editor.words = Words.of(train, Dictionary())
    return editor, train, *test


def precision(similar: torch.Tensor, values: torch.Tensor) -> float:
    """Mean average precision of the others that have the same value: at each of these, the share of hits so far."""
    order = similar.clone().fill_diagonal_(-torch.inf).argsort(dim=1, descending=True)[:, :-1]
    same = (values[order] == values[:, None]).double()
    so_far = same.cumsum(1) / torch.arange(1, len(values))
    return float(((so_far * same).sum(1) / same.sum(1)).mean())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 6))
def test_similarities_are_the_cosines_of_what_the_latents_say_for_each_value(seed, count):
    editor, draw = random_editor(seed), torch.Generator().manual_seed(seed)
    images, others, texts = (torch.randn(rows, WIDTH, generator=draw) for rows in (5, 4, count))
    similar = editor.similarity(images, others, by=texts)
    raised = editor.mask_network.logits(F.normalize(texts, dim=1)).detach().double()
    contrast = (raised - raised.mean(0)) / count**0.5
    said = [[contrast @ editor.sae.encode(x[None]).dense()[0].double() for x in rows] for rows in (images, others)]
    for i, one in enumerate(said[0]):
        for j, other in enumerate(said[1]):
            expected = F.cosine_similarity(one, other, dim=0).float()
            torch.testing.assert_close(similar[i, j], expected, atol=1e-4, rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 7))
def test_it_compares_edits_row_by_row_alike_from_either_side_and_in_any_blocks(seed, rows):
    editor, draw = random_editor(seed), torch.Generator().manual_seed(seed)
    images, others, texts = (torch.randn(count, WIDTH, generator=draw) for count in (6, 5, 3))
    similar, values = editor.similarity(images, others, by=texts), Values.of(texts)
    edited = [attributes.edit_by(editor, side, values) for side in (images, others)]
    expected = F.cosine_similarity(edited[0][:, None], edited[1][None], dim=2)
    torch.testing.assert_close(similar, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(editor.similarity(others, images, by=texts), similar.t(), atol=1e-5, rtol=1e-5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attributes, "_ROWS", rows)
        torch.testing.assert_close(editor.similarity(images, others, by=texts), similar, atol=1e-5, rtol=1e-5)


def test_an_image_that_tells_nothing_is_like_none():
    editor = random_editor(0)
    nothing = editor.sae.bias.detach()[None] + 1e-12
    edited = attributes.edit_by(editor, nothing, Values.of(torch.eye(WIDTH)[:3]))
    similar = attributes.similarity(torch.zeros_like(edited), edited + 1)
    assert edited.isfinite().all()
    assert torch.equal(similar, torch.zeros(1, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_values_find_the_images_that_share_one(taught, kind):
    editor, _, test, drawn = taught
    values, images, words = drawn[:, KINDS.index(kind)], test.images, [kind + value for value in VALUES]
    plain = precision(attributes.similarity(images, images), values)
    assert precision(editor.similarity(images, images, by=words), values) > 1.5 * plain
    shuffled = [editor.control("random", seed).similarity(images, images, by=words) for seed in range(4)]
    assert fmean(precision(each, values) for each in shuffled) < 1.1 * plain  # of 24 latents one alone may hit
    for opened in (editor.control("ones"), constant(editor)):
        with pytest.raises(InputError, match="raise the same latents"):
            opened.similarity(images, images, by=words)


def constant(editor: CaptionEditor) -> CaptionEditor:
    """With the mask of one caption for all."""
    twin = editor.uncorrected()
    twin.mask_network = type(editor.mask_network)(editor.sae.directions.detach())
    torch.nn.init.constant_(twin.mask_network.bias, 0.3)
    return twin


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_no_caption_says_is_read_as_its_values(taught, kind):
    editor, _, test, drawn = taught
    read = editor.words.values(f"name of {kind}")
    assert set(read.names[:6]) == {kind + value for value in VALUES}
    assert float(read.shares.sum()) == pytest.approx(1)
    similar, plain = editor.similarity(test.images, test.images, by=f"name of {kind}"), test.images @ test.images.t()
    for column, other in enumerate(KINDS):
        reached = precision(similar, drawn[:, column]), precision(plain, drawn[:, column])
        assert reached[0] > 1.5 * reached[1] if other == kind else reached[0] < 0.8 * reached[1]


def test_edit_takes_words_for_all_images_and_captions_row_by_row(taught):
    editor, _, test, _ = taught
    edited = editor.edit(test.images, "name of q")
    torch.testing.assert_close(
        attributes.similarity(edited, edited), editor.similarity(test.images, test.images, by="name of q")
    )
    assert edited.shape == test.images.shape
    assert not torch.allclose(edited, editor.edit(test.images, test.texts))
    assert editor.with_strength(0.5).words is editor.words


def test_bad_input_is_named(taught):
    editor, _, test, _ = taught
    images = test.images
    silent = editor.uncorrected()
    silent.words = None
    with pytest.raises(InputError, match=r"knows no words; set editor\.words = Words\.of"):
        silent.similarity(images, images, by="name of q")
    with pytest.raises(InputError, match="1 text tells no values apart; pass two or more"):
        editor.similarity(images, images, by=["qa"])
    with pytest.raises(InputError, match="raise the same latents"):
        editor.similarity(images, images, by=test.texts[:1].expand(2, -1))
    with pytest.raises(InputError, match="do not fit an editor of width"):
        editor.similarity(images, images, by=torch.ones(3, 5))
    with pytest.raises(InputError, match="Row 1 of the images"):
        editor.edit(torch.stack([images[0], images[0] * float("nan")]), "name of q")
    with pytest.raises(InputError, match="has no latents to choose from"):
        CaptionEditor(editor.sae, EditorConfig(form="plain")).similarity(images, images, by=test.texts[:2])
    wordless = Embeddings.from_arrays(test.images, test.texts, test.owners)
    with pytest.raises(InputError, match="do not keep their captions"):
        Words.of(wordless, Dictionary())
    alone = Embeddings.from_arrays(test.images[:2], test.texts[:2], [0, 1], captions=["qa", "a qa"])
    with pytest.raises(InputError, match="one word alone in common, 'qa'"):
        Words.of(alone, Dictionary())
