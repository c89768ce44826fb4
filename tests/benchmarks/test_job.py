"""What a run on a benchmark records and refuses, on the shipped model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boresight import load_collection, load_encoder
from boresight.benchmarks.job import BenchmarkJob
from boresight.benchmarks.record import BenchmarkRun
from boresight.benchmarks.registry import BENCHMARKS, OPTIONS, run_benchmark
from boresight.benchmarks.sugarcrepe import GROUPS
from boresight.data.worlds.scenes import make_scenes
from boresight.editing import CaptionEditor
from boresight.embeddings import embed
from boresight.embeddings.batches import embed_captions
from boresight.encoders.long_text import embed_texts_in_windows
from boresight.errors import ArtefactError, InputError
from boresight.evaluation.word_swaps import swap_words
from boresight.models import default_model_path
from boresight.reports.benchmark_page import write_benchmark_report
from tiny_editor import TINY_EDITOR

N = 12


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(str(default_model_path()), dtype="float32")


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(N, size=96, split="test")


@pytest.fixture
def job(encoder, scenes, tmp_path: Path) -> BenchmarkJob:
    return BenchmarkJob(encoder=encoder, data=scenes, out=tmp_path / "run", workers=0)


def urban(scenes, folder: Path) -> Path:
    for part in ("image", "caption"):
        (folder / part).mkdir(parents=True)
    for row in range(N):
        scenes.image(row).save(folder / "image" / f"{row}.jpg")
        (folder / "caption" / f"{row}.txt").write_text(scenes.captions[row][2])
    return folder


def test_altered_captions_are_read_as_the_true_ones(encoder, scenes, tmp_path: Path) -> None:
    with open(tmp_path / "captions.jsonl", "w") as lines:
        for row in range(N):
            scenes.image(row).save(tmp_path / f"{row}.png")
            told = [scenes.captions[row][0], " and ".join(scenes.captions[row][2] for _ in range(5))]
            lines.write(json.dumps({"file_name": f"{row}.png", "captions": told, "split": "test"}) + "\n")
    scenes = load_collection(tmp_path)
    job = BenchmarkJob(encoder=encoder, data=scenes, out=tmp_path / "run", workers=0)
    texts = scenes.texts
    long = sum(count > encoder.token_limit for count in encoder.token_counts(texts))
    assert long
    for way in ("truncate", "windows"):
        true = embed(encoder, scenes, dtype="float32", long_text=way).texts
        assert torch.allclose(embed_captions(encoder, texts, long_text=way, batch_size=5)[0], true, atol=1e-5)
    run = run_benchmark("swaps", replace(job, long_text="windows"))
    assert run.facts["captions longer than the model reads"] == f"{long}, read in windows"
    images = encoder.embed_images([scenes.image(row) for row in range(N)])
    swapped = swap_words(texts, "danger", owners=scenes.owners)
    own = images[torch.tensor(scenes.owners)[swapped.rows]]
    true, false = (
        embed_texts_in_windows(encoder, [captions[row] for row in swapped.rows], 64)[0]
        for captions in (texts, swapped.captions)
    )
    accuracy = 100 * float(((own * true).sum(1) > (own * false).sum(1)).double().mean())
    assert run.scores["plain"]["danger: accuracy"] == pytest.approx(accuracy, abs=100 / len(swapped.rows))
    assert run.facts["captions with a danger word"] == f"{len(swapped.rows)}"
    with pytest.raises(InputError, match="0 captions to embed"):
        embed_captions(encoder, [])


def test_nothing_to_exchange_is_a_sentence(encoder, scenes, tmp_path: Path) -> None:
    for row, caption in enumerate(("ein Hund", "zwei Katzen", "drei Vögel")):
        scenes.image(row).save(tmp_path / f"{row}.png")
        with open(tmp_path / "captions.jsonl", "a", encoding="utf-8") as lines:
            lines.write(json.dumps({"file_name": f"{row}.png", "caption": caption, "split": "test"}) + "\n")
    job = BenchmarkJob(encoder=encoder, data=load_collection(tmp_path), out=tmp_path / "run", workers=0)
    with pytest.raises(InputError, match=r"No caption of .*, test has a word that can be exchanged"):
        run_benchmark("swaps", job)


def test_a_run_says_what_it_was_run_on(encoder, scenes, job, tmp_path: Path) -> None:
    runs = [run_benchmark("retrieval", job)]
    other = make_scenes(N, size=96, split="validation")
    runs.append(run_benchmark("retrieval", replace(job, data=other, out=tmp_path / "other")))
    assert [run.subject for run in runs] == ["scenes, test", "scenes, validation"]
    assert BenchmarkRun.load(job.out).subject == runs[0].subject
    assert str(runs[1]).startswith("Retrieval: scenes, validation, ")
    write_benchmark_report(tmp_path / "page.html", [*runs, runs[0]])
    page = (tmp_path / "page.html").read_text()
    assert "<h2>Retrieval: scenes, test</h2>" in page
    assert "<h2>Retrieval: scenes, validation</h2>" in page
    assert page.count(f'<th scope="row">{encoder.name}</th>') == 2  # the same figures once


def test_a_folder_keeps_its_run(encoder, scenes, job, tmp_path: Path) -> None:
    first = run_benchmark("composition", job)
    assert run_benchmark("composition", job).scores == first.scores  # it may be done again
    refused = r"run holds another run, Captions of nearly the same words: scenes, test of .*; choose another `out`"
    others = {
        "split": make_scenes(N, size=96, split="validation"),
        "captions": make_scenes(N, seed=1, size=96, split="test"),
    }
    for name, data in (("alignment", scenes), *(("composition", data) for data in others.values())):
        with pytest.raises(ArtefactError, match=refused):
            run_benchmark(name, replace(job, data=data))
    edited = replace(job, editor=CaptionEditor.load(TINY_EDITOR))
    assert run_benchmark("composition", edited).scores["plain"] == first.scores["plain"]  # and given an editor
    with pytest.raises(ArtefactError, match=f"edited by {edited.editor.fingerprint}; choose another"):
        run_benchmark("composition", job)
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ArtefactError, match=r"Cannot write .*file is no folder that you may write to"):
            run_benchmark("composition", replace(job, out=out))


def test_an_editor_of_another_encoder_is_refused_first(job, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = CaptionEditor.load(TINY_EDITOR)
    editor.sae.manifest = {**editor.sae.manifest, "encoder_fingerprint": "another"}
    monkeypatch.setattr(BenchmarkJob, "embedded", None)  # nothing is embedded before
    for name in ("mixes", "swaps", "alignment"):
        with pytest.raises(ArtefactError, match="encoder"):
            run_benchmark(name, replace(job, editor=editor))


def test_less_than_was_published_is_recorded(encoder, scenes, tmp_path: Path) -> None:
    (tmp_path / "val2017").mkdir()
    for row in range(2):
        scenes.image(row).save(tmp_path / "val2017" / f"{row}.jpg")
    (tmp_path / "val2017" / "1.jpg").write_bytes(b"torn")
    row = {"caption": "a red ring", "negative_caption": "a blue ring"}
    for group in GROUPS:
        rows = {str(n): {"filename": f"{n}.jpg", **row} for n in (0, 1)} if group != "add_att" else {}
        (tmp_path / f"{group}.json").write_text(json.dumps(rows))
    job = BenchmarkJob(encoder=encoder, data=tmp_path, out=tmp_path / "run", workers=0)
    facts = run_benchmark("sugarcrepe", job).facts
    assert facts["items"] == "6"
    assert facts["items, not as published"] == "6 of 7,511"
    assert facts["left out"] == "6 x unreadable picture"


def test_zero_shot_counts_what_it_read(encoder, scenes, tmp_path: Path) -> None:
    for name in ("ring", "star", "none at all"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for row in range(4):
        scenes.image(row).save(tmp_path / "data" / ("ring", "star")[row % 2] / f"{row}.png")
    (tmp_path / "data" / "ring" / "0.png").write_bytes(b"torn")
    job = BenchmarkJob(encoder=encoder, data=tmp_path / "data", out=tmp_path / "run", workers=0)
    run = run_benchmark("zero-shot", job)
    assert run.facts["images"] == "3"
    assert run.facts["classes"] == "3, without pictures: 'none at all'"
    assert run.facts["left out"] == "1 x unreadable picture"
    assert run.data


@pytest.mark.parametrize("name", BENCHMARKS)
def test_options_that_mean_nothing_are_refused(name: str, job, tmp_path: Path) -> None:
    given = {"images": tmp_path, "long_text": "windows", "classes": tmp_path, "templates": tmp_path, "labels": ("a",)}
    given["seed"] = 1
    assert given.keys() == OPTIONS.keys()
    for option in given.keys() - BENCHMARKS[name].takes:
        with pytest.raises(InputError, match=f"^{name} takes no {option.replace('_', ' ')}; leave it out"):
            run_benchmark(name, replace(job, **{option: given[option]}))
    assert not job.out.exists()


def test_what_could_not_be_read_is_recorded(encoder, scenes, tmp_path: Path) -> None:
    folder = urban(scenes, tmp_path)
    (folder / "image" / "3.jpg").write_bytes(b"no picture")
    (folder / "image" / "4.jpg").unlink()
    job = BenchmarkJob(encoder=encoder, data=folder, out=tmp_path / "run", workers=0)
    facts = run_benchmark("urban1k", job).facts
    assert facts["images"] == str(N - 2)
    assert facts["images, not as published"] == f"{N - 2} of 1,000"
    assert facts["left out"] == "1 x missing file, 1 x unreadable picture"


def test_a_measure_that_is_not_defined_is_named(encoder, scenes, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    rows = []
    for row in range(4):
        scenes.image(row).save(tmp_path / "images" / f"{row}.png")
        box = {f"bbox_{side}": value for side, value in zip("xywh", (0, 0, 50, 50), strict=True)}
        said = {"true_caption": "a red ring", "false_caption": "a blue ring", "attributes": ["red", "blue"]}
        rows.append({"image_path": f"{row}.png", **box, **said})
    (tmp_path / "visual_genome_attribution.json").write_text(json.dumps(rows))
    job = BenchmarkJob(encoder=encoder, data=tmp_path, out=tmp_path / "run", workers=0)
    run = run_benchmark("aro-vg-attribution", job)
    assert "macro accuracy" not in run.scores["plain"]
    assert run.facts["not defined on these data"] == "macro accuracy"
    assert "NaN" not in (tmp_path / "run" / "benchmark.json").read_text()
    earlier = replace(run, scores={"plain": {**run.scores["plain"], "macro accuracy": float("nan")}})
    write_benchmark_report(tmp_path / "page.html", [run, earlier])
    assert "nan" not in (tmp_path / "page.html").read_text().split("<h3>")[0].split("<table")[1]
