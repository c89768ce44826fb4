"""The verdict against a slow loop and in cases whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation import evaluate_retrieval
from boresight.evaluation import verdict as module
from boresight.evaluation.retrieval import chance
from boresight.evaluation.verdict import hits_by_image, verdict
from boresight.seeds import generator
from retrieval_world import noisy


def hits(test: Embeddings) -> np.ndarray:
    return hits_by_image(evaluate_retrieval(test), test.owners)


def said_of(ours: Embeddings, plain: Embeddings, **options):
    return verdict(plain, [hits(ours)], {"plain": [hits(plain)]}, **options)


@settings(max_examples=40, deadline=None)
@given(
    captions=st.lists(st.integers(0, 3), min_size=1, max_size=7).filter(any),
    seed=st.integers(0, 10**6),
    seeds=st.integers(1, 3),
    at_once=st.sampled_from([1, 5, 2**20]),
)
def test_against_a_loop_over_queries(captions, seed, seeds, at_once):
    """Both directions from lists of queries, image by image, with the draws that the seed gives."""
    draw = np.random.default_rng(seed)
    n, owners = len(captions), np.repeat(np.arange(len(captions)), captions)
    test = Embeddings.from_arrays(draw.normal(size=(n, 3)), draw.normal(size=(len(owners), 3)), owners)
    of_captions = draw.integers(0, 4, size=(3, seeds, len(owners))).astype(float)
    of_images = draw.integers(0, 4, size=(3, seeds, n)).astype(float)

    def array(row: int, one: int) -> np.ndarray:
        sums = np.bincount(owners, weights=of_captions[row, one], minlength=n)
        return np.stack([sums, of_images[row, one]], axis=1)

    arrays = [[array(row, one) for one in range(seeds)] for row in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_DRAWN_AT_ONCE", at_once)
        found = verdict(test, arrays[0], {"plain": arrays[1], "other": arrays[2]}, draws=30, seed=seed)

    def recall_sum(row: int, images: list[int]) -> float:
        asked = (
            [value for image in images for one in range(seeds) for value in of_captions[row, one, owners == image]],
            [of_images[row, one, image] for image in images for one in range(seeds)],
        )
        return sum(100 * sum(values) / len(values) for values in asked)

    captioned = [image for image in range(n) if captions[image]]
    rival = 1 if recall_sum(1, captioned) >= recall_sum(2, captioned) - 1e-9 else 2
    assert found.theirs == pytest.approx(recall_sum(rival, captioned))
    assert found.ours == pytest.approx(recall_sum(0, captioned))
    if abs(recall_sum(1, captioned) - recall_sum(2, captioned)) < 1e-9:
        return
    assert found.rival == ("plain", "other")[rival - 1]
    chosen = torch.randint(len(captioned), (30, len(captioned)), generator=generator(seed, "verdict")).tolist()
    drawn = [[captioned[image] for image in images] for images in chosen]
    differences = [recall_sum(0, images) - recall_sum(rival, images) for images in drawn]
    assert [found.low, found.high] == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=1e-6)
    assert found.word == ("helps" if found.low > 1e-9 else "hurts" if found.high < -1e-9 else "level")


def test_the_difference_is_that_of_the_tables_ties_and_bare_images_too():
    draw = np.random.default_rng(3)
    rows, owners = draw.integers(-1, 2, size=(30, 4)) + 0.5, draw.integers(0, 20, size=50)
    test = Embeddings.from_arrays(rows, draw.integers(-1, 2, size=(50, 4)) + 0.5, owners)
    other = replace(test, texts=torch.from_numpy(draw.integers(-1, 2, size=(50, 4)) + 0.5).float())
    plain, ours = evaluate_retrieval(test), evaluate_retrieval(other)
    found = said_of(other, test)
    assert (found.ours, found.theirs) == (pytest.approx(ours.recall_sum), pytest.approx(plain.recall_sum))
    assert plain.t2i_hits.sum() % 1 > 0  # there were ties
    assert np.isnan(plain.i2t_hits).sum() == 30 - len(set(owners.tolist()))


def test_helps_hurts_and_level():
    better, worse = noisy(300, 0.5), noisy(300, 1.5)
    helps, hurts, level = said_of(better, worse), said_of(worse, better), said_of(better, better)
    assert (helps.word, hurts.word, level.word) == ("helps", "hurts", "level")
    assert (hurts.low, hurts.high) == pytest.approx((-helps.high, -helps.low))
    assert (level.difference, level.low, level.high) == (0, 0, 0)
    assert helps.low < helps.difference < helps.high
    assert helps.warnings == level.warnings == ()
    assert hurts.warnings == ("'plain' found more than the edit, and is the simpler way.",)
    assert helps.sentence == (
        f"The edit helps: it has {helps.ours:.1f} in the sum of six recalls and 'plain', the best alternative, "
        f"{helps.theirs:.1f}; the difference is {helps.difference:+.1f} (95 % interval {helps.low:+.1f} to "
        f"{helps.high:+.1f})."
    )
    assert "difference is +0.0 (95 % interval +0.0 to +0.0)" in str(level)
    assert said_of(better, worse) == helps
    assert said_of(better, worse, seed=1) != helps


def test_the_best_alternative_is_the_rival_and_seeds_are_averaged():
    test = noisy(250, 1.0)
    arrays = [hits(noisy(250, noise)) for noise in (0.6, 0.8, 0.7)]
    found = verdict(
        test, [arrays[0], arrays[1]], {"plain": [hits(test)], "tuned": [arrays[2], arrays[1]]}, notes=["Mind."]
    )
    assert found.rival == "tuned"
    sums = [evaluate_retrieval(noisy(250, noise)).recall_sum for noise in (0.6, 0.8, 0.7)]
    assert found.ours == pytest.approx((sums[0] + sums[1]) / 2)
    assert found.theirs == pytest.approx((sums[2] + sums[1]) / 2)
    assert found.warnings == ("Mind.",)
    with pytest.raises(InputError, match="needs 'plain' among the rivals"):
        verdict(test, arrays, {"tuned": arrays})


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """On test sets of one population; its true difference is that of very many."""
    draw = np.random.default_rng(0)

    def drawn(images: int) -> list[np.ndarray]:
        ease = draw.uniform(0, 3, size=images)
        return [
            np.stack([draw.binomial(3, np.clip((ease + lift) / 4, 0, 1)) for _ in range(2)], axis=1)
            for lift in (0.2, 0)
        ]

    true = 100 * (np.subtract(*drawn(10**6))).mean(0).sum()
    test = noisy(80, 1.0, captions=1)
    held = 0
    for number in range(200):
        ours, plain = drawn(80)
        found = verdict(test, [ours], {"plain": [plain]}, draws=400, seed=number)
        held += found.low <= true <= found.high
    assert 0.89 <= held / 200 <= 0.99


@pytest.mark.parametrize("images", [18, 60, 400])
def test_a_wrong_encoder_is_named(images):
    """Of random pairs plain is at chance; nearly all of the time the warning is there, and not for one that works."""
    warned = 0
    for seed in range(20):
        draw = np.random.default_rng(seed)
        other = draw.normal(size=(2 * images, 16)).astype(np.float32)
        random = replace(noisy(images, 1.0, seed), texts=torch.from_numpy(other))
        warned += any("'plain' is at chance" in warning for warning in said_of(random, random).warnings)
    assert warned >= 18
    works = said_of(noisy(images, 0.8), noisy(images, 0.8))
    assert not any("chance" in warning for warning in works.warnings)
    assert [f"The test set has {images} images" in warning for warning in works.warnings] == [True] * (images < 200)


def test_chance_is_that_of_the_gallery():
    test = noisy(40, 1.0)
    assert hits_by_image(chance(test), test.owners).sum(0) == pytest.approx(
        [80 * 16 / 40, 40 * _level(80, 2)], rel=1e-3
    )


def _level(captions: int, own: int) -> float:
    """How many of the depths find one of `own` captions among all, in a random order."""
    missed = [np.prod([(captions - own - drawn) / (captions - drawn) for drawn in range(k)]) for k in (1, 5, 10)]
    return sum(1 - miss for miss in missed)


def test_galleries_are_judged_together_by_the_chance_of_each():
    parts = [noisy(60, 1.0, seed) for seed in (0, 1)]
    better = [replace(part, texts=part.images[part.owners]) for part in parts]
    arrays = [[np.concatenate([hits(part) for part in each])] for each in (better, parts)]
    found = verdict(parts, arrays[0], {"plain": arrays[1]})
    assert found.ours == 600
    assert found.theirs == pytest.approx(np.mean([evaluate_retrieval(part).recall_sum for part in parts]))
    assert found.word == "helps"
    assert "The test set has 120 images" in str(found)
    whole = replace(parts[0], images=parts[0].images.roll(1, 0))  # every caption at another image
    wrong = verdict([whole, parts[1]], arrays[1], {"plain": [np.concatenate([hits(whole), hits(whole)])]})
    assert any("'plain' is at chance" in warning for warning in wrong.warnings)
    assert any(f"knows nothing has {sum(_chances(60)):.1f}" in warning for warning in wrong.warnings)


def _chances(images: int) -> list[float]:
    """Recall sums of T2I and I2T in a gallery with two captions an image."""
    return [100 * 16 / images, 100 * _level(2 * images, 2)]
