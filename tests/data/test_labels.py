"""Labels that a collection's further columns hold, and what they tell of an edit."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from boresight.data import Collection
from boresight.data.assemble import dataset_of
from boresight.data.labels import labels_in
from boresight.data.worlds.scenes import make_scenes
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation.pairs import matched_pairs
from boresight.evaluation.probes import holds, label_report, object_bias
from worlds.mad import make_mad


def collection_of(**columns: list) -> Collection:
    n = len(next(iter(columns.values())))
    rows = {"id": [f"p{row}" for row in range(n)], "captions": [["a picture"]] * n, "split": ["test"] * n, **columns}
    return Collection(dataset_of(pa.table(rows)), "photos")


def test_labels_of_columns_lists_and_json() -> None:
    photos = collection_of(
        kind=["dog", "", None],
        tags=[["b", "a", "b"], [], ["a"]],
        year=[2001, 2002, 2003],
        info=[json.dumps({"ink": "red", "parts": [{"shape": "x"}, {"shape": "y"}]}), json.dumps({"ink": None}), ""],
        **{"info.ink": ["own", "own", "own"]},
    )
    assert labels_in(photos, "kind") == [["dog"], [], []]
    assert labels_in(photos, "tags") == [["b", "a"], [], ["a"]]
    assert labels_in(photos, "year") == [["2001"], ["2002"], ["2003"]]
    assert labels_in(photos, "info.parts.shape") == [["x", "y"], [], []]
    assert labels_in(photos, "info.ink") == [["own"]] * 3
    assert labels_in(collection_of(info=[{"ink": "red"}, {"ink": "blue"}]), "info.ink") == [["red"], ["blue"]]


def test_labels_of_the_made_worlds() -> None:
    scenes, digits = make_scenes(4, split="test"), make_mad(4, "test", 2)
    truths = [json.loads(text) for text in scenes.dataset["attributes"][:]]
    assert labels_in(scenes, "attributes.background") == [[truth["background"]] for truth in truths]
    for found, truth in zip(labels_in(scenes, "attributes.objects.colour"), truths, strict=True):
        assert found == list(dict.fromkeys(one["colour"] for one in truth["objects"]))
    assert all(len(of_image) == 1 for of_image in labels_in(digits, "attributes.class"))


def test_labels_that_are_not_there() -> None:
    photos = collection_of(kind=["dog", "cat"], info=['{"ink": "red"}', '{"size": {"h": 2}}'], empty=["", ""])
    for name, said in (
        ("sort", "photos has no column 'sort' for labels; there are kind, info, empty"),
        ("info.colour", "No image has a label 'info.colour'; there are ink, size"),
        ("kind.ink", "the label 'kind.ink' of image 'p0' the column does not hold JSON"),
        ("info.size", "The label 'info.size' of image 'p1' is a dict, not a plain value; it has the keys h"),
        ("empty", "No image has a label 'empty'."),
    ):
        with pytest.raises(InputError) as caught:
            labels_in(photos, name)
        assert said in str(caught.value)


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
