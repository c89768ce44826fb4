"""Retrieval among altered captions and pictures against a slow obvious reference."""

from __future__ import annotations

import math
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import editing_world
from boresight.editing import CaptionEditor
from boresight.editing.config import EditorConfig
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation import attacks
from boresight.evaluation.attacks import evaluate_attack
from editing_world import sae_fixture as sae_fixture


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


NEAR = 1e-6


def chance_of_a_hit(own: list[float], foreign: list[float], k: int) -> float:
    """Of a best right answer among the first k, those tied in random order."""
    best = max(own)
    above = sum(score > best + NEAR for score in foreign)
    tied = sum(abs(score - best) <= NEAR for score in foreign)
    answers = sum(score >= best - NEAR for score in own)
    if k <= above:
        return 0.0
    drawn = min(k - above, tied + answers)
    return 1 - math.comb(tied, drawn) / math.comb(tied + answers, drawn)


def percent(values) -> float:
    return 100 * sum(map(float, values)) / len(values)


def recalls(direction: str, queries: list[tuple[list[float], list[float], list[float]]]) -> dict[str, float]:
    """From (scores of right answers, of other true ones, of altered ones) for every query."""
    plain = percent([chance_of_a_hit(own, others, 1) for own, others, _ in queries])
    reached = {k: percent([chance_of_a_hit(own, others + altered, k) for own, others, altered in queries])
               for k in (1, 5, 10)}  # fmt: skip
    false = [max(altered) >= max(own + others) - NEAR for own, others, altered in queries]
    return {
        **{f"{direction} R@{k}": value for k, value in reached.items()},
        "false rate": percent(false),
        "R@1, plain gallery": plain,
        "drop rate": 100 * (plain - reached[1]) / plain,
    }


@contextmanager
def blocks_of(images: int, texts: int):
    """Scores of altered ones in blocks so large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attacks, "BLOCK_IMAGES", images)
        patch.setattr(attacks, "BLOCK_TEXTS", texts)
        yield


def cosines(images, texts) -> list[list[float]]:
    return (F.normalize(images.double(), dim=1) @ F.normalize(texts.double(), dim=1).T).tolist()


def reference(embeddings: Embeddings, swapped, rows) -> dict[str, float]:
    true, wrong = cosines(embeddings.images, embeddings.texts), cosines(embeddings.images, swapped)
    owners = embeddings.owners.tolist()
    better = [
        true[owners[row]][row] > wrong[owners[row]][place] + NEAR for place, row in enumerate(torch.as_tensor(rows))
    ]
    queries = []
    for image in sorted(set(owners)):
        own = [true[image][j] for j in range(len(owners)) if owners[j] == image]
        others = [true[image][j] for j in range(len(owners)) if owners[j] != image]
        queries.append((own, others, wrong[image]))
    return {"accuracy": percent(better), **recalls("I2T", queries)}


def image_reference(embeddings: Embeddings, altered, rows) -> dict[str, float]:
    true, wrong = cosines(embeddings.texts, embeddings.images), cosines(embeddings.texts, altered)
    queries, better = [], []
    for caption, owner in enumerate(embeddings.owners.tolist()):
        others = [score for image, score in enumerate(true[caption]) if image != owner]
        queries.append(([true[caption][owner]], others, wrong[caption]))
        mine = [score for place, score in enumerate(wrong[caption]) if int(rows[place]) == owner]
        if mine:
            better.append(true[caption][owner] > max(mine) + NEAR)
    return {"accuracy": percent(better), **recalls("T2I", queries)}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("blocks", [(2048, 1024), (2, 3)])
def test_against_the_reference(seed, blocks):
    embeddings, swapped, rows = world(seed)
    with blocks_of(*blocks):
        found = evaluate_attack(embeddings, swapped, rows, side="texts")
    expected = reference(embeddings, swapped, rows)
    assert list(found.values) == list(expected)
    assert found.values == pytest.approx(expected, abs=1e-4)


@given(st.integers(0, 2**31), st.integers(1, 14), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_altered_pictures_against_the_reference(seed, count, block_images, block_texts):
    embeddings, _, _ = world(seed)
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(embeddings), (count,), generator=draw)
    rows[0] = embeddings.owners[0]
    altered = embeddings.images[rows] + 0.5 * torch.randn(count, 6, generator=draw)
    altered[0] = embeddings.images[rows[0]]
    with blocks_of(block_images, block_texts):
        found = evaluate_attack(embeddings, altered, rows, side="images")
    expected = image_reference(embeddings, altered, rows)
    assert list(found.values) == list(expected)
    assert found.values == pytest.approx(expected, abs=1e-4, nan_ok=True)


def test_altered_pictures_that_were_not_changed_are_ties():
    embeddings = Embeddings.from_arrays(torch.eye(3), torch.eye(3), [0, 1, 2])
    found = evaluate_attack(embeddings, torch.eye(3), [0, 1, 2], side="images")
    assert (found["accuracy"], found["T2I R@1"], found["false rate"], found["drop rate"]) == (0.0, 50.0, 100.0, 50.0)


def test_altered_pictures_of_no_captioned_image_compare_with_nothing():
    embeddings = Embeddings.from_arrays(torch.eye(3), torch.eye(3)[:2], [0, 1])
    found = evaluate_attack(embeddings, torch.eye(3)[2:], [2], side="images")
    assert math.isnan(found["accuracy"])
    assert (found["T2I R@1"], found["false rate"], found["drop rate"]) == (100.0, 0.0, 0.0)


@pytest.mark.parametrize("form", ["gated", "residual", "reconstruct", "raw"])
def test_an_editor_is_asked_pair_by_pair(sae, form):
    """The rates, from the editor's whole matrix of scores."""
    test = editing_world.world(sae, 12, seed=5)
    editor = CaptionEditor(sae, EditorConfig(form=form, length_exponent=1.0))
    with torch.no_grad():
        for network in (editor.mask_network, editor.gate_network):
            if network is not None:
                network.map.normal_(generator=torch.Generator().manual_seed(3))
                network.bias.zero_()
    draw = torch.Generator().manual_seed(1)
    altered = F.normalize(0.9 * test.images + 0.1 * test.images.roll(1, 0), dim=1)
    swapped = F.normalize(test.texts + 0.05 * torch.randn(test.texts.shape, generator=draw), dim=1)
    on_images = editor.score(torch.cat([test.images, altered]), test.texts)
    with blocks_of(5, 4):
        found = evaluate_attack(test, altered, range(12), editor, side="images")
    top = on_images.argmax(0)
    assert found["T2I R@1"] == pytest.approx(percent(top == test.owners), abs=1e-4)
    assert found["false rate"] == pytest.approx(percent(top >= 12), abs=1e-4)
    on_texts = editor.score(test.images, torch.cat([test.texts, swapped]))
    with blocks_of(5, 4):
        found = evaluate_attack(test, swapped, range(len(test.owners)), editor, side="texts")
    top = on_texts.argmax(1)
    own = torch.cat([test.owners, torch.full((len(swapped),), -1)])
    assert found["I2T R@1"] == pytest.approx(percent(own[top] == torch.arange(12)), abs=1e-4)
    assert found["false rate"] == pytest.approx(percent(top >= len(test.owners)), abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_what_was_not_altered_is_a_tie_in_any_precision(dtype):
    draw = torch.Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(20, 16, generator=draw), dim=1) for _ in range(2))
    stored = Embeddings.from_arrays(images.to(dtype), texts.to(dtype), range(20))
    assert evaluate_attack(stored, texts, range(20), side="texts")["accuracy"] == 0.0
    assert evaluate_attack(stored, images, range(20), side="images")["accuracy"] == 0.0


def test_captions_that_were_not_changed_are_ties():
    embeddings = Embeddings.from_arrays(torch.eye(3), torch.eye(3), [0, 1, 2])
    found = evaluate_attack(embeddings, torch.eye(3).numpy(), [0, 1, 2], side="texts")
    assert found.values == {
        "accuracy": 0.0,
        "I2T R@1": 50.0,
        "I2T R@5": 100.0,
        "I2T R@10": 100.0,
        "false rate": 100.0,
        "R@1, plain gallery": 100.0,
        "drop rate": 50.0,
    }


def test_no_recall_to_lose():
    embeddings = Embeddings.from_arrays(torch.eye(2), torch.eye(2), [1, 0])
    assert math.isnan(evaluate_attack(embeddings, torch.eye(2)[:1], [0], side="texts")["drop rate"])


def test_bad_embeddings():
    embeddings, swapped, rows = world()
    with pytest.raises(InputError, match=r"altered has shape \(18, 5\)"):
        evaluate_attack(embeddings, swapped[:, :5], rows, side="texts")
    with pytest.raises(InputError, match=r"rows \(17,\)"):
        evaluate_attack(embeddings, swapped, rows[:17], side="texts")
    with pytest.raises(InputError, match="at least 1"):
        evaluate_attack(embeddings, swapped[:0], rows[:0], side="texts")
    with pytest.raises(InputError, match="to 99 and there are 27 captions"):
        evaluate_attack(embeddings, swapped[:2], [0, 99], side="texts")
    with pytest.raises(InputError, match="Row 1 of altered holds NaN"):
        evaluate_attack(embeddings, torch.tensor([[1.0] * 6, [math.nan] * 6]), [0, 1], side="texts")
    with pytest.raises(InputError, match="There is no side 'text'; choose from texts, images"):
        evaluate_attack(embeddings, swapped, rows, side="text")
    bare = Embeddings.from_arrays(torch.eye(6), torch.empty(0, 6), [], name="bare")
    with pytest.raises(InputError, match="bare has no captions"):
        evaluate_attack(bare, swapped, rows, side="texts")
    with pytest.raises(InputError, match=r"altered has shape \(2, 5\)"):
        evaluate_attack(embeddings, swapped[:2, :5], [0, 1], side="images")
    with pytest.raises(InputError, match="to 9 and there are 9 images"):
        evaluate_attack(embeddings, swapped[:2], [0, 9], side="images")
    with pytest.raises(InputError, match="bare has no captions"):
        evaluate_attack(bare, torch.eye(6), range(6), side="images")
