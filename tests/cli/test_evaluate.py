"""`boresight evaluate BENCHMARK` and `boresight report` as a user types them, on pictures in the published layouts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from boresight import load_encoder
from boresight.benchmarks.record import BenchmarkRun
from boresight.benchmarks.registry import BENCHMARKS
from boresight.data.worlds.scenes import make_scenes
from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings
from boresight.evaluation import evaluate_editor
from boresight.evaluation.retrieval import RECALLS
from boresight.models import default_model_path
from command_line import boresight, refused
from tiny_editor import TINY_EDITOR

N = 30


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(N, size=96, split="test")


@pytest.fixture(scope="module")
def urban(scenes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("urban")
    for part in ("image", "caption"):
        (folder / "Urban1k" / part).mkdir(parents=True)
    for row in range(N):
        scenes.image(row).save(folder / "Urban1k" / "image" / f"{row}.jpg", quality=95)
        text = f"{scenes.captions[row][2]}\nanother line"
        (folder / "Urban1k" / "caption" / f"{row}.txt").write_text(text)
    return folder


def by_hand(folder: Path) -> tuple[float, float]:
    """T2I and I2T R@1 of what was embedded, by sorting."""
    kept = Embeddings.load(folder / "embeddings")
    scores = kept.texts.float().numpy() @ kept.images.float().numpy().T
    own = np.arange(N)
    return 100 * (scores.argmax(1) == own).mean(), 100 * (scores.argmax(0) == own).mean()


def test_a_published_layout_to_a_page(urban: Path, tmp_path: Path) -> None:
    command = ("evaluate", "urban1k", "--data", urban)
    code, out, err = boresight(*command, "--editor", TINY_EDITOR, "--out", "runs/a", cwd=tmp_path)
    assert code == 0, err
    run = BenchmarkRun.load(tmp_path / "runs" / "a")
    assert run.scores["plain"]["T2I R@1"] == pytest.approx(by_hand(tmp_path / "runs" / "a")[0])
    assert run.scores["plain"]["I2T R@1"] == pytest.approx(by_hand(tmp_path / "runs" / "a")[1])
    assert list(run.scores) == ["plain", "plain, NNN", "plain, Sinkhorn", "edited"]
    assert len({tuple(values) for values in run.scores.values()}) == 1
    assert run.verdict.ours == pytest.approx(sum(run.scores["edited"].values()))
    rivals = {name: sum(values.values()) for name, values in run.scores.items() if name != "edited"}
    assert run.verdict.theirs == pytest.approx(max(rivals.values())) == pytest.approx(rivals[run.verdict.rival])
    assert f"\n{run.verdict.sentence}\n" in out
    assert "chosen on: " in out
    assert "other pairs that the editor remembers, for want of a validation set" in run.verdict.chosen["chosen on"]
    assert run.editor == CaptionEditor.load(TINY_EDITOR).fingerprint
    assert run.facts["images"] == "30"
    assert run.facts["images, not as published"] == "30 of 1,000"
    assert len(run.examples) >= 4
    assert f"{run.scores['plain']['T2I R@1']:.2f}" in out
    code, _, err = boresight(*command, "--long-text", "windows", cwd=tmp_path)
    assert code == 0, err
    assert (tmp_path / "runs" / "urban1k" / "benchmark.json").is_file()
    again = (*command, "--editor", TINY_EDITOR, "--out", "runs/a", "--long-text", "windows")
    assert "--long-text" in refused(*again, cwd=tmp_path)
    assert "holds another run" in refused(*command, "--out", "runs/a", cwd=tmp_path)
    assert BenchmarkRun.load(tmp_path / "runs" / "urban1k").verdict is None

    code, out, err = boresight("report", "runs/a", "runs/urban1k", "--out", "page.html", cwd=tmp_path)
    assert code == 0, err
    page = (tmp_path / "page.html").read_text()
    assert "Long-CLIP-L" in page
    assert "SmartCLIP (arXiv 2507.22264)" in page
    assert page.count("data:image/webp") > 10
    assert run.verdict.sentence.replace("'", "&#39;") in page
    assert "for want of a validation set." in page
    assert not re.search(r"(src|href)=[\"']https?:", page)
    assert "holds no run" in refused("report", "runs", cwd=tmp_path)


def test_a_bank_of_ones_own(urban: Path, scenes, tmp_path: Path) -> None:
    """Chosen on its validation; the figures are those of `evaluate_editor` on the same embeddings."""
    encoder = load_encoder(str(default_model_path()), dtype="float32")
    known = make_scenes(80, size=96, seed=5)
    images = encoder.embed_images([known.image(row) for row in range(80)])
    texts = encoder.embed_texts([captions[2] for captions in known.captions])
    splits = ["validation"] * 40 + ["train"] * 40
    bank = Embeddings.from_arrays(images, texts, range(80), splits=splits, name="known", encoder=encoder.name)
    bank.save(tmp_path / "bank")
    command = ("evaluate", "urban1k", "--data", urban, "--editor", TINY_EDITOR, "--bank")
    code, out, err = boresight(*command, "bank", "--out", "run", cwd=tmp_path)
    assert code == 0, err
    assert "chosen on: the split 'validation' of known, 40 images" in out
    run, test = BenchmarkRun.load(tmp_path / "run"), Embeddings.load(tmp_path / "run" / "embeddings")
    scores, said = evaluate_editor(test, CaptionEditor.load(TINY_EDITOR), bank=bank)
    assert run.verdict.chosen == said.chosen
    assert run.scores["plain, NNN"] == {name: scores["plain, NNN"][name] for name in RECALLS}
    code, out, err = boresight(
        "evaluate", "run/embeddings", "--editor", TINY_EDITOR, "--bank", "bank", "--out", "f.json", cwd=tmp_path
    )
    assert code == 0, err
    assert out.rstrip().endswith("chosen on: the split 'validation' of known, 40 images")
    assert json.loads((tmp_path / "f.json").read_text())["verdict"]["sentence"] == run.verdict.sentence
    bank.train.save(tmp_path / "train-alone")
    assert "no split 'validation' to choose on" in refused(*command, "train-alone", "--out", "b", cwd=tmp_path)
    without = ("evaluate", "urban1k", "--data", urban, "--bank", "bank")
    assert "--bank is for what could be done instead of an edit; pass --editor" in refused(*without, cwd=tmp_path)
    other = ("evaluate", "sugarcrepe", "--data", urban, "--editor", TINY_EDITOR, "--bank", "bank")
    assert "sugarcrepe takes no bank" in refused(*other, cwd=tmp_path)


def test_sugarcrepe_winoground_and_classes(scenes, tmp_path: Path) -> None:
    pictures = tmp_path / "val2017"
    pictures.mkdir()
    things = [json.loads(cells)["objects"][0] for cells in scenes.dataset["attributes"]]
    other = {"red": "blue", "blue": "red"}
    said = [(f"a {one['colour']} {one['shape']}", f"a {other.get(one['colour'], 'red')} ring") for one in things]
    for row in range(N):
        scenes.image(row).save(pictures / f"{row:012d}.png")
    parts = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
    for number, part in enumerate(parts):
        items = {
            str(3 * row): {"filename": f"{row:012d}.png", "caption": true, "negative_caption": false}
            for row, (true, false) in enumerate(said)
            if row % 7 == number and true != false
        }
        (tmp_path / f"{part}.json").write_text(json.dumps(items))
    code, _, err = boresight("evaluate", "sugarcrepe", "--data", ".", "--out", "crepe", cwd=tmp_path)
    assert code == 0, err
    scores = BenchmarkRun.load(tmp_path / "crepe").scores["plain"]
    encoder = load_encoder(str(default_model_path()), dtype="float32")
    images = encoder.embed_images([scenes.image(row) for row in range(N)])
    true, false = (encoder.embed_texts([pair[side] for pair in said]) for side in (0, 1))
    right = ((images * true).sum(1) > (images * false).sum(1)) & torch.tensor([a != b for a, b in said])
    for number, part in enumerate(parts):
        rows = [row for row in range(number, N, 7) if said[row][0] != said[row][1]]
        assert scores[part] == pytest.approx(100 * float(right[rows].double().mean()))
    assert scores["macro accuracy"] == pytest.approx(np.mean([scores[part] for part in parts]))

    (tmp_path / "wino" / "images").mkdir(parents=True)
    lines = []
    for row in range(0, 10, 2):
        for side in (0, 1):
            scenes.image(row + side).save(tmp_path / "wino" / "images" / f"{row}_{side}.png")
        names = {f"image_{side}": f"{row}_{side}" for side in (0, 1)}
        captions = {f"caption_{side}": scenes.captions[row + side][2] for side in (0, 1)}
        lines.append(json.dumps({"id": row, **names, **captions}))
    (tmp_path / "wino" / "examples.jsonl").write_text("\n".join(lines))
    code, _, err = boresight("evaluate", "winoground", "--data", "wino", "--out", "w", cwd=tmp_path)
    assert code == 0, err
    wino = BenchmarkRun.load(tmp_path / "w").scores["plain"]
    texts = encoder.embed_texts([scenes.captions[row][2] for row in range(10)])
    table = torch.stack([images[row : row + 2] @ texts[row : row + 2].T for row in range(0, 10, 2)])
    text = (table[:, 0, 0] > table[:, 0, 1]) & (table[:, 1, 1] > table[:, 1, 0])
    image = (table[:, 0, 0] > table[:, 1, 0]) & (table[:, 1, 1] > table[:, 0, 1])
    expected = [100 * float(each.double().mean()) for each in (text, image, text & image)]
    assert [wino[name] for name in ("text", "image", "group")] == pytest.approx(expected)

    for row, one in enumerate(things):
        place = tmp_path / "classes" / one["shape"]
        place.mkdir(parents=True, exist_ok=True)
        scenes.image(row).save(place / f"{row}.png")
    (tmp_path / "templates.txt").write_text("{}\n")
    zero = ("evaluate", "zero-shot", "--data", "classes", "--templates", "templates.txt", "--out", "z")
    code, _, err = boresight(*zero, cwd=tmp_path)
    assert code == 0, err
    shapes = sorted({one["shape"] for one in things})
    best = (images @ encoder.embed_texts(shapes).T).argmax(1)
    hits = [shapes[int(guess)] == one["shape"] for guess, one in zip(best, things, strict=True)]
    assert BenchmarkRun.load(tmp_path / "z").scores["plain"]["top-1"] == pytest.approx(100 * np.mean(hits))
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    assert "2 names for the 8 class folders" in refused(*zero, "--classes", "names.txt", cwd=tmp_path)
    code, _, err = boresight("report", "crepe", "w", "z", cwd=tmp_path)
    assert code == 0, err
    assert "arXiv 2306.14610" in (tmp_path / "report.html").read_text()


def test_rococo(scenes, tmp_path: Path) -> None:
    (tmp_path / "val2014").mkdir()
    entries = []
    for row in range(N):
        scenes.image(row).save(tmp_path / "val2014" / f"{row}.png")
        own = (scenes.captions[row] * 2)[:5]
        altered = [caption.replace("a ", "a dangerous ") for caption in own]
        entries.append({"image": f"val2014/{row}.png", "caption": own + altered})
    (tmp_path / "danger.json").write_text(json.dumps(entries))
    code, _, err = boresight("evaluate", "rococo-danger", "--data", ".", "--out", "r", cwd=tmp_path)
    assert code == 0, err
    run = BenchmarkRun.load(tmp_path / "r")
    assert {"I2T R@1", "I2T R@5", "I2T R@10", "false rate", "drop rate"} <= set(run.scores["plain"])
    assert run.scores["plain"]["I2T R@1"] <= run.scores["plain"]["R@1, plain gallery"]
    assert run.facts["altered captions"] == "150"
    assert "false rate" in run.lower


def test_any_collection(scenes, tmp_path: Path) -> None:
    photos, rows = tmp_path / "photos", []
    truths = [json.loads(text) for text in scenes.dataset["attributes"][:]]
    photos.mkdir()
    for row in range(N):
        scenes.image(row).save(photos / f"{row}.png")
        truth = {"attributes": scenes.dataset["attributes"][row], "ground": truths[row]["background"]}
        rows.append({"file_name": f"{row}.png", "captions": scenes.captions[row], "split": "test", **truth})
    (photos / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name in ("retrieval", "swaps", "mixes", "composition", "alignment"):
        command = ["evaluate", name, "--data", photos, "--editor", TINY_EDITOR, "--out", name]
        command += ["--labels", "attributes.objects.shape", "ground"] if name == "alignment" else []
        code, _, err = boresight(*command, cwd=tmp_path)
        assert code == 0, err
        run = BenchmarkRun.load(tmp_path / name)
        assert {"plain", "edited"} <= set(run.scores)
        assert set(run.charts) <= set(run.scores["plain"])
        assert set(run.lower) <= set(run.scores["plain"])
        assert "warning" not in run.facts
    pairs = BenchmarkRun.load(tmp_path / "alignment").pairs
    assert {way: len(sides["texts"]) for way, sides in pairs.items()} == {"plain": N, "edited": N}
    code, _, err = boresight("report", "alignment", "--out", "alignment.html", cwd=tmp_path)
    assert code == 0, err
    assert "data:image/png" in (tmp_path / "alignment.html").read_text()
    aligned = BenchmarkRun.load(tmp_path / "alignment").scores
    assert {"object bias, images", "ground: left out", "ground: guessing"} <= set(aligned["plain"])
    assert set(aligned["edited"]) >= set(aligned["plain"])
    said = refused("evaluate", "alignment", "--data", photos, "--labels", "colour", "--out", "x", cwd=tmp_path)
    assert "no column 'colour' for labels; there are attributes, ground" in said
    composed = BenchmarkRun.load(tmp_path / "composition").scores["plain"]
    assert set(composed) >= {"same-concept word", "danger word", "word order"}
    assert composed["danger word"] == pytest.approx(
        BenchmarkRun.load(tmp_path / "swaps").scores["plain"]["danger: accuracy"]
    )
    swaps, mixes = (BenchmarkRun.load(tmp_path / name).scores["plain"] for name in ("swaps", "mixes"))
    assert swaps["danger: accuracy"] > 50
    assert mixes["mix: accuracy"] > 50
    again = boresight("evaluate", "mixes", "--data", photos, "--editor", TINY_EDITOR, "--out", "again", cwd=tmp_path)
    assert again[0] == 0
    assert BenchmarkRun.load(tmp_path / "again").scores["plain"] == mixes
    (photos / "captions.jsonl").write_text("\n".join(json.dumps(row | {"split": "train"}) for row in rows))
    command = ["evaluate", "swaps", "--data", photos, "--editor", TINY_EDITOR, "--split", "train", "--out", "fitted"]
    code, out, err = boresight(*command, cwd=tmp_path)
    assert code == 0, err
    assert "the editor was fitted or chosen on 'train'; if on these images, test on others" in out


def test_bad_input(urban: Path, tmp_path: Path) -> None:
    assert "nor a benchmark; did you mean coco-karpathy-5k or coco-karpathy-1k or" in refused(
        "evaluate", "coco", cwd=tmp_path
    )
    assert "urban1k needs --data: its folder" in refused("evaluate", "urban1k", cwd=tmp_path)
    assert "swaps needs --data: a collection" in refused("evaluate", "swaps", cwd=tmp_path)
    said = refused("evaluate", "docci", "--data", urban, cwd=tmp_path)
    assert "docci_descriptions.jsonlines" in said
    assert "google.github.io/docci" in said
    said = refused("evaluate", "sugarcrepe", "--data", urban, cwd=tmp_path)
    assert "add_att.json" in said
    assert "published at" in said


def test_the_help_names_every_benchmark() -> None:
    code, out, _ = boresight("evaluate", "--help", cwd=Path())
    assert code == 0
    said = out.replace("│", " ")
    assert all(name.removesuffix("-sentences") in said for name in BENCHMARKS)


def test_options_and_folders_are_looked_at_before_the_model(tmp_path: Path) -> None:
    command = ("evaluate", "sugarcrepe", "--model", tmp_path / "no-model")
    assert "There is no folder" in refused(*command, "--data", "nowhere", cwd=tmp_path)
    assert "sugarcrepe takes no seed" in refused(*command, "--data", tmp_path, "--seed", "5", cwd=tmp_path)
    sentence = refused("evaluate", "retrieval", "--data", "scenes", "--images", tmp_path, cwd=tmp_path)
    assert "'scenes' comes with all that belongs to it; leave --images out" in sentence
