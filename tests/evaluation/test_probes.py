"""Linear probes against slow, obvious references, and what labels tell of an edit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation.pairs import matched_pairs
from boresight.evaluation.probes import fit_probe, holds, label_report, object_bias
from boresight.evaluation.results import percent
from boresight.seeds import generator


def clouds(n: int, classes: int = 4, width: int = 12, distance: float = 8.0, stream: str = "clouds"):
    """Gaussian clouds of unit spread around centres `distance` apart in scale; labels go round the classes."""
    centres = distance * torch.randn(classes, width, generator=generator(0, "centres"))
    labels = torch.arange(n) % classes
    return centres[labels] + torch.randn(n, width, generator=generator(0, stream)), labels


def by_gradient_descent(features, labels, classes, l2, steps=5000, rate=1.0):
    """(d, classes) and (classes,) of the same objective, its gradient written out, in numpy."""
    x = (features - features.mean(0)) / features.std(0)
    wanted = np.eye(classes)[labels]
    weights, bias = np.zeros((x.shape[1], classes)), np.zeros(classes)
    for _ in range(steps):
        scores = x @ weights + bias
        shares = np.exp(scores - scores.max(1, keepdims=True))
        wrong = (shares / shares.sum(1, keepdims=True) - wanted) / len(x)
        weights, bias = weights - rate * (x.T @ wrong + l2 * weights), bias - rate * wrong.sum(0)
    return weights, bias


def test_clouds_apart_are_told_apart_on_unseen_rows():
    features, labels = clouds(200)
    unseen, truth = clouds(100, stream="unseen")
    probe = fit_probe(features, labels, 4)
    assert percent(probe.predict(unseen) == truth) == 100
    assert probe.predict(unseen).dtype == torch.int64


def test_shuffled_labels_are_read_at_chance():
    features, labels = clouds(400)
    unseen, truth = clouds(400, stream="unseen")
    draw = generator(0, "shuffle")
    probe = fit_probe(features, labels[torch.randperm(400, generator=draw)], 4)
    assert abs(percent(probe.predict(unseen) == truth[torch.randperm(400, generator=draw)]) - 25) < 8


def test_weights_are_those_of_plain_gradient_descent():
    features, labels = clouds(40, classes=3, width=4, distance=0.7)
    probe = fit_probe(features, labels, 3, l2=0.05)
    weights, bias = by_gradient_descent(features.double().numpy(), labels.numpy(), 3, 0.05)
    np.testing.assert_allclose(probe.weights.numpy(), weights, atol=1e-3)
    np.testing.assert_allclose((probe.bias - probe.bias.mean()).numpy(), bias - bias.mean(), atol=1e-3)


def test_the_fit_has_come_to_rest_where_features_are_many_and_classes_overlap():
    features, labels = clouds(600, classes=8, width=64, distance=0.3)
    probe = fit_probe(features, labels, 8)
    weights = probe.weights.clone().requires_grad_()
    standard = (features.double() - probe.centre) / probe.scale
    (F.cross_entropy(standard @ weights + probe.bias, labels) + 5e-4 * weights.square().sum()).backward()
    assert weights.grad.abs().max() < 1e-4


def test_same_rows_give_the_same_probe_and_global_randomness_is_left_alone():
    features, labels = clouds(60, distance=0.5)
    before = torch.random.get_rng_state()
    one, other = fit_probe(features, labels, 4), fit_probe(features.clone(), labels.clone(), 4)
    assert torch.equal(one.weights, other.weights)
    assert torch.equal(one.bias, other.bias)
    assert torch.equal(before, torch.random.get_rng_state())


def test_scale_shift_and_a_constant_feature_change_no_prediction():
    features, labels = clouds(120, distance=0.5)
    spread = torch.logspace(-4, 3, features.shape[1])
    other = torch.cat([features * spread + 5 * spread, torch.full((120, 1), 0.1)], 1)
    expected = fit_probe(features, labels, 4).predict(features)
    assert (fit_probe(other, labels, 4).predict(other) == expected).float().mean() > 0.99
    moved = other.clone()
    moved[:, -1] += 1e3
    assert torch.equal(fit_probe(other, labels, 4).predict(moved), fit_probe(other, labels, 4).predict(other))


@given(st.sampled_from(["red", "pale green", "c++", "3.5"]), st.sampled_from(["", "x", " ", "A "]))
@settings(max_examples=30, deadline=None)
def test_words_of_a_caption(value: str, before: str) -> None:
    assert holds(f"{before} {value.upper()}, or not", value)
    assert not holds(f"{before}x{value}", value)
    assert not holds(f"{value}s", value)


N, CLASSES, WIDTH = 400, ("red", "blue", "green"), 16


@pytest.fixture(scope="module")
def world() -> tuple[Embeddings, dict[str, list[list[str]]]]:
    """Images hold the colour in three dimensions and the shape in two more; half of the captions tell the colour."""
    random = torch.Generator().manual_seed(0)
    colour = torch.randint(3, (N,), generator=random)
    shape = torch.randint(2, (N,), generator=random)
    images = torch.randn(N, WIDTH, generator=random) * 0.3
    images[torch.arange(N), colour] += 3
    images[torch.arange(N), 3 + shape] += 1.5
    texts = images + 0.1
    captions = [f"a {CLASSES[one]} thing" if row % 2 else "a thing" for row, one in enumerate(colour.tolist())]
    embeddings = Embeddings.from_arrays(images, texts, torch.arange(N), captions=captions)
    return embeddings, {
        "shape": [["square" if one else "round"] for one in shape.tolist()],
        "colour": [[CLASSES[one]] for one in colour.tolist()],
    }


class Writing:
    """Replaces what an image says in the three dimensions of colour by what the caption's embedding says there."""

    config = SimpleNamespace(has_latents=False)

    def require_same_encoder(self, embeddings: Embeddings) -> None: ...

    def edit(self, images, texts):
        return torch.cat([texts[:, :3], images[:, 3:]], dim=1)

    def text(self, texts):
        return texts


def test_retention_where_the_answer_is_known(world) -> None:
    embeddings, labels = world
    editor: Any = Writing()
    report = label_report(embeddings, labels, editor, seed=3)
    plain, edited = report["plain"], report["edited"]
    assert plain["colour: told"] > 97
    assert plain["colour: left out"] > 97
    assert plain["shape: left out"] > 90
    assert "shape: told" not in plain  # no caption tells it
    assert "shape: written" not in plain
    assert 25 < plain["colour: guessing"] < 45
    assert plain["colour: written"] < 5
    # The edit reads as if it kept the colour, and all of it comes from the caption.
    assert edited["colour: told"] > 97
    assert edited["colour: written"] > 95
    assert label_report(embeddings, labels, editor, seed=3) == report


def test_object_bias_of_labels(world) -> None:
    embeddings, labels = world
    found = label_report(embeddings, labels)["plain"]
    pairs = matched_pairs(embeddings)
    coded = {name: torch.tensor([sorted({v[0] for v in of}).index(v[0]) for v in of]) for name, of in labels.items()}
    for side, rows in (("images", pairs.images), ("texts", pairs.texts)):
        assert found[f"object bias, {side}"] == pytest.approx(object_bias(rows, coded["shape"], coded["colour"]))
    assert found["object bias, images"] < 0  # colour is the stronger
    assert "object bias, images" not in label_report(embeddings, {"colour": labels["colour"]})["plain"]


def test_images_with_several_values_are_not_probed(world) -> None:
    embeddings, labels = world
    several = [["red", "blue"] if row < 100 else values for row, values in enumerate(labels["colour"])]
    found = label_report(embeddings, {"shape": labels["shape"], "colour": several})["plain"]
    assert found["colour: told"] > 97


def test_labels_that_cannot_be_measured(world) -> None:
    embeddings, labels = world
    for given_labels, said in (
        ({"colour": labels["colour"][:-1]}, "'colour' is of 399 images and there are 400"),
        ({"colour": [["red"]] * N}, "'colour' has the same value everywhere"),
        ({"shape": labels["shape"], "id": [[str(row)] for row in range(N)]}, "No object bias of 'shape' against 'id'"),
        ({"tags": [["red", "blue"]] * N}, "Too few images have one value of 'tags'"),
    ):
        with pytest.raises(InputError) as caught:
            label_report(embeddings, given_labels)
        assert said in str(caught.value)
    bare = Embeddings.from_arrays(F.normalize(embeddings.images, dim=1), embeddings.texts, torch.arange(N))
    with pytest.raises(InputError, match="do not keep their captions"):
        label_report(bare, labels)
