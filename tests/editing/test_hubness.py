"""Corrections of hubness against plain loops, and what choosing them promises."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from boresight.editing import CaptionEditor, CorrectedScorer, PlainScorer, hubness
from boresight.editing.config import Correction, EditorConfig
from boresight.editing.hubness import BANK, Bank, bank_rows, choose_corrections
from boresight.editing.memory import Memory
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation import evaluate_retrieval
from editing_world import WIDTH, quiet, sae_fixture, world  # noqa: F401


def unit(count: int, seed: int, width: int = WIDTH) -> torch.Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def plain_bank(images: torch.Tensor, texts: torch.Tensor) -> Bank:
    scorer = PlainScorer()
    return Bank(scorer.score_prepared, scorer.prepare_images(images), scorer.prepare_texts(texts))


def hubs(seed: int, images: int, name: str) -> Embeddings:
    """Pairs that show one thing each; whatever they show, some images lean towards what all captions share."""
    draw = torch.Generator().manual_seed(seed)
    shown = F.normalize(torch.randn(images, 15, generator=draw), dim=1)
    heard = shown + 0.15 * torch.randn(images, 15, generator=draw)
    lean = 3 * torch.rand(images, 1, generator=draw) - 1.5
    return Embeddings.from_arrays(
        F.normalize(torch.cat([shown, lean], dim=1), dim=1),
        F.normalize(torch.cat([heard, torch.ones(images, 1)], dim=1), dim=1),
        range(images),
        ids=[f"{name}{row}" for row in range(images)],
    )


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 6),
    texts=st.integers(1, 6),
    size=st.integers(1, 9),
    data=st.data(),
)
def test_nnn_against_sorting(seed, images, texts, size, data):
    reach = data.draw(st.integers(1, size))
    x, t, bank_x, bank_t = (unit(count, seed + i) for i, count in enumerate((images, texts, size, size)))
    bank = plain_bank(bank_x, bank_t)
    scorer = CorrectedScorer(PlainScorer(), bank, Correction(reach=reach, share=0.7), Correction(reach=size, share=1.2))
    scores = scorer.score_prepared(scorer.prepare_images(x), scorer.prepare_texts(t))
    for i in range(images):
        for j in range(texts):
            near = sorted((float(x[i] @ other) for other in bank_t), reverse=True)[:reach]
            of_text = sum(float(t[j] @ other) for other in bank_x) / size
            expected = float(x[i] @ t[j]) - 0.7 * sum(near) / reach - 1.2 * of_text
            assert float(scores[i, j]) == pytest.approx(expected, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(0, 7), size=st.integers(1, 12), data=st.data())
def test_means_of_the_largest_against_sorting(seed, rows, size, data):
    counts = data.draw(st.lists(st.integers(1, size), min_size=1, max_size=3))
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 9, (size, rows), generator=draw).float().t()  # tied, and not row after row in memory
    before = scores.clone()
    got = hubness._means_of_largest(scores, counts)
    expected = [[sum(sorted(row, reverse=True)[:count]) / count for count in counts] for row in scores.tolist()]
    torch.testing.assert_close(got, torch.tensor(expected).view(rows, len(counts)))
    torch.testing.assert_close(scores, before)
    asking = scores.clone().requires_grad_(True)
    torch.testing.assert_close(hubness._means_of_largest(asking, counts), got)
    if rows:
        hubness._means_of_largest(asking, counts[:1]).sum().backward()
        torch.testing.assert_close(asking.grad.sum(1), torch.ones(rows))  # a share of 1 / count each


def test_sinkhorn_balances_the_bank():
    bank = plain_bank(unit(12, 0), unit(12, 1))
    scores = bank.score(bank.images, bank.texts)
    temperature = 0.1
    of_images = bank.of_images(bank.images, "sinkhorn", [temperature])
    of_texts = bank.of_texts(bank.texts, "sinkhorn", [temperature])
    weights = ((scores - of_images - of_texts.t()) / temperature).exp()
    # Each image has the same weight among all captions, each caption the same among all images.
    torch.testing.assert_close(weights.sum(1) / weights.sum(1).mean(), torch.ones(12), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(weights.sum(0) / weights.sum(0).mean(), torch.ones(12), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("method", ["nnn", "sinkhorn"])
def test_blocks_do_not_change_a_correction(method, monkeypatch):
    bank = plain_bank(unit(20, 0), unit(20, 1))
    reaches = [1, 7] if method == "nnn" else [0.05, 0.2]
    whole = bank.of_images(PlainScorer().prepare_images(unit(11, 2)), method, reaches)
    monkeypatch.setattr(hubness, "_SCORES", 45)
    torch.testing.assert_close(bank.of_images(PlainScorer().prepare_images(unit(11, 2)), method, reaches), whole)


@pytest.mark.parametrize("method", ["nnn", "sinkhorn"])
def test_it_mends_hubs_and_never_loses_on_validation(method):
    train, validation, test = hubs(0, 600, "a"), hubs(1, 200, "b"), hubs(2, 300, "c")
    rival = CorrectedScorer.fit(PlainScorer(), train, validation, method)
    plain, corrected = evaluate_retrieval(test), evaluate_retrieval(test, rival)
    assert corrected["T2I R@1"] > 1.3 * plain["T2I R@1"]
    before, after = evaluate_retrieval(validation), evaluate_retrieval(validation, rival)
    for direction in ("T2I", "I2T"):
        sums = [sum(scores[f"{direction} R@{k}"] for k in (1, 5, 10)) for scores in (before, after)]
        assert sums[1] >= sums[0]


def test_a_side_corrects_its_own_direction_alone():
    train, test = hubs(0, 300, "a"), hubs(2, 200, "c")
    bank, none, some = plain_bank(train.images, train.texts), Correction(reach=9, share=0), Correction(reach=9, share=1)
    plain = evaluate_retrieval(test)
    of_images = evaluate_retrieval(test, CorrectedScorer(PlainScorer(), bank, some, none))
    of_texts = evaluate_retrieval(test, CorrectedScorer(PlainScorer(), bank, none, some))
    assert of_images["I2T R@10"] == plain["I2T R@10"]
    assert of_images["T2I R@10"] != plain["T2I R@10"]
    assert of_texts["T2I R@10"] == plain["T2I R@10"]


@pytest.mark.parametrize("temperature", [0.01, 0.1])
def test_sinkhorn_against_iterations_of_logarithms(temperature):
    bank = plain_bank(unit(40, 0), unit(40, 1))
    scores = bank.score(bank.images, bank.texts).double() / temperature
    texts = torch.zeros(40, dtype=torch.float64)
    for _ in range(hubness._ITERATIONS):
        images = math.log(40) - (scores + texts).logsumexp(1)
        texts = math.log(40) - (scores + images.unsqueeze(1)).logsumexp(0)
    for got, wanted in zip(bank._balanced(temperature), (images, texts), strict=True):
        torch.testing.assert_close(got.double(), wanted, atol=1e-3, rtol=1e-4)


def test_either_method_is_chosen_where_it_finds_more():
    train, validation = hubs(0, 600, "a"), hubs(1, 200, "b")
    bank = plain_bank(train.images, train.texts)
    sums = {}
    for methods in (["nnn"], ["sinkhorn"], ["nnn", "sinkhorn"]):
        chosen = choose_corrections(PlainScorer(), bank, validation, methods)
        scores = evaluate_retrieval(validation, CorrectedScorer(PlainScorer(), bank, chosen.images, chosen.texts))
        sums[tuple(methods)] = [sum(scores[f"{side} R@{k}"] for k in (1, 5, 10)) for side in ("T2I", "I2T")]
        assert chosen.recall_sum == pytest.approx(sum(sums[tuple(methods)]))
    assert sums["nnn", "sinkhorn"] == [max(both) for both in zip(sums["nnn",], sums["sinkhorn",], strict=True)]


def test_where_nothing_helps_nothing_is_taken_off():
    exact = Embeddings.from_arrays(torch.eye(8), torch.eye(8), range(8), ids=[f"v{row}" for row in range(8)])
    for method in ("nnn", "sinkhorn"):
        bank = plain_bank(unit(30, 0, 8), unit(30, 1, 8))
        chosen = choose_corrections(PlainScorer(), bank, exact, [method])
        assert (chosen.images.share, chosen.texts.share) == (0, 0)


def test_an_editor_corrects_by_its_memory(sae, tmp_path):
    train, validation = world(sae, 120, 0), world(sae, 40, 1)
    editor = CaptionEditor.fit(sae, train, validation, form="gated", length_exponent=0.0, steps=20)
    editor.config = replace(
        editor.config, image_correction=Correction(reach=5, share=0.5), text_correction=Correction(reach=2, share=1.0)
    )
    scores = editor.score(validation.images, validation.texts)
    kept = editor.uncorrected()
    images, texts = editor.memory.images.float(), editor.memory.texts.float()
    own = torch.arange(len(images))
    with torch.no_grad():
        # Of the bank itself no pair sees its own in the memory.
        bank_x = kept.prepare_images(images, near=editor.memory.near_images(images, own))
        unit_texts = F.normalize(texts, dim=1)
        bank_t = kept.prepare_texts(unit_texts, near=editor.memory.near_texts(unit_texts, own))
        x, t = kept.prepare_images(validation.images), kept.prepare_texts(validation.texts)
        b = 0.5 * kept.score_prepared(x, bank_t).topk(5, dim=1).values.mean(1)
        c = kept.score_prepared(bank_x, t).topk(2, dim=0).values.mean(0)
    expected = kept.score(validation.images, validation.texts) - b.unsqueeze(1) - c
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)
    explained = editor.explain_edit(validation.images[0], validation.texts[0])
    assert list(explained.hubness.values()) == pytest.approx([float(b[0]), float(c[0])], abs=1e-5)
    assert explained.edited_score == pytest.approx(float(scores[0, 0]), abs=1e-5)
    editor.save(tmp_path / "editor")
    loaded = CaptionEditor.load(tmp_path / "editor")
    assert loaded.config == editor.config
    torch.testing.assert_close(loaded.score(validation.images, validation.texts), scores)


def test_the_corrected_score_is_an_inner_product(sae):
    train, validation = world(sae, 120, 0), world(sae, 40, 1)
    editor = CaptionEditor.fit(sae, train, validation, form="gated", length_exponent=0.0, steps=10)
    rule = Correction(reach=5, share=0.5)
    editor.config = replace(editor.config, image_correction=rule, text_correction=rule)
    with torch.no_grad():
        x, t = editor.prepare_images(validation.images), editor.prepare_texts(validation.texts)
        codes = torch.zeros(len(x), sae.n_latents).scatter_add(1, x.indices, x.values)
        ones = torch.ones(len(x), 1), torch.ones(len(t), 1)
        static = torch.cat([x.base, codes, x.bias.unsqueeze(1), ones[0]], dim=1)
        asked = torch.cat([t.query, t.latent_query.t(), -ones[1], -t.bias.unsqueeze(1)], dim=1)
        torch.testing.assert_close(static @ asked.t(), editor.score_prepared(x, t), atol=1e-5, rtol=1e-5)


def test_options_of_a_fit(sae):
    train, validation = world(sae, 60, 0), world(sae, 20, 1)
    without = CaptionEditor.fit(sae, train, validation, form="gated", length_exponent=0.0, steps=5, correction="none")
    assert without.config.image_correction is None
    chosen = CaptionEditor.fit(
        sae, train, validation, form="gated", length_exponent=0.0, steps=5, correction="sinkhorn"
    )
    assert chosen.config.image_correction.method == "sinkhorn"
    nothing = CaptionEditor.fit(sae, train, validation, form="residual", steps=5)
    assert nothing.config.image_correction is None  # there is no memory to measure it with


def test_bad_input_is_named(sae):
    for options, sentence in (
        ({"reach": 0, "share": 1}, "reach is 0; choose a whole number of neighbours"),
        ({"reach": 1.5, "share": 1}, "reach is 1.5; choose a whole number"),
        ({"method": "sinkhorn", "reach": -1, "share": 1}, "choose a temperature above 0"),
        ({"reach": 3, "share": -1}, "share is -1; choose 0 or more"),
        ({"method": "mean", "reach": 3, "share": 1}, "method='mean' is unknown"),
    ):
        with pytest.raises(InputError, match=sentence):
            Correction(**options)
    rule = Correction(reach=9, share=1)
    with pytest.raises(InputError, match="this editor has none; fit one"):
        CaptionEditor(sae, EditorConfig(image_correction=rule)).score(unit(2, 0), unit(2, 1))
    editor = CaptionEditor(sae, EditorConfig(memory="both", image_correction=rule))
    editor.memory = Memory(unit(4, 2), unit(4, 3))
    with pytest.raises(InputError, match="The bank has 4 pairs and 9 neighbours are asked for; choose fewer"):
        editor.score(unit(2, 0), unit(2, 1))


@pytest.mark.parametrize("count", [0, 1, 5, BANK, BANK + 1, 3 * BANK - 7])
def test_a_bank_is_spread_over_all_that_is_remembered(count):
    rows = bank_rows(count)
    assert len(rows) == min(count, BANK)
    assert len(set(rows.tolist())) == len(rows)
    if count:
        assert rows[0] == 0
        assert rows[-1] >= count - math.ceil(count / BANK)
