"""Benchmarks by name, and what a run of one records and refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boresight.benchmarks.job import BenchmarkJob
from boresight.benchmarks.record import BenchmarkRun
from boresight.benchmarks.registry import BENCHMARKS, OPTIONS, RETRIEVAL, open_published, run_benchmark
from boresight.benchmarks.retrieval import PublishedRetrieval
from boresight.data.worlds.scenes import make_scenes
from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings
from boresight.errors import ArtefactError, InputError
from boresight.reports.benchmark_page import write_benchmark_report
from tiny_editor import TINY_EDITOR


@pytest.fixture(autouse=True)
def spoken(monkeypatch):
    monkeypatch.delenv("BORESIGHT_QUIET", raising=False)


@pytest.mark.parametrize("published", RETRIEVAL.values(), ids=RETRIEVAL)
def test_every_benchmark_asks_for_its_file(published: PublishedRetrieval, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs .*, which .* lacks; it is published at https://"):
        open_published(published.name, tmp_path)
    with pytest.raises(InputError, match="There is no folder"):
        open_published(published.name, tmp_path / "nowhere")


def test_names_and_titles_are_apart() -> None:
    assert len({published.title for published in RETRIEVAL.values()}) == len(RETRIEVAL) == 20
    assert all(published.name == name for name, published in RETRIEVAL.items())
    with pytest.raises(InputError, match="There is no benchmark 'coco'; did you mean coco-karpathy-5k or"):
        open_published("coco", ".")


def test_a_run_says_what_it_was_run_on(encoder, scenes, job, tmp_path: Path) -> None:
    runs = [run_benchmark("retrieval", job)]
    other = make_scenes(len(scenes), size=96, split="validation")
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
        "split": make_scenes(len(scenes), size=96, split="validation"),
        "captions": make_scenes(len(scenes), seed=1, size=96, split="test"),
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


@pytest.mark.parametrize("name", BENCHMARKS)
def test_options_that_mean_nothing_are_refused(name: str, job, tmp_path: Path) -> None:
    given = {"images": tmp_path, "long_text": "windows", "classes": tmp_path, "templates": tmp_path, "labels": ("a",)}
    given |= {"seed": 1, "bank": Embeddings.from_arrays(torch.ones(1, 4), torch.ones(1, 4), [0])}
    assert given.keys() == OPTIONS.keys()
    for option in given.keys() - BENCHMARKS[name].takes:
        with pytest.raises(InputError, match=f"^{name} takes no {option.replace('_', ' ')}; leave it out"):
            run_benchmark(name, replace(job, **{option: given[option]}))
    assert not job.out.exists()


def test_a_bank_is_for_an_editor_and_has_a_validation_set(job) -> None:
    bank = Embeddings.from_arrays(torch.ones(1, 4), torch.ones(1, 4), [0])
    with pytest.raises(InputError, match="A bank is for what could be done instead of an edit; pass an editor too"):
        run_benchmark("retrieval", replace(job, bank=bank))
    editor = CaptionEditor.load(TINY_EDITOR)
    with pytest.raises(InputError, match="The bank has no split 'validation' to choose on; present: all"):
        run_benchmark("retrieval", replace(job, editor=editor, bank=bank))
    with pytest.raises(ArtefactError, match="wide"):
        run_benchmark("retrieval", replace(job, editor=editor, bank=replace(bank, splits=["validation"])))
    assert not job.out.exists()
