"""Zero-shot classification against a slow reference, readers of labelled pictures, and scenes by the shipped model."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

import boresight as bs
from boresight.data import make_scenes
from boresight.data.worlds.scene_world import SHAPES
from boresight.editing import CaptionEditor
from boresight.editing.config import EditorConfig
from boresight.errors import ArtefactError, InputError
from boresight.evaluation import zero_shot as module
from boresight.evaluation.zero_shot import TEMPLATES, class_embeddings, count_classes, evaluate_zero_shot
from boresight.models import default_model_path
from editing_world import WIDTH, quiet, sae_fixture  # noqa: F401
from fake_encoder import FakeEncoder, make_collection


class Table(FakeEncoder):
    """Embeds picture number i as row i of a table, and a sentence by a table from sentences to rows."""

    def __init__(self, images: torch.Tensor, texts: dict[str, Sequence[float]]) -> None:
        super().__init__(width=images.shape[1])
        self.name = "world"
        self.image_rows = F.normalize(images.float(), dim=1)
        self.text_rows = {text: F.normalize(torch.tensor(row).float(), dim=0) for text, row in texts.items()}

    def embed_images(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        return self.image_rows[[int(image.item()) for image in images]]

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.stack([self.text_rows[text] for text in texts])

    def embed_texts_counted(self, texts: Sequence[str]) -> tuple[torch.Tensor, int]:
        return self.embed_texts(texts), 0


def numbered(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (2, 2), (number // 256, number % 256, 0)) for number in range(count)]


def unit(row: Sequence[float]) -> list[float]:
    return [value / math.hypot(*row) for value in row]


vectors = st.lists(st.sampled_from([-1.0, 0.0, 1.0, 2.0]), min_size=3, max_size=3).filter(any)


@st.composite
def tasks(draw):
    n, classes, templates = draw(st.integers(1, 8)), draw(st.integers(2, 8)), draw(st.integers(1, 3))
    images = [draw(vectors) for _ in range(n)]
    texts = {f"{t} {c}": draw(vectors) for c in range(classes) for t in range(templates)}
    sums = [[sum(unit(texts[f"{t} {c}"])[i] for t in range(templates)) for i in range(3)] for c in range(classes)]
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    usable = min(math.hypot(*row) for row in sums) > 1e-3
    return images, texts, sums, labels, templates, usable, draw(st.integers(1, 9))


@given(tasks().filter(lambda task: task[-2]))
@settings(max_examples=60, deadline=None)
def test_accuracy_against_the_reference(task) -> None:
    images, texts, sums, labels, templates, _, batch_size = task
    classes = [str(c) for c in range(len(sums))]
    sentences = [f"{t} {{}}" for t in range(templates)]
    encoder = Table(torch.tensor(images), texts)
    found = evaluate_zero_shot(encoder, numbered(len(images)), labels, classes, sentences, batch_size=batch_size)
    found = found["plain"]

    hits: dict[int, list[float]] = {}
    first_five = []
    for image, label in zip(images, labels, strict=True):
        scores = [sum(a * b for a, b in zip(unit(image), unit(row), strict=True)) for row in sums]
        own = scores.pop(label)
        above = sum(score > own + 1e-6 for score in scores)
        tied = sum(abs(score - own) <= 1e-6 for score in scores)

        def within(k: int, above: int = above, tied: int = tied) -> float:
            return min(max(k - above, 0), tied + 1) / (tied + 1)

        hits.setdefault(label, []).append(within(1))
        first_five.append(within(5))
    every = [hit for some in hits.values() for hit in some]
    assert found["top-1"] == pytest.approx(100 * sum(every) / len(every))
    by_class = {label: 100 * sum(some) / len(some) for label, some in hits.items()}
    assert found["mean per class"] == pytest.approx(sum(by_class.values()) / len(by_class))
    assert [math.isnan(value) for value in found.per_class] == [c not in hits for c in range(len(classes))]
    assert {label: found.per_class[label] for label in hits} == pytest.approx(by_class)
    if len(classes) > 5:
        assert found["top-5"] == pytest.approx(100 * sum(first_five) / len(first_five))
    else:
        assert "top-5" not in found.values


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    images, classes = torch.randn(17, 5, generator=draw), torch.randn(11, 5, generator=draw)
    labels = torch.randint(11, (17,), generator=draw)
    whole = count_classes(images, classes, labels)
    monkeypatch.setattr(module, "BLOCK", 4)
    parts = count_classes(images, classes, labels)
    np.testing.assert_array_equal(whole.greater, parts.greater)
    np.testing.assert_array_equal(whole.tied, parts.tied)
    assert whole.greater.max() > 4


def test_unit_sentences_weigh_alike() -> None:
    encoder = Table(torch.eye(2), {"a x": [8, 0], "b x": [0, 0.5], "a y": [1, 0], "b y": [1, 0]})
    expected = [[math.sqrt(0.5)] * 2, [1.0, 0.0]]
    for batch_size in (1, 3, 64):
        found, _ = class_embeddings(encoder, ["x", "y"], ["a {}", "b {}"], batch_size=batch_size)
        assert torch.allclose(found, torch.tensor(expected))


def test_a_model_that_tells_nothing_apart_is_at_chance() -> None:
    encoder = Table(torch.ones(6, 2), {f"c{c}": [1, 1] for c in range(8)})
    found = evaluate_zero_shot(encoder, numbered(6), [0, 0, 1, 2, 3, 7], [f"c{c}" for c in range(8)], ["{}"])["plain"]
    assert (found["top-1"], found["top-5"], found["mean per class"]) == (12.5, 62.5, 12.5)
    assert found.to_dict() == {
        "top-1": 12.5,
        "top-5": 62.5,
        "mean per class": 12.5,
        "images": 6,
        "classes": 8,
        "left out": 0,
    }
    lines = str(found).splitlines()
    assert lines[0] == "zero-shot classification: 6 images, 8 classes, 0 left out"
    assert [line.split()[-1] for line in lines[1:]] == ["chance", "12.50", "62.50", "12.50"]
    assert lines[2].split() == ["top-1", "12.50", "12.50"]


def test_rare_classes_weigh_as_much_as_frequent_ones() -> None:
    encoder = Table(torch.tensor([[1.0, 0.0]] * 9 + [[1.0, 0.0]]), {"cat": [1, 0], "dog": [0, 1], "eel": [-1, 0]})
    found = evaluate_zero_shot(encoder, numbered(10), [0] * 9 + [1], ["cat", "dog", "eel"], ["{}"])["plain"]
    assert (found["top-1"], found["mean per class"]) == (90, 50)
    assert found.per_class[:2].tolist() == [100, 0]
    assert math.isnan(found.per_class[2])


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_an_editor_takes_the_class_embedding_for_a_caption(sae, exponent: float) -> None:
    draw = torch.Generator().manual_seed(1)
    images, rows = torch.randn(40, WIDTH, generator=draw), torch.randn(12, WIDTH, generator=draw)
    editor = CaptionEditor(sae, EditorConfig(form="residual", length_exponent=exponent))
    with torch.no_grad():
        for parameter in editor.parameters():
            if parameter.requires_grad:
                parameter += 0.5 * torch.randn(parameter.shape, generator=draw)
    classes = [f"c{c}" for c in range(6)]
    encoder = Table(images, {f"{t} c{c}": rows[6 * t + c].tolist() for t in (0, 1) for c in range(6)})
    means = F.normalize(rows, dim=1).view(2, 6, WIDTH).mean(0)
    edited = torch.stack([editor.edit(encoder.image_rows, mean.expand(40, -1)) for mean in means], 1)
    scores = (edited * editor.text(means)).sum(2) / edited.norm(dim=2) ** exponent
    labels = (images @ means.T).argmax(1)
    found = evaluate_zero_shot(encoder, numbered(40), labels, classes, ["0 {}", "1 {}"], editor, batch_size=7)["edited"]
    assert found["top-1"] == pytest.approx(100 * float((scores.argmax(1) == labels).double().mean()))
    plain = evaluate_zero_shot(encoder, numbered(40), labels, classes, ["0 {}", "1 {}"])["plain"]
    assert found["top-1"] != plain["top-1"]


def test_pictures_that_cannot_be_read_are_left_out_and_named(tmp_path: Path) -> None:
    encoder = Table(torch.eye(4), {f"c{c}": torch.eye(4)[c].tolist() for c in range(4)})
    torn = make_collection(4, corrupt=[1])
    for batch_size in (1, 3, 64):
        found = evaluate_zero_shot(encoder, torn, [0, 0, 2, 0], ["c0", "c1", "c2", "c3"], ["{}"], batch_size=batch_size)
        found = found["plain"]
        assert (found.counts["images"], found.name) == (3, "numbers")
        assert found["top-1"] == pytest.approx(200 / 3)
        assert [problem.what for problem in found.problems] == ["unreadable picture"]
        assert "id-1" in found.problems[0].where
    files = [tmp_path / "0.png", tmp_path / "gone.png"]
    numbered(1)[0].save(files[0])
    assert evaluate_zero_shot(encoder, files, [0, 0], ["c0", "c1"], ["{}"])["plain"].counts["images"] == 1
    with pytest.raises(InputError, match=r"No picture can be read, the first: .*gone.png"):
        evaluate_zero_shot(encoder, files[1:], [0], ["c0", "c1"], ["{}"])


def test_bad_requests(sae) -> None:
    encoder = Table(torch.eye(2), {"c0": [1, 0], "c1": [0, 1]})
    classes = ["c0", "c1"]
    for labels, said in (
        ([0], r"labels has shape \(1,\)"),
        ([0.0, 1.0], "dtype torch.float32"),
        ([0, 2], "labels go from 0 to 2 and there are 2 classes"),
        ([-1, 0], "labels go from -1 to 0"),
        (["c0", "c1"], "labels cannot be read as numbers"),
    ):
        with pytest.raises(InputError, match=said):
            evaluate_zero_shot(encoder, numbered(2), labels, classes, ["{}"])
    with pytest.raises(InputError, match="there are 0 pictures"):
        evaluate_zero_shot(encoder, [], [], classes, ["{}"])
    for names in (["c0"], "c0", ["c0", " "], ["c0", 1]):
        with pytest.raises(InputError, match="classes must be at least two names"):
            evaluate_zero_shot(encoder, numbered(1), [0], names, ["{}"])
    with pytest.raises(InputError, match=r"Template 1, 'a photo', has no {}"):
        evaluate_zero_shot(encoder, numbered(1), [0], classes, ["{}", "a photo"])
    with pytest.raises(InputError, match=r"Template 0, 'a {a} of {c}', has {a} and {c}; write {}"):
        evaluate_zero_shot(encoder, numbered(1), [0], classes, ["a {a} of {c}"])
    for templates in ("{}", []):
        with pytest.raises(InputError, match="templates must be a list"):
            evaluate_zero_shot(encoder, numbered(1), [0], classes, templates)
    with pytest.raises(InputError, match="batch_size is 0"):
        evaluate_zero_shot(encoder, numbered(1), [0], classes, ["{}"], batch_size=0)
    editor = CaptionEditor(sae, EditorConfig(form="residual"))
    with pytest.raises(ArtefactError, match=f"fitted on width {WIDTH} and these embeddings are 2 wide"):
        evaluate_zero_shot(encoder, numbered(1), [0], classes, ["{}"], editor)


def test_other_peoples_marks_for_the_name() -> None:
    encoder, names = bs.load_encoder(default_model_path()), ["a {c}", "ring"]
    plain = class_embeddings(encoder, names, ["{}", "a {} or {}"])[0]
    for mark in ("{c}", "{class_name}"):
        assert torch.equal(class_embeddings(encoder, names, [mark, f"a {mark} or {mark}"])[0], plain)


def test_the_shipped_model_knows_shapes() -> None:
    scenes = make_scenes(160, objects=(1, 1), seed=4, split="test")
    shapes = [json.loads(text)["objects"][0]["shape"] for text in scenes.dataset["attributes"][:]]
    labels = [SHAPES.index(shape) for shape in shapes]
    found = evaluate_zero_shot(bs.load_encoder(default_model_path()), scenes, labels, SHAPES)["plain"]
    assert len(TEMPLATES) >= 5
    # Six standard deviations above a guess of one in eight.
    assert found["top-1"] > 12.5 + 6 * 100 * math.sqrt(1 / 8 * 7 / 8 / 160)
    assert found["top-5"] > found["top-1"]
    assert found.counts["images"] == 160
