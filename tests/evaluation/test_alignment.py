"""Measures of alignment against loops over all pairs, and what they must say where the answer is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.editing import CaptionEditor
from boresight.editing.config import EditorConfig
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation import alignment as balance
from boresight.evaluation import alignment as measures
from boresight.evaluation.alignment import (
    alignment,
    alignment_report,
    captioned_share,
    information_imbalance,
    l2m,
    matched_cosine,
    other_cosine,
    relative_modality_gap,
    uniformity,
)
from boresight.evaluation.pairs import matched_pairs
from boresight.evaluation.probes import object_bias
from editing_world import WIDTH, quiet, sae_fixture, world  # noqa: F401

SEEDS = st.integers(0, 2**31)


def draw(seed: int, n: int = 7, m: int = 11, d: int = 5) -> Embeddings:
    """Ragged, some images without captions, not of unit length."""
    numbers = torch.Generator().manual_seed(seed)
    owners = torch.randint(n, (m,), generator=numbers)
    return Embeddings.from_arrays(
        3 * torch.randn(n, d, generator=numbers) + 1, torch.randn(m, d, generator=numbers), owners
    )


def unit(rows) -> list[list[float]]:
    return [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in rows.double().tolist()]


def dot(a, b) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def gap(a, b) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def within(rows) -> list[float]:
    return [dot(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]


@given(SEEDS, st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_gap_and_alignment_by_loops(seed, block):
    embeddings = draw(seed)
    images, texts, owners = unit(embeddings.images), unit(embeddings.texts), embeddings.owners.tolist()
    pair = [(images[owner], text) for owner, text in zip(owners, texts, strict=True)]
    centres = [[mean(column) for column in zip(*rows, strict=True)] for rows in (images, texts)]
    cosines = {"pair": [dot(*both) for both in pair], "images": within(images), "texts": within(texts)}
    apart = {name: mean((1 - cosine) / 2 for cosine in values) for name, values in cosines.items()}
    others = [dot(image, text) for text, owner in zip(texts, owners, strict=True)
              for row, image in enumerate(images) if row != owner]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "_FLOATS", block)
        assert l2m(embeddings) == pytest.approx(gap(*centres), abs=1e-9)
        assert relative_modality_gap(embeddings) == pytest.approx(
            apart["pair"] / (apart["pair"] + (apart["images"] + apart["texts"]) / 2), abs=1e-9
        )
        assert matched_cosine(embeddings) == pytest.approx(mean(dot(*both) for both in pair), abs=1e-9)
        assert other_cosine(embeddings) == pytest.approx(mean(others), abs=1e-9)
        assert alignment(embeddings) == pytest.approx(mean(gap(*both) ** 2 for both in pair), abs=1e-9)
        assert alignment(embeddings, 1) == pytest.approx(mean(gap(*both) for both in pair), abs=1e-9)
        assert uniformity(embeddings.images, 3) == pytest.approx(
            math.log(mean(math.exp(-3 * (2 - 2 * cosine)) for cosine in within(images))), abs=1e-9
        )


def test_known_gaps():
    same = Embeddings.from_arrays(torch.eye(4), torch.eye(4), range(4))
    assert l2m(same) == 0
    assert relative_modality_gap(same) == 0
    assert (alignment(same), matched_cosine(same), other_cosine(same)) == (0, 1, 0)
    opposite = Embeddings.from_arrays(torch.eye(4), -torch.eye(4), range(4))
    assert l2m(opposite) == pytest.approx(2 * 0.5)  # two means of length 1/2
    assert relative_modality_gap(opposite) == pytest.approx(1 / 1.5)
    one = Embeddings.from_arrays(torch.eye(4)[:1], torch.eye(4)[1:2], [0])
    assert math.isnan(relative_modality_gap(one))
    assert math.isnan(other_cosine(one))
    assert math.isnan(uniformity(one.images))
    assert uniformity(torch.ones(5, 3)) == pytest.approx(0)
    assert uniformity(torch.randn(2000, 512, generator=torch.Generator().manual_seed(0))) == pytest.approx(-4, abs=0.05)


def bias_by_loops(rows, labels) -> float:
    """labels: for each row the set of its labels. The difference of means over ordered pairs of different rows."""
    same, other = [], []
    for i, a in enumerate(unit(rows)):
        for j, b in enumerate(unit(rows)):
            if i != j:
                for mine in labels[i]:
                    for theirs in labels[j]:
                        (same if mine == theirs else other).append(dot(a, b))
    return mean(same) - mean(other)


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_object_bias_by_loops(seed):
    numbers = np.random.default_rng(seed)
    rows = torch.from_numpy(numbers.normal(size=(12, 4)))
    objects = numbers.permutation([0, 0, 0, 1, 1, 7, 7, 7, 7, 9, 9, -3])
    several = numbers.random((12, 3)) < 0.5
    several[:4] = [[True, True, False], [True, False, False], [False, True, True], [False, False, False]]
    expected = bias_by_loops(rows, [{int(one)} for one in objects]) - bias_by_loops(
        rows, [set(np.flatnonzero(row).tolist()) for row in several]
    )
    assert object_bias(rows, objects, several) == pytest.approx(expected, abs=1e-9)
    assert object_bias(rows, several, objects) == pytest.approx(-expected, abs=1e-9)
    assert object_bias(rows, objects, objects) == 0


def test_rows_that_gather_by_object_have_object_bias():
    numbers = torch.Generator().manual_seed(0)
    objects, attributes = torch.arange(40) % 4, torch.arange(40) // 4 % 5
    rows = 3 * torch.eye(9)[objects] + torch.eye(9)[4 + attributes] + 0.1 * torch.randn(40, 9, generator=numbers)
    assert object_bias(rows, objects, attributes) > 0.5
    assert object_bias(rows, attributes, objects) < -0.5


def imbalance_by_loops(a, b) -> float:
    """Rank in b of the nearest neighbour in a; no ties."""
    a, b, ranks = unit(a), unit(b), []
    for i in range(len(a)):
        others = [j for j in range(len(a)) if j != i]
        nearest = min(others, key=lambda j: gap(a[i], a[j]))
        ranks.append(1 + sum(gap(b[i], b[j]) < gap(b[i], b[nearest]) for j in others))
    return 2 / len(a) * mean(ranks)


@given(SEEDS, st.integers(3, 20), st.integers(1, 60))
@settings(max_examples=25, deadline=None)
def test_information_imbalance_by_loops(seed, n, floats):
    numbers = torch.Generator().manual_seed(seed)
    a = torch.randn(n, 4, generator=numbers)
    b = torch.randn(n, 6, generator=numbers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(balance, "_FLOATS", floats)
        assert information_imbalance(a, b) == pytest.approx(imbalance_by_loops(a, b), abs=1e-9)


def test_who_holds_more():
    """Captions that leave out a half: images predict the neighbours of captions better than the other way."""
    numbers = torch.Generator().manual_seed(0)
    images = torch.randn(300, 8, generator=numbers)
    texts = images.clone()
    texts[:, 3:] = 0
    down, up = information_imbalance(images, texts), information_imbalance(texts, images)
    assert down < 0.7 * up
    assert information_imbalance(images, images) == pytest.approx(2 / 300)
    noise = torch.randn(300, 8, generator=numbers)
    assert information_imbalance(images, noise) == pytest.approx(1, abs=0.1)


def test_tied_neighbours_share():
    """Captions alike say nothing of which image is near: the mean over all of them, whatever their order."""
    alike = torch.ones(9, 3)
    images = torch.randn(9, 3, generator=torch.Generator().manual_seed(1))
    assert information_imbalance(alike, images) == pytest.approx(2 / 9 * 4.5)  # ranks 1 to 8 alike
    assert information_imbalance(images, alike) == pytest.approx(2 / 9 * 4.5)  # all at the mean rank


def test_large_sets_are_sampled_by_the_seed():
    pairs = draw(3, n=900, m=900)
    chosen = [list(matched_pairs(pairs, at_most=300, seed=seed).ids) for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_the_share_of_the_code_that_captions_keep(sae):
    test = world(sae, 12, seed=3)
    editor = CaptionEditor(sae, EditorConfig(form="residual"))
    with torch.no_grad():
        editor.mask_network.map.normal_(generator=torch.Generator().manual_seed(3))
        editor.mask_network.bias.zero_()
    masks, codes = editor.mask(test.texts).double(), sae.encode(test.images).dense().double().square()
    shares = {"one caption": [], "all captions": [], "captions of another": []}
    for image in range(12):
        mine, others = (test.owners == image).nonzero()[:, 0], (test.owners == (image - 1) % 12).nonzero()[:, 0]
        for caption in mine:
            shares["one caption"].append(float((codes[image] * masks[caption] ** 2).sum() / codes[image].sum()))
        for name, captions in (("all captions", mine), ("captions of another", others)):
            shares[name].append(float((codes[image] * masks[captions].amax(0) ** 2).sum() / codes[image].sum()))
    expected = {name: mean(values) for name, values in shares.items()}
    assert 0 < expected["one caption"] < expected["all captions"] < 1
    assert captioned_share(test, editor) == pytest.approx(expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(balance, "_FLOATS", 3 * sae.n_latents)
        assert captioned_share(test, editor) == pytest.approx(expected)
    every = captioned_share(test, CaptionEditor(sae, EditorConfig(form="residual")))
    assert set(every.values()) == {1.0}
    with pytest.raises(InputError, match="form 'raw' has no latents"):
        captioned_share(test, CaptionEditor(sae, EditorConfig(form="raw")))


def test_matched_pairs_are_each_images_own():
    embeddings = draw(3, n=30, m=50)
    captioned = sorted(set(embeddings.owners.tolist()))
    pairs = matched_pairs(embeddings, seed=1)
    assert list(pairs.ids) == [str(row) for row in captioned]
    assert torch.equal(pairs.images, embeddings.images[captioned])
    for row, text in zip(captioned, pairs.texts, strict=True):
        assert any(torch.equal(text, own) for own in embeddings.texts[embeddings.owners == row])
    assert torch.equal(matched_pairs(embeddings, seed=1).texts, pairs.texts)
    assert not torch.equal(matched_pairs(embeddings, seed=2).texts, pairs.texts)
    assert len(matched_pairs(embeddings, at_most=4)) == 4
    shuffled = matched_pairs(embeddings, seed=1, shuffled=True)
    assert torch.equal(shuffled.texts, pairs.texts)
    assert list(shuffled.ids) == [*pairs.ids[1:], pairs.ids[0]]


def test_every_caption_of_an_image_is_drawn_some_time():
    embeddings = Embeddings.from_arrays(torch.eye(2), torch.randn(6, 2), [0, 1, 0, 0, 1, 0])
    drawn = [matched_pairs(embeddings, seed=seed).texts[0].tolist() for seed in range(300)]
    counts = [drawn.count(embeddings.texts[caption].tolist()) for caption in (0, 2, 3, 5)]
    assert sum(counts) == 300
    assert min(counts) > 40


def test_the_report_measures_edited_pairs(sae):
    test = world(sae, 20, seed=3)
    editor = CaptionEditor(sae, EditorConfig(form="gated"))
    with torch.no_grad():
        editor.head_map.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
        editor.gate_network.bias.normal_(generator=torch.Generator().manual_seed(2))
    report = alignment_report(test, editor, seed=5)
    assert list(report) == ["plain", "edited", "shuffled images", "captioned share"]
    plain = matched_pairs(test, seed=5)
    rows, captions = [test.ids.index(name) for name in plain.ids], [
        next(j for j in range(len(test.owners)) if torch.equal(test.texts[j], text)) for text in plain.texts
    ]  # fmt: skip
    for name, shown in (("edited", rows), ("shuffled images", [*rows[1:], rows[0]])):
        edited = editor.edit(test.images[shown], test.texts[captions])
        by_hand = Embeddings.from_arrays(edited, editor.text(test.texts[captions]), range(20))
        assert report[name]["L2M"] == pytest.approx(l2m(by_hand))
        assert report[name]["RMG"] == pytest.approx(relative_modality_gap(by_hand))
        assert report[name]["cosine, matched"] == pytest.approx(matched_cosine(by_hand))
        assert report[name]["imbalance, image to text"] == pytest.approx(
            information_imbalance(by_hand.images, by_hand.texts)
        )
    assert report["plain"]["alignment"] == pytest.approx(alignment(plain))
    assert report["plain"]["RMG"] != pytest.approx(report["edited"]["RMG"])
    assert alignment_report(test, editor, seed=5) == report


def test_an_untrained_editor_changes_nothing(sae):
    test = world(sae, 15, seed=3)
    report = alignment_report(test, CaptionEditor(sae, EditorConfig(form="residual")))
    assert report["edited"] == pytest.approx(report["plain"], abs=1e-5)
    assert report["shuffled images"]["cosine, matched"] < report["plain"]["cosine, matched"] - 0.1
    assert list(alignment_report(test)) == ["plain"]


def test_labels_of_another_form_are_refused():
    rows, objects, attributes = torch.eye(20), torch.arange(20) % 3, torch.arange(20) % 4 > 1
    with pytest.raises(InputError, match=r"attributes has shape \(20,\) and dtype torch.bool; pass 20 integers"):
        object_bias(rows, objects, attributes)
    with pytest.raises(InputError, match=r"objects has shape \(19,\)"):
        object_bias(rows, objects[:19], objects)


def test_bad_input():
    embeddings = draw(0)
    bare = Embeddings.from_arrays(torch.eye(3), torch.empty(0, 3), [], name="bare")
    for measure in (
        l2m,
        relative_modality_gap,
        alignment,
        matched_cosine,
        other_cosine,
        matched_pairs,
        alignment_report,
    ):
        with pytest.raises(InputError, match="bare has no captions"):
            measure(bare)
    with pytest.raises(InputError, match="objects do not tell rows apart"):
        object_bias(torch.eye(3), [0, 1, 2], [0, 0, 1])
    with pytest.raises(InputError, match="attributes do not tell rows apart"):
        object_bias(torch.eye(3), [0, 0, 1], [0, 0, 0])
    with pytest.raises(InputError, match="at least 3 items"):
        information_imbalance(torch.eye(2), torch.eye(2))
    with pytest.raises(InputError, match="at least 3 items"):
        information_imbalance(torch.eye(4), torch.eye(3))
    with pytest.raises(InputError, match="Row 1 of second is all zero"):
        information_imbalance(torch.eye(3), torch.tensor([[1.0], [0.0], [1.0]]))
    with pytest.raises(InputError, match="at_most is 1"):
        matched_pairs(embeddings, at_most=1)
    single = replace(embeddings, owners=torch.zeros_like(embeddings.owners))
    with pytest.raises(InputError, match="a single image with captions"):
        matched_pairs(single, shuffled=True)


def test_half_precision_on_disk(tmp_path):
    embeddings = draw(4, n=40, m=90)
    embeddings.save(tmp_path / "e")
    rounded = Embeddings.from_arrays(embeddings.images.half(), embeddings.texts.half(), embeddings.owners)
    rounded.save(tmp_path / "h")
    for name in ("e", "h"):
        assert alignment_report(Embeddings.load(tmp_path / name))["plain"] == pytest.approx(
            alignment_report(embeddings)["plain"], abs=2e-2
        )
