"""The study of how many pictures are needed: prefixes, what is kept, tables, the picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import how_many_pictures as study
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.sae import SparseAutoencoder


@pytest.fixture
def small(monkeypatch):
    fit = study.CaptionEditor.fit
    once = {"form": "gated", "memory": "none", "length_exponent": 0.0, "steps": 2}  # in place of choosing
    monkeypatch.setattr(study.CaptionEditor, "fit", lambda *parts, **options: fit(*parts, **(once | options)))
    sae = SparseAutoencoder.fit
    monkeypatch.setattr(SparseAutoencoder, "fit", lambda images, **options: sae(images, **options, steps=5))
    monkeypatch.setattr("boresight.editing.presence.STEPS", 2)
    towers = lambda images: images[:, :8], lambda texts: texts
    monkeypatch.setattr("flickr8k.ENCODERS", {"cut": lambda images, texts, seed: towers})
    monkeypatch.setattr(study, "ENCODERS", {"cut": None})


def write_photographs(folder: Path, split: str, count: int) -> None:
    draw = torch.Generator().manual_seed(count)
    images = torch.randn(count, 12, generator=draw)
    captions = images[:, None, :8] + torch.randn(count, 5, 8, generator=draw)
    save_file({"image_features": images, "caption_features": captions}, folder / f"{split}.safetensors")
    rows = [{"file_name": f"{row}.jpg", "captions": [f"{row} {c}" for c in range(5)]} for row in range(count)]
    (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_the_study_runs_and_goes_on(small, tmp_path, monkeypatch, capsys):
    for split, count in (("train", 80), ("dev", 40)):
        write_photographs(tmp_path, split, count)
    options = study.Options(
        data=tmp_path,
        out=tmp_path / "out",
        seeds=(0, 1),
        scenes=(34, 40),
        photographs=(36,),
        once_from=40,
        n_validation=12,
        n_test=20,
        n_latents=32,
    )
    fitted_on = []
    compare = study.compare
    monkeypatch.setattr(study, "compare", lambda *sets, **how: fitted_on.append(sets) or compare(*sets, **how))
    study.main(options)
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "out" / "how-many-pictures.md").read_text()
    assert (tmp_path / "out" / "how-many-pictures.png").stat().st_size > 10_000

    # One drawing, and the fewer are the first of the more; what chooses and reports stays.
    scenes = {len(train): (train, *rest) for train, *rest in fitted_on if len(train) != 36}
    assert set(scenes) == {34, 40}
    assert scenes[34][0].ids == scenes[40][0].ids[:34]
    torch.testing.assert_close(scenes[34][0].texts, scenes[40][0].texts[: 3 * 34])
    assert scenes[34][1].ids == scenes[40][1].ids
    assert len(fitted_on) == 5  # 34 and photographs with two seeds, 40 with one

    blocks = dict(block.split("\n\n", 1) for block in printed.removeprefix("### ").split("\n\n### "))
    assert set(blocks) == {"Flickr8k, cut", "scenes"}
    lines = [line.strip("| ").split(" | ") for line in blocks["scenes"].strip().split("\n")]
    assert lines[0] == ["row", "34", "40"]
    of = {line[0]: line[1:] for line in lines[2:]}
    assert set(of) >= {"plain", "memory alone", "masks alone, paper's form", *study.OURS, "edited"}
    runs = [json.loads((tmp_path / "out/scenes" / f"34-{seed}/found.json").read_text())["found"] for seed in (0, 1)]
    mean = sum(run["masks alone, contrast"] for run in runs) / 2
    assert of["masks alone, contrast"][0].startswith(f"{mean:.1f} ± ")
    assert "±" not in of["edited"][1]  # one seed

    monkeypatch.setattr(study, "compare", None)
    monkeypatch.setattr(study, "embed", None)
    study.main(options)
    assert capsys.readouterr().out == printed


def test_more_pictures_than_there_are_are_refused(tmp_path):
    draw = torch.Generator().manual_seed(0)
    few = Embeddings.from_arrays(torch.randn(5, 4, generator=draw), torch.randn(5, 4, generator=draw), torch.arange(5))
    with pytest.raises(InputError, match="scenes has 5 pictures to fit on and 6 are asked for"):
        study.measured("scenes", (few, few, few), 6, 0, study.Options(out=tmp_path))


def test_nothing_to_measure_is_refused(tmp_path):
    with pytest.raises(InputError, match="nothing to measure"):
        study.main(study.Options(out=tmp_path, scenes=()))


def run(**sums: float) -> dict[str, float]:
    names = [*(row.name for row in study.COMPARED), *study.OURS]
    return {**{name: sums.get(name, 10.0) for name in names}, study.STRENGTH: 0.25, study.EXPLAINED: 0.5}


def test_the_gain_is_over_the_best_rival_of_each_number_seed_by_seed():
    of_world = {
        100: [run(plain=20.0, edited=21.0), run(plain=40.0, edited=43.0)],
        2000: [run(**{"plain": 20.0, "plain, NNN": 50.0, "edited": 40.0})],
    }
    text = study.table(of_world)
    assert text.splitlines()[0] == "| row | 100 | 2,000 |"
    assert text.splitlines()[-3] == "| edited over the best rival | +2.0 ± 1.4 (+6.7 %) | -10.0 (-20.0 %) |"
    assert text.splitlines()[-2] == f"| {study.STRENGTH} | 0.25 ± 0.00 | 0.25 |"
    assert text.splitlines()[-1] == f"| {study.EXPLAINED} | 0.50 ± 0.00 | 0.50 |"
