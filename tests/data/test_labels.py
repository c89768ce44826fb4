"""Labels that a collection's further columns hold."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from boresight.data import Collection
from boresight.data.assemble import dataset_of
from boresight.data.labels import labels_in
from boresight.data.worlds.scenes import make_scenes
from boresight.errors import InputError
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
