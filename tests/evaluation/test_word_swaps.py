"""Captions with one wrong word: which words go, which come, and what stays."""

from __future__ import annotations

import re

import pytest
import torch

from boresight.data.worlds.scene_world import COLOURS, SHAPES
from boresight.data.worlds.scenes import make_scenes
from boresight.errors import InputError
from boresight.evaluation.word_swaps import DANGER, KINDS, swap_words


@pytest.fixture(scope="module")
def told() -> tuple[list[str], list[int]]:
    scenes = make_scenes(60, size=24)
    return scenes.texts, scenes.owners.tolist()


def words(caption: str) -> list[str]:
    return re.findall(r"[^\W\d_]+(?:['’\-][^\W\d_]+)*", caption)


@pytest.mark.parametrize("kind", KINDS)
def test_one_wrong_word(told, kind):
    captions, owners = told
    swapped = swap_words(captions, kind, owners=owners, seed=3)
    assert len(swapped.captions) == len(captions)
    assert len(swapped.rows) == len(swapped.old) == len(swapped.new) > 100
    true = {owner: set() for owner in owners}
    for caption, owner in zip(captions, owners, strict=True):
        true[owner] |= set(words(caption))
    for row, old, new in zip(swapped.rows, swapped.old, swapped.new, strict=True):
        before, after = words(captions[row]), words(swapped.captions[row])
        assert [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]] == [(old, new)]
        assert new not in true[owners[row]]
        assert swapped.captions[row] not in captions
    assert kind != "danger" or set(swapped.new) <= set(DANGER)
    rest = set(range(len(captions))) - set(swapped.rows)
    assert all(swapped.captions[row] == captions[row] for row in rest)


@pytest.mark.parametrize("kind", KINDS)
def test_seed_alone_decides(told, kind):
    captions, owners = told
    first = swap_words(captions, kind, owners=owners, seed=1)
    torch.manual_seed(99)
    assert swap_words(captions, kind, owners=torch.tensor(owners), seed=1) == first
    assert swap_words(captions, kind, owners=owners, seed=1) == first
    assert swap_words(captions, kind, owners=owners, seed=2) != first


def test_colours_for_colours_and_shapes_for_shapes(told):
    captions, owners = told
    kept = {}
    for kind in ("same-concept", "different-concept"):
        swapped = swap_words(captions, kind, owners=owners)
        pairs = list(zip(swapped.old, swapped.new, strict=True))
        for name, group in (("colour", set(COLOURS)), ("shape", set(SHAPES))):
            inside = [new in group for old, new in pairs if old in group]
            assert len(inside) > 20
            kept[kind, name] = sum(inside) / len(inside)
    assert min(kept["same-concept", name] for name in ("colour", "shape")) > 0.8
    assert max(kept["different-concept", name] for name in ("colour", "shape")) < 0.2


def test_what_cannot_be_swapped_is_returned_and_not_counted():
    captions = ["the of a", "Dogs run", "cats run", "dogs sleep", "cats sleep", "3 4"]
    swapped = swap_words(captions, "danger", owners=[0, 1, 2, 3, 4, 5])
    assert swapped.rows == [1, 2, 3, 4]
    assert (swapped.captions[0], swapped.captions[5]) == ("the of a", "3 4")
    assert swapped.captions[1][0].isupper()
    assert swap_words(["one thing", "other stuff"], "random").rows == []


def test_the_plural_of_a_true_word_is_not_wrong():
    captions = ["a dog runs", "a dogs runs", "the dog", "the dogs"]
    assert "dogs" not in swap_words(captions, "random", owners=[0, 1, 2, 3]).new


def test_bad_captions():
    with pytest.raises(InputError, match="no swap 'verb'; choose from same-concept"):
        swap_words(["a dog", "a dog"], "verb")
    with pytest.raises(InputError, match="at least one caption"):
        swap_words([], "random")
    with pytest.raises(InputError, match="at least one caption"):
        swap_words("a dog", "random")
    with pytest.raises(InputError, match="owners has 1 entries and there are 2 captions"):
        swap_words(["a dog", "a cat"], "random", owners=[0])
