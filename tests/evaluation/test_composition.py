"""Composition benchmarks against slow references, and on scenes by the model that comes with boresight."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import boresight as bs
from boresight.benchmarks.aro import read_aro
from boresight.benchmarks.sugarcrepe import read_sugarcrepe
from boresight.data import Problem, make_scenes
from boresight.data.worlds.scene_world import COLOURS, SHAPES
from boresight.editing import CaptionEditor, PlainScorer
from boresight.editing.config import EditorConfig
from boresight.errors import ArtefactError, InputError
from boresight.evaluation.composition import evaluate_contrasts, evaluate_winoground
from boresight.evaluation.contrasts import Contrast, Contrasts, Picture
from boresight.models import default_model_path
from contrast_world import TableEncoder, item, numbered
from editing_world import WIDTH, quiet, sae_fixture  # noqa: F401
from tiny_editor import TINY_EDITOR

vectors = st.lists(st.sampled_from([-1.0, 0.0, 1.0, 2.0]), min_size=3, max_size=3).filter(any)


def _several(captions: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(0, captions - 1), min_size=1, max_size=captions - 1, unique=True).map(tuple)


@st.composite
def benchmarks(draw):
    images = draw(st.lists(vectors, min_size=1, max_size=5))
    texts = draw(st.lists(vectors, min_size=2, max_size=8))
    column = st.integers(0, len(texts) - 1)
    items = []
    for _ in range(draw(st.integers(1, 12))):
        captions = draw(st.lists(column, min_size=2, max_size=4))
        true = draw(st.integers(0, len(captions) - 1) | _several(len(captions)))
        items.append(item(draw(st.integers(0, len(images) - 1)), captions, true, draw(st.sampled_from("abc"))))
    return images, texts, items, draw(st.integers(1, 4)), draw(st.sets(st.sampled_from("abc"))), draw(st.integers(1, 4))


def cosine(left: Sequence[float], right: Sequence[float]) -> float:
    product = sum(one * other for one, other in zip(left, right, strict=True))
    return product / math.hypot(*left) / math.hypot(*right)


@given(benchmarks())
@settings(max_examples=50, deadline=None)
def test_accuracy_against_the_reference(case) -> None:
    images, texts, items, batch_size, outside, fewest = case
    encoder = TableEncoder(torch.tensor(images), torch.tensor(texts))
    contrasts = Contrasts(items, "drawn", outside_macro=frozenset(outside), fewest=fewest)
    found = evaluate_contrasts(encoder, contrasts, batch_size=batch_size)["plain"]

    right: dict[str, list[bool]] = {}
    for one in items:
        picture = images[int(one.picture.name[1:])]
        scores = [cosine(picture, texts[int(caption)]) for caption in one.captions]
        true = [one.true] if isinstance(one.true, int) else one.true
        own = min(scores[number] for number in true)
        others = [score for number, score in enumerate(scores) if number not in true]
        right.setdefault(one.group, []).append(max(others) < own - 1e-6)
    accuracy = {group: 100 * sum(hits) / len(hits) for group, hits in right.items()}
    kept = [group for group, hits in right.items() if len(hits) >= fewest and group not in outside]
    assert found.groups == pytest.approx(accuracy)
    assert found.sizes == {group: len(hits) for group, hits in right.items()}
    assert found["micro accuracy"] == pytest.approx(100 * sum(map(sum, right.values())) / len(items))
    assert found.in_macro == tuple(kept)
    expected = sum(accuracy[group] for group in kept) / len(kept) if kept else math.nan
    assert found["macro accuracy"] == pytest.approx(expected, nan_ok=True)
    assert found.chance["micro accuracy"] == pytest.approx(
        100 * sum(1 / math.comb(len(one.captions), len(one.right)) for one in items) / len(items)
    )
    # Once each, in whatever order the items came.
    assert sorted(encoder.images) == sorted({int(one.picture.name[1:]) for one in items})


@given(st.lists(st.tuples(vectors, vectors, vectors, vectors), min_size=1, max_size=6), st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_winoground_against_the_reference(examples, batch_size: int) -> None:
    images, texts, items = [], [], []
    text, image, group = [], [], []
    for number, (i0, i1, c0, c1) in enumerate(examples):
        images += [i0, i1]
        texts += [c0, c1]
        items += [item(2 * number + side, (2 * number, 2 * number + 1), side, str(number)) for side in (0, 1)]
        near = 1e-6
        c0_i0, c1_i0, c0_i1, c1_i1 = cosine(i0, c0), cosine(i0, c1), cosine(i1, c0), cosine(i1, c1)
        text.append(c0_i0 > c1_i0 + near and c1_i1 > c0_i1 + near)
        image.append(c0_i0 > c0_i1 + near and c1_i1 > c1_i0 + near)
        group.append(text[-1] and image[-1])
    encoder = TableEncoder(torch.tensor(images), torch.tensor(texts))
    found = evaluate_winoground(encoder, Contrasts(items), batch_size=batch_size)["plain"]
    expected = [100 * sum(hits) / len(hits) for hits in (text, image, group)]
    assert [found["text"], found["image"], found["group"]] == pytest.approx(expected)
    assert found.counts["examples"] == len(examples)


def test_the_three_scores_of_winoground_by_hand() -> None:
    # Pictures look along the axes; scores are the captions' own numbers, [picture, caption] = texts.T.
    cases = {
        "both": [[0.8, 0.6], [0.6, 0.8]],
        "text alone": [[0.6, 0.8], [0.28, 0.96]],
        "neither": [[0.6, 0.8], [0.8, 0.6]],
        "tied texts": [[0.6, 0.8], [0.6, 0.8]],
    }
    found = {}
    for name, captions in cases.items():
        encoder = TableEncoder(torch.eye(2), torch.tensor(captions))
        result = evaluate_winoground(encoder, Contrasts([item(0, (0, 1), 0), item(1, (0, 1), 1)]))["plain"]
        found[name] = (result["text"], result["image"], result["group"])
    assert found == {
        "both": (100, 100, 100),
        "text alone": (100, 0, 0),
        "neither": (0, 0, 0),
        "tied texts": (0, 0, 0),
    }


def test_a_tie_is_a_miss_and_rounding_is_a_tie() -> None:
    texts = torch.tensor([[1.0, 0.0], [1.0, 1e-5], [1.0, 0.1]])
    encoder = TableEncoder(torch.tensor([[1.0, 0.0]]), texts)
    groups = {"same": (0, 0), "rounding": (0, 1), "above": (0, 2), "one of several ties": (0, 2, 1)}
    items = [item(0, captions, 0, group) for group, captions in groups.items()]
    found = evaluate_contrasts(encoder, Contrasts(items))["plain"]
    assert found.groups == {"same": 0, "rounding": 0, "above": 100, "one of several ties": 0}
    assert (found["macro accuracy"], found["micro accuracy"]) == (25, 25)
    assert found.chance["micro accuracy"] == pytest.approx(100 * (3 / 2 + 1 / 3) / 4)


def test_sugarcrepe_from_its_files(tmp_path: Path) -> None:
    """Accuracies counted by hand: per group, of the 1, 2 or 3 rows whose picture is there."""
    for number in (0, 1):
        Image.new("RGB", (2, 2), (0, number, 0)).save(tmp_path / f"{number}.png")
    rows = {
        "add_att": [(0, 0, 1)],
        "add_obj": [(0, 1, 0)],
        "replace_att": [(0, 0, 1), (1, 0, 1)],
        "replace_obj": [(1, 1, 0), (5, 1, 0)],
        "replace_rel": [(0, 0, 1), (0, 1, 0), (1, 1, 0)],
        "swap_att": [(0, 0, 0)],
        "swap_obj": [(1, 1, 0)],
    }
    for group, lines in rows.items():
        content = {
            str(3 * key): {"filename": f"{picture}.png", "caption": str(true), "negative_caption": str(false)}
            for key, (picture, true, false) in enumerate(lines)
        }
        (tmp_path / f"{group}.json").write_text(json.dumps(content))
    encoder = TableEncoder(torch.eye(2), torch.eye(2))
    found = evaluate_contrasts(encoder, read_sugarcrepe(tmp_path))["plain"]
    by_hand = {
        "add_att": 100,
        "add_obj": 0,
        "replace_att": 50,
        "replace_obj": 100,
        "replace_rel": 200 / 3,
        "swap_att": 0,
        "swap_obj": 100,
    }
    assert found.groups == pytest.approx(by_hand)
    assert found["macro accuracy"] == pytest.approx((100 + 50 + 100 + 200 / 3 + 100) / 7)
    assert found["micro accuracy"] == pytest.approx(100 * 6 / 10)
    assert found.counts["items"] == 10
    assert list(found.problems) == [Problem("missing file", "5.png")]
    assert found.to_dict()["groups"]["replace_obj"] == {"accuracy": 100.0, "items": 1, "in macro": True}
    assert json.loads(json.dumps(found.to_dict()))["left out"] == 1
    lines = str(found).splitlines()
    assert lines[0] == "SugarCrepe: 10 items, 1 left out"
    assert lines[6].split() == ["replace_rel", "66.67", "3"]
    assert lines[-3].split()[-2:] == ["59.52", "10"]
    assert lines[-2].split()[-2:] == ["60.00", "10"]


def test_aro_leaves_symmetric_relations_and_rare_pairs_out(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in (0, 1):
        Image.new("RGB", (6, 4), (0, number, 0)).save(tmp_path / "images" / f"{number}.png")

    def row(picture: int, true: int, false: int, **more: object) -> dict:
        box = {"bbox_x": 1, "bbox_y": 1, "bbox_w": 3, "bbox_h": 3}
        captions = {"true_caption": str(true), "false_caption": str(false)}
        return {"image_path": f"{picture}.png", **captions, **box, **more}

    relations = [
        *[row(0, 0, 1, relation_name="on")] * 3,
        row(1, 0, 1, relation_name="on"),
        row(1, 0, 1, relation_name="behind"),
        *[row(0, 0, 1, relation_name="near")] * 4,
    ]
    (tmp_path / "visual_genome_relation.json").write_text(json.dumps(relations))
    encoder = TableEncoder(torch.eye(2), torch.eye(2))
    found = evaluate_contrasts(encoder, read_aro(tmp_path, "vg-relation"))["plain"]
    assert found.groups == {"on": 75, "behind": 0, "near": 100}
    assert found.in_macro == ("on", "behind")
    assert found["macro accuracy"] == 37.5
    assert found["micro accuracy"] == pytest.approx(100 * 7 / 9)
    assert "near" not in str(found)
    assert str(found).splitlines()[-3].split() == ["mean", "of", "2", "groups", "(macro)", "37.50", "5"]

    pairs = [
        *[row(0, 0, 1, attributes=["white", "black"])] * 20,
        *[row(0, 1, 0, attributes=["white", "black"])] * 5,
        *[row(0, 1, 0, attributes=["black", "white"])] * 24,
    ]
    (tmp_path / "visual_genome_attribution.json").write_text(json.dumps(pairs))
    found = evaluate_contrasts(encoder, read_aro(tmp_path, "vg-attribution"))["plain"]
    assert found.in_macro == ("white, black",)
    assert (found["macro accuracy"], found.sizes["black, white"]) == (80, 24)
    assert found["micro accuracy"] == pytest.approx(100 * 20 / 49)


def test_pictures_that_cannot_be_read_are_left_out_and_named(tmp_path: Path) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"\x89PNG\r\n\x1a\n torn")
    encoder = TableEncoder(torch.eye(2), torch.eye(2))
    bad = Contrast(Picture("a", torn), ("0", "1"), 0, "g")
    outside = replace(bad, picture=Picture("b", numbered(0).source, (5, 5, 2, 2)))
    contrasts = Contrasts([bad, item(0, (0, 1)), item(1, (0, 1)), outside], problems=(Problem("missing file", "x"),))
    for batch_size in (1, 2, 64):
        found = evaluate_contrasts(encoder, contrasts, batch_size=batch_size)["plain"]
        assert (found.counts["items"], found["micro accuracy"]) == (2, 50)
        assert [problem.what for problem in found.problems] == ["missing file", *["unreadable picture"] * 2]
        assert "torn.png" in found.problems[1].where
    with pytest.raises(InputError, match=r"No picture of mine can be read, the first: .*torn.png"):
        evaluate_contrasts(encoder, Contrasts([bad], "mine"))
    found = evaluate_contrasts(encoder, Contrasts([bad, item(0, (0, 1)), replace(bad, group="h")]))["plain"]
    assert (found.counts["items"], len(found.problems)) == (1, 2)  # each row of the picture counts
    pair = [item(0, (0, 1), 0, "0"), item(1, (0, 1), 1, "0"), replace(bad, group="1"), item(1, (0, 1), 1, "1")]
    found = evaluate_winoground(encoder, Contrasts(pair))["plain"]
    assert (found.counts["examples"], found["text"], len(found.problems)) == (1, 100, 1)
    assert found.to_dict() == {"text": 100.0, "image": 100.0, "group": 100.0, "examples": 1, "left out": 1}
    assert str(found).splitlines()[0] == "Winoground: 1 examples, 1 left out"
    with pytest.raises(InputError, match="two pictures that can be read"):
        evaluate_winoground(encoder, Contrasts([replace(bad, group="1"), item(1, (0, 1), 1, "1")]))


def test_parts_of_one_picture_are_not_one_picture() -> None:
    def halves() -> Image.Image:
        whole = Image.new("RGB", (4, 2), (0, 0, 0))
        whole.paste((0, 1, 0), (2, 0, 4, 2))
        return whole

    left, right = (Contrast(Picture("p", halves, (x, 0, 2, 2)), ("0", "1"), x // 2, "g") for x in (0, 2))
    found = evaluate_contrasts(TableEncoder(torch.eye(2), torch.eye(2)), Contrasts([left, right]))["plain"]
    assert found["micro accuracy"] == 100


def editor_of(sae, **options) -> CaptionEditor:
    editor = CaptionEditor(sae, EditorConfig(**options))
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in editor.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn(parameter.shape, generator=draw)
    return editor


def test_an_editor_is_asked_pair_by_pair(sae) -> None:
    """The benchmark's accuracy is that of `editor.score` on one picture and one caption at a time."""
    draw = torch.Generator().manual_seed(1)
    images, texts = torch.randn(12, WIDTH, generator=draw), torch.randn(30, WIDTH, generator=draw)
    encoder = TableEncoder(images, texts)
    editor = editor_of(sae, form="residual", length_exponent=1.0)
    columns = torch.randint(30, (80, 3), generator=draw)
    items = [item(row % 12, columns[row].tolist(), row % 3) for row in range(80)]
    items = [one for one in items if len(set(one.captions)) == 3]
    hits = []
    for one in items:
        picture = encoder.image_rows[[int(one.picture.name[1:])]]
        scores = []
        for caption in one.captions:
            text = encoder.text_rows[[int(caption)]]
            scores.append(float(editor.score(picture, text)))
        hits.append(int(np.argmax(scores)) == one.true)
    found = evaluate_contrasts(encoder, Contrasts(items), editor, batch_size=7)["edited"]
    assert found["micro accuracy"] == pytest.approx(100 * sum(hits) / len(hits))
    plain = evaluate_contrasts(encoder, Contrasts(items))["plain"]
    assert (
        plain["micro accuracy"]
        == evaluate_contrasts(encoder, Contrasts(items), PlainScorer(), batch_size=3)["edited"]["micro accuracy"]
    )
    assert plain["micro accuracy"] != found["micro accuracy"]

    encoder.images.clear()
    both = evaluate_contrasts(encoder, Contrasts(items), editor, batch_size=7)
    assert (both["plain"]["micro accuracy"], both["edited"]["micro accuracy"]) == (
        plain["micro accuracy"],
        found["micro accuracy"],
    )
    assert sorted(encoder.images) == sorted({int(one.picture.name[1:]) for one in items})


def test_bad_requests(sae) -> None:
    encoder = TableEncoder(torch.eye(2), torch.eye(2))
    one = Contrasts([item(0, (0, 1))], "mine")
    with pytest.raises(InputError, match="mine has no items"):
        evaluate_contrasts(encoder, Contrasts([], "mine"))
    with pytest.raises(InputError, match="batch_size is 0"):
        evaluate_contrasts(encoder, one, batch_size=0)
    with pytest.raises(ArtefactError, match=f"fitted on width {WIDTH} and these embeddings are 2 wide"):
        evaluate_contrasts(encoder, one, editor_of(sae, form="residual"))
    other = TableEncoder(torch.eye(WIDTH), torch.eye(WIDTH))
    other.name = "another"
    with pytest.raises(ArtefactError, match=r"'world' .* these are of 'another'"):
        evaluate_contrasts(other, one, editor_of(sae, form="residual"))
    with pytest.raises(InputError, match="Example 'g' is not two pictures"):
        evaluate_winoground(encoder, one)
    with pytest.raises(InputError, match="Example 'g' is not two pictures"):
        evaluate_winoground(encoder, Contrasts([item(0, (0, 1)), item(1, (0, 1))]))
    with pytest.raises(InputError, match="The two pictures of example 'g' have different captions"):
        evaluate_winoground(encoder, Contrasts([item(0, (0, 1)), item(1, (1, 0), 1)]))


@pytest.fixture(scope="module")
def tiny():
    return bs.load_encoder(default_model_path())


def scenes_told_wrongly(n: int) -> Contrasts:
    """Scenes of two objects: their colours exchanged in the caption, one colour replaced, one shape replaced."""
    scenes = make_scenes(n, objects=(2, 2), seed=11, split="test")
    items = []
    for row in range(len(scenes)):
        first, second = json.loads(scenes.dataset["attributes"][row])["objects"]
        if first["colour"] == second["colour"] or first["shape"] == second["shape"]:
            continue
        colour, shape = (
            next(word for word in [*words][row % 5 :] if word not in (first[kind], second[kind]))
            for kind, words in (("colour", COLOURS), ("shape", SHAPES))
        )
        rest = f" {first['shape']} and a {second['colour']} {second['shape']}"
        true = f"a {first['colour']}{rest}"
        false = {
            "swap_att": f"a {second['colour']} {first['shape']} and a {first['colour']} {second['shape']}",
            "replace_att": f"a {colour}{rest}",
            "replace_obj": f"a {first['colour']} {shape} and a {second['colour']} {second['shape']}",
        }
        picture = Picture(scenes.ids[row], partial(scenes.image, row))
        items += [Contrast(picture, (true, wrong), 0, group) for group, wrong in false.items()]
    return Contrasts(items, "scenes")


def test_what_the_shipped_model_tells_apart(tiny) -> None:
    """It knows the words, and hardly which belongs to which: the finding these benchmarks were made for."""
    contrasts = scenes_told_wrongly(150)
    plain = evaluate_contrasts(tiny, contrasts)["plain"]
    deviation = 50 / math.sqrt(plain.sizes["swap_att"])  # of a coin thrown as often
    assert plain.sizes["swap_att"] > 100
    assert plain.groups["replace_att"] > 50 + 6 * deviation
    assert plain.groups["replace_obj"] > 50 + 3 * deviation
    assert plain.groups["swap_att"] < plain.groups["replace_obj"] - 2 * deviation
    edited = evaluate_contrasts(tiny, contrasts, CaptionEditor.load(TINY_EDITOR))["edited"]
    assert edited.counts == plain.counts
    assert edited.groups["replace_att"] > 50 + 3 * deviation
