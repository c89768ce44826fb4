"""Swapped captions, and retrieval among them against a slow obvious reference."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch.nn import functional as F

from boresight.collections.scene_world import COLOURS, SHAPES
from boresight.collections.scenes import make_scenes
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation.robustness import evaluate_robustness
from boresight.evaluation.swaps import DANGER, KINDS, swap_words, word_vectors


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
    assert swap_words(captions, kind, owners=owners, seed=1, vectors=word_vectors(captions)) == first
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


def world(seed: int = 0, n: int = 9, d: int = 6):
    """Some images without captions; captions not in the order of images; one swapped caption like its original."""
    draw = torch.Generator().manual_seed(seed)
    owners = torch.randint(n - 2, (3 * n,), generator=draw)
    images, texts = torch.randn(n, d, generator=draw), torch.randn(3 * n, d, generator=draw)
    texts = texts + 1.2 * images[owners]
    rows = torch.randperm(3 * n, generator=draw)[: 2 * n]
    swapped = texts[rows] + 0.7 * torch.randn(2 * n, d, generator=draw)
    swapped[0] = texts[rows[0]]
    return Embeddings.from_arrays(images, texts, owners), swapped, rows


def reference(embeddings: Embeddings, swapped, rows) -> dict[str, float]:
    images = F.normalize(embeddings.images, dim=1)
    true, wrong = images @ F.normalize(embeddings.texts, dim=1).T, images @ F.normalize(swapped, dim=1).T
    owners, near = embeddings.owners, 1e-6
    better = [true[owners[row], row] > wrong[owners[row], place] + near for place, row in enumerate(rows.tolist())]
    hits, plain, false = [], [], []
    for image in range(len(images)):
        own = true[image][owners == image]
        if len(own):
            best = float(own.max())
            for list_of, foreign in (
                (plain, true[image][owners != image]),
                (hits, torch.cat([true[image][owners != image], wrong[image]])),
            ):
                above, tied = int((foreign > best + near).sum()), int(((foreign - best).abs() <= near).sum())
                answers = int((own >= best - near).sum())
                list_of.append(0.0 if above else answers / (answers + tied))
            false.append(float(wrong[image].max() >= true[image].max() - near))

    def percent(values) -> float:
        return 100 * sum(map(float, values)) / len(values)

    return {
        "accuracy": percent(better),
        "I2T R@1": percent(hits),
        "false_rate": percent(false),
        "R@1_plain_gallery": percent(plain),
        "drop_rate": 100 * (sum(plain) - sum(hits)) / sum(plain),
    }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("blocks", [(2048, 1024), (2, 3)])
def test_against_the_reference(seed, blocks):
    embeddings, swapped, rows = world(seed)
    found = evaluate_robustness(embeddings, swapped, rows, block_images=blocks[0], block_texts=blocks[1])
    expected = reference(embeddings, swapped, rows)
    assert list(found) == ["accuracy", "I2T R@1", "false_rate", "R@1_plain_gallery", "drop_rate"]
    assert found == pytest.approx(expected, abs=1e-4)


def test_captions_that_were_not_changed_are_ties():
    embeddings = Embeddings.from_arrays(torch.eye(3), torch.eye(3), [0, 1, 2])
    found = evaluate_robustness(embeddings, torch.eye(3).numpy(), [0, 1, 2])
    assert found == {
        "accuracy": 0.0,
        "I2T R@1": 50.0,
        "false_rate": 100.0,
        "R@1_plain_gallery": 100.0,
        "drop_rate": 50.0,
    }


def test_no_recall_to_lose():
    embeddings = Embeddings.from_arrays(torch.eye(2), torch.eye(2), [1, 0])
    assert math.isnan(evaluate_robustness(embeddings, torch.eye(2)[:1], [0])["drop_rate"])


def test_bad_embeddings():
    embeddings, swapped, rows = world()
    with pytest.raises(InputError, match=r"swapped_texts has shape \(18, 5\)"):
        evaluate_robustness(embeddings, swapped[:, :5], rows)
    with pytest.raises(InputError, match=r"rows \(17,\)"):
        evaluate_robustness(embeddings, swapped, rows[:17])
    with pytest.raises(InputError, match="at least 1"):
        evaluate_robustness(embeddings, swapped[:0], rows[:0])
    with pytest.raises(InputError, match="to 99 and there are 27 captions"):
        evaluate_robustness(embeddings, swapped[:2], [0, 99])
    with pytest.raises(InputError, match="Row 1 of the swapped captions holds NaN"):
        evaluate_robustness(embeddings, torch.tensor([[1.0] * 6, [math.nan] * 6]), [0, 1])
    with pytest.raises(InputError, match="block_images and block_texts"):
        evaluate_robustness(embeddings, swapped, rows, block_texts=0)
    bare = Embeddings.from_arrays(torch.eye(6), torch.empty(0, 6), [], name="bare")
    with pytest.raises(InputError, match="bare has no captions"):
        evaluate_robustness(bare, swapped, rows)
