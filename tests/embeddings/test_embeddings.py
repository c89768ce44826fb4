"""Embeddings in memory: selections against a slow obvious reference, and every sentence of from_arrays."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.editing import CaptionEditor, PlainScorer
from boresight.embeddings import Embeddings, embed
from boresight.errors import InputError
from boresight.evaluation import compare, evaluate_editor, evaluate_retrieval
from fake_encoder import FakeEncoder
from tiny_editor import TINY_EDITOR

SPLITS = ("train", "validation", "test", "other")


@st.composite
def embeddings(draw):
    """Ragged, unsorted owners, images without captions."""
    n = draw(st.integers(1, 7))
    owners = draw(st.lists(st.integers(0, n - 1), max_size=12))
    m = len(owners)
    return Embeddings.from_arrays(
        torch.arange(1.0, n * 3 + 1).reshape(n, 3),
        torch.arange(1.0, m * 3 + 1).reshape(m, 3) * 100,
        owners,
        captions=[f"caption {j}" for j in range(m)] if draw(st.booleans()) else None,
        splits=draw(st.lists(st.sampled_from(SPLITS), min_size=n, max_size=n)),
        name="drawn",
    )


def slow_select(whole, rows):
    """What select should give, one image and one caption at a time."""
    images, ids, splits, texts, owners, captions = [], [], [], [], [], []
    for place, row in enumerate(rows):
        images.append(whole.images[row])
        ids.append(whole.ids[row])
        splits.append(whole.splits[row])
        for j, owner in enumerate(whole.owners.tolist()):
            if owner == row % len(whole):
                texts.append(whole.texts[j])
                owners.append(place)
                captions.append(whole.captions[j] if whole.captions else None)
    return images, ids, splits, texts, owners, captions


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_select_equals_the_slow_way(data):
    whole = data.draw(embeddings())
    n = len(whole)
    rows = data.draw(st.lists(st.integers(-n, n - 1), max_size=9) | st.just(list(range(n))))
    kind = data.draw(st.sampled_from([list, np.array, lambda r: torch.tensor(r, dtype=torch.int64)]))
    got = whole.select(kind(rows))
    images, ids, splits, texts, owners, captions = slow_select(whole, rows)
    assert got.images.tolist() == [row.tolist() for row in images]
    assert got.texts.tolist() == [row.tolist() for row in texts]
    assert got.images.shape[1] == got.texts.shape[1] == 3
    assert (got.ids, got.splits, got.owners.tolist()) == (ids, splits, owners)
    assert got.captions == (captions if whole.captions is not None else None)
    assert got.owners.dtype == torch.int64
    assert (got.name, got.manifest) == (whole.name, whole.manifest)


@settings(deadline=None, max_examples=40)
@given(embeddings())
def test_splits_are_a_partition(whole):
    present = sorted(set(whole.splits))
    parts = [whole.split(name) for name in present]
    assert sum(map(len, parts)) == len(whole)
    assert sum(len(part.owners) for part in parts) == len(whole.owners)
    assert sorted(i for part in parts for i in part.ids) == sorted(whole.ids)
    for name, part in zip(present, parts, strict=True):
        assert set(part.splits) == {name}
    for name, shortcut in (("train", "train"), ("validation", "validation"), ("test", "test")):
        if name in present:
            assert getattr(whole, shortcut).ids == whole.split(name).ids
        else:
            with pytest.raises(InputError, match=rf"The split '{name}' of drawn is empty; present: {present[0]}"):
                getattr(whole, shortcut)


@settings(deadline=None, max_examples=40)
@given(embeddings(), st.data())
def test_a_mask_selects_like_its_rows(whole, data):
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(whole), max_size=len(whole))))
    assert whole.select(mask).ids == whole.select(mask.nonzero()[:, 0]).ids
    assert torch.equal(whole.select(mask.numpy()).texts, whole.select(mask.nonzero()[:, 0]).texts)


def test_consecutive_rows_are_views_and_others_copies():
    whole = Embeddings.from_arrays(torch.randn(6, 4), torch.randn(12, 4), [i // 2 for i in range(12)])
    part = whole.select(range(2, 5))
    assert part.images.data_ptr() == whole.images[2].data_ptr()
    assert part.texts.data_ptr() == whole.texts[4].data_ptr()
    assert whole.select([2, 4]).images.data_ptr() != whole.images[2].data_ptr()


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([0, 3], r"Row 3 does not exist; there are 3 images \(0 to 2\)\."),
        ([-4], r"Row -4 does not exist; there are 3 images \(0 to 2\)\."),
        ([0.5], r"rows has shape \(1,\) and dtype torch.float32; a list of integers is needed\."),
        ([[0]], r"rows has shape \(1, 1\) and dtype torch.int64; a list of integers is needed\."),
        ([True, False], r"A mask of 2 booleans cannot select among 3 images; pass 3 of them\."),
        (["a"], r"rows cannot be read as numbers \(.*\); pass a numpy array or a tensor\."),
    ],
)
def test_rows_that_cannot_be_selected(rows, sentence):
    whole = Embeddings.from_arrays(torch.ones(3, 2), torch.ones(1, 2), [1])
    with pytest.raises(InputError, match=sentence):
        whole.select(rows)


def arrays(**changes):
    generator = torch.Generator().manual_seed(0)
    usual = {
        "images": torch.randn(3, 4, generator=generator),
        "texts": torch.randn(5, 4, generator=generator),
        "owners": [0, 0, 1, 2, 2],
    }
    return {**usual, **changes}


def with_row(values, row, value):
    changed = values.clone()
    changed[row] = value
    return changed


IMAGES = arrays()["images"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"images": with_row(IMAGES, (1, 2), torch.nan)}, r"Row 1 of images holds NaN or infinity; drop it or compute"),
        (
            {"images": with_row(IMAGES, (2, 0), -torch.inf)},
            r"Row 2 of images holds NaN or infinity; drop it or compute",
        ),
        ({"images": with_row(IMAGES, 0, 0.0)}, r"Row 0 of images is all zero, so it has no direction; drop it or comp"),
        ({"images": IMAGES.double() * 1e300}, r"Row 0 of images holds NaN or infinity; drop it or compute it again\."),
        ({"texts": torch.zeros(5, 4)}, r"Row 0 of texts is all zero, so it has no direction; drop it or compute"),
        ({"texts": torch.ones(5, 3)}, r"Image embeddings are 4 wide and text embeddings 3; both must come from the"),
        ({"images": torch.ones(4)}, r"images has shape \(4,\); a matrix \(rows, width\) is needed\."),
        ({"images": torch.ones(3, 0)}, r"images has shape \(3, 0\); a matrix \(rows, width\) is needed\."),
        ({"images": torch.ones(0, 4)}, r"images has no rows; pass at least one image embedding\."),
        ({"images": np.ones((3, 4), dtype=int)}, r"images has dtype torch.int64; floating-point embeddings are needed"),
        ({"images": [["a"]]}, r"images cannot be read as numbers \(.*\); pass a numpy array or a tensor\."),
        ({"texts": np.array([[1, None]])}, r"texts cannot be read as numbers \(.*\); pass a numpy array or a tensor"),
        ({"owners": [0, 1]}, r"owners has shape \(2,\) and 5 captions need \(5,\)\."),
        ({"owners": [[0], [0], [1], [2], [2]]}, r"owners has shape \(5, 1\) and 5 captions need \(5,\)\."),
        ({"owners": [0, 0, 1, 2, 3]}, r"Caption 4 belongs to image 3, but there are 3 images \(0 to 2\)\."),
        ({"owners": [0, -1, 1, 2, 2]}, r"Caption 1 belongs to image -1, but there are 3 images \(0 to 2\)\."),
        ({"owners": [0.0, 0.5, 1, 2, 2]}, r"owners has dtype torch.float32; integers, the row of each caption's image"),
        ({"owners": [True, False] * 2 + [True]}, r"owners has dtype torch.bool; integers, the row of each caption's"),
        ({"ids": ["a"]}, r"ids has 1 entries and 3 are needed\."),
        ({"captions": ["a"] * 6}, r"captions has 6 entries and 5 are needed\."),
        ({"ids": ["a", 1.5, "c"]}, r"Entry 1 of ids is of type float, not a string; convert it\."),
        ({"captions": ["a", None, "c", "d", "e"]}, r"Entry 1 of captions is of type NoneType, not a string; convert"),
        ({"splits": ["train", "test", 3]}, r"Entry 2 of splits is of type int, not a string; convert it\."),
        ({"splits": []}, r"splits has 0 entries and 3 are needed\."),
    ],
)
def test_arrays_that_cannot_be_used(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        Embeddings.from_arrays(**arrays(**changes))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_types_and_defaults(dtype):
    usual = arrays()
    images = usual["images"].to(getattr(torch, dtype))
    made = Embeddings.from_arrays(images.requires_grad_(), usual["texts"].numpy(), np.array(usual["owners"], np.int32))
    assert made.images.dtype == (torch.float16 if dtype == "float16" else torch.float32)
    assert not made.images.requires_grad
    assert torch.equal(made.images, images.detach().to(made.images.dtype))
    assert made.ids == ["0", "1", "2"]
    assert made.splits == ["all"] * 3
    assert made.captions is None
    assert made.owners.tolist() == [0, 0, 1, 2, 2]
    assert (len(made), made.width) == (3, 4)


def test_odd_arrays_are_fine_and_quiet():
    usual = arrays()
    frozen = usual["images"].numpy()
    frozen.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = Embeddings.from_arrays(frozen, usual["texts"].numpy()[::-1, ::-1], tuple(usual["owners"]))
    assert torch.equal(made.texts, usual["texts"].flip(0, 1))
    assert Embeddings.from_arrays(frozen, np.ones((0, 4), np.float32), []).texts.shape == (0, 4)


def test_ids_may_be_numbers_and_all_names_arrays():
    some = arrays(ids=np.array([30, 10, 20]), captions=np.array(list("abcde")), splits=np.array(["train"] * 3))
    made = Embeddings.from_arrays(**some)
    assert (made.ids, made.captions, made.splits) == (["30", "10", "20"], list("abcde"), ["train"] * 3)
    assert {type(text) for text in (*made.ids, *made.captions, *made.splits)} == {str}
    assert Embeddings.from_arrays(**arrays(ids=[7, 8, 9])).ids == ["7", "8", "9"]


@pytest.mark.parametrize("scale", [1.0, 1.1])
def test_the_manifest_says_whether_rows_have_unit_length(scale):
    images = torch.nn.functional.normalize(torch.randn(70_000, 4), dim=1)
    images[-1] *= scale
    made = Embeddings.from_arrays(images, images[:1], [0], encoder="mine")
    assert made.manifest == {"encoder": "mine", "unit_length": scale == 1.0}


def test_owners_may_be_left_out_where_each_image_has_one_caption():
    images, texts = torch.eye(3), torch.eye(3).flip(0)
    assert Embeddings.from_arrays(images, texts).owners.tolist() == [0, 1, 2]
    alone = Embeddings.from_arrays(images)
    assert (len(alone), tuple(alone.texts.shape), alone.owners.tolist()) == (3, (0, 3), [])
    assert Embeddings.from_arrays(images, texts[:0]).owners.tolist() == []
    with pytest.raises(
        InputError, match=r"There are 3 images and 2 captions; with other than one caption an image pass"
    ):
        Embeddings.from_arrays(images, texts[:2])


def test_rows_may_come_in_lists():
    images = torch.eye(3)
    for rows in (list(images), images.tolist(), [row.numpy() for row in images]):
        assert torch.equal(Embeddings.from_arrays(rows, rows).images.float(), images)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda e: Embeddings.from_arrays(e, ["a dog"] * 3), r"texts cannot be read as numbers \(it holds text"),
        (lambda e: Embeddings.from_arrays("a.jpg", e), r"images cannot be read as numbers \(it holds text"),
        (lambda e: Embeddings.from_arrays(e, e, ["a", "b", "c"]), r"owners cannot be read as numbers \(it holds text"),
        (
            lambda e: Embeddings.from_arrays(e[0], e),
            r"images has shape \(3,\); a matrix",
        ),
        (lambda e: Embeddings.from_arrays(e, e, captions="abc"), "captions is one string; pass a list of 3"),
        (lambda e: Embeddings.from_arrays(e, e, ids="abc"), "ids is one string"),
        (lambda e: Embeddings.from_arrays(e, e).select(["0"]), r"rows cannot be read as numbers \(it holds text"),
        (lambda e: evaluate_retrieval(e, e), "embeddings is of type Tensor; pass Embeddings: embed"),
        (
            lambda e: evaluate_retrieval(*[Embeddings.from_arrays(e, e)] * 2),
            "editor is of type Embeddings, which scores",
        ),
        (lambda e: compare(Embeddings.from_arrays(e, e), e, {}), "validation is of type Tensor"),
        (lambda e: evaluate_editor(PlainScorer(), e), "embeddings is of type PlainScorer"),
        (lambda e: CaptionEditor.fit(None, e), "train is of type Tensor"),
        (lambda e: embed("a model", []), "encoder is of type str, which embeds nothing; pass what load_encoder gives"),
        (lambda e: embed(FakeEncoder(), e), "A collection cannot be read from Tensor"),
    ],
)
def test_what_stands_in_the_wrong_place_gets_a_sentence(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call(torch.eye(3))


def test_one_pair_at_a_time_is_explained():
    editor = CaptionEditor.load(TINY_EDITOR)
    row = torch.nn.functional.normalize(torch.ones(editor.width), dim=0)
    alone = editor.explain_edit(row, row)
    assert editor.explain_edit(row[None].numpy(), row.numpy()).edited_score == pytest.approx(alone.edited_score)
    with pytest.raises(InputError, match=r"image has shape \(2, \d+\); one row \(d,\) is needed"):
        editor.explain_edit(row.expand(2, -1), row)
    with pytest.raises(InputError, match=r"text cannot be read as numbers \(it holds text"):
        editor.explain_edit(row, "a dog")
