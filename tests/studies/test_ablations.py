"""The study of ablations: its settings, its arithmetic, and a very small run from data to tables."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pytest
import torch

import ablations
from boresight.editing.config import EditorConfig
from boresight.embeddings import Embeddings
from boresight.errors import ArtefactError, InputError
from boresight.evaluation import evaluate_retrieval
from boresight.sae.config import SaeConfig

BASE = ablations.Setting()
TINY = ablations.Options(
    worlds=("scenes",),
    seeds=(0,),
    n_latents=16,
    k=4,
    n_train=16,
    n_validation=8,
    n_test=12,
    sae_steps=2,
    editor_steps=1,
)


@pytest.fixture(autouse=True)
def quiet_and_quick(monkeypatch):
    monkeypatch.setenv("BORESIGHT_QUIET", "1")
    monkeypatch.setattr("boresight.editing.presence.STEPS", 2)


def test_every_factor_has_the_default_and_what_fits_together():
    levels = ablations.factors(BASE)
    assert tuple(levels) == ablations.FACTORS
    for factor, of in levels.items():
        assert list(of.values()).count(BASE) == 1, factor
        assert len(set(of.values())) == len(of), factor
    for setting in (one for of in levels.values() for one in of.values()):
        SaeConfig(width=256, **setting.of_sae)
        chosen = {name: value for name, value in setting.of_editor.items() if value is not None}
        EditorConfig(**chosen)
    assert [one.n_latents for one in levels["latents"].values()] == [256, 512, 1024, 2048, 4096]
    assert list(levels["k"]) == ["8", "16", "32", "64"]
    narrow = ablations.factors(replace(BASE, n_latents=64, k=48))
    assert list(narrow["latents"]) == ["64", "128", "256"]
    assert list(narrow["k"]) == ["12", "24", "48"]


def test_settings_have_files_of_their_own():
    levels, options = ablations.factors(BASE), ablations.Options()
    settings = {one for of in levels.values() for one in of.values()}
    names = {ablations.name_of(one, options) for one in settings}
    assert len(names) == len(settings)
    assert {"default", "k-8", "length_exponent-0.5", "control-random-mask"} <= names


def run(t2i: float, i2t: float, chosen: str = "gated 0") -> dict:
    measures = {"train": {"dead_share": t2i / 100}, "validation": {"explained_variance": 0.5, "l0": 4.0}}
    tests = {"test": {"T2I R@1": t2i, "I2T R@1": i2t}}
    return {"tests": tests, "sae": measures if chosen else {}, "chosen": chosen}


def test_gains_are_paired_by_seed():
    frozen = replace(BASE, text="frozen")
    rows = {
        BASE.tuned: [run(10.0, 20.0, ""), run(20.0, 40.0, "")],
        BASE: [run(12.0, 24.0), run(26.0, 46.0)],
        frozen: [run(8.0, 16.0), run(18.0, 36.0, "residual 1")],
    }
    found = ablations.Results(run(10.0, 10.0)["tests"], rows, BASE)
    table = ablations.table({"text": {"finetuned": BASE, "frozen": frozen}}, found).split("\n")
    assert [line.count("|") for line in table] == [10] * 6
    # Means 10; 15 and 30; 18 and 36; 12 and 27.
    assert table[2] == "| plain | 10.0 | 10.0 |  | -12.5 ± 10.6 |  |  |  |  |"
    assert table[3].startswith("| text fine-tuning | 15.0 ± 7.1 | 30.0 ± 14.1 | +12.5 ± 10.6 |  |  |")
    assert "| **the default** | 19.0 ± 9.9 | 35.0 ± 15.6 | +17.0 ± 12.7 | +4.5 ± 2.1 | 0.500 ± 0.000" in table[4]
    assert table[4].endswith("| 19.0 ± 9.9 | 4.0 ± 0.0 | gated 0 |")
    assert table[5].startswith("| text: frozen |")
    assert "| -3.0 ± 0.0 |" in table[5]
    assert table[5].endswith("| gated 0, residual 1 |")


def test_emoji_are_spread_over_their_styles(monkeypatch):
    splits = ["encoder"] * 3 + ["train"] * 10 + ["validation"] * 4 + ["test-style"] * 2
    whole = type("Whole", (), {"splits": splits, "select": lambda self, rows: list(rows)})()
    monkeypatch.setattr(ablations, "load_emoji", lambda: whole)
    assert ablations.emoji(ablations.Options()) == list(range(3, 19))
    few = ablations.Options(n_train=3, n_validation=4, n_test=1)
    assert ablations.emoji(few) == [3, 6, 9, 13, 14, 15, 16, 17]


def test_every_setting_runs_and_is_kept(tmp_path, monkeypatch, capsys):
    options = replace(TINY, out=tmp_path)
    fitted, fit = [], ablations.SparseAutoencoder.fit

    def counted(images: Embeddings, **settings):
        fitted.append((settings["architecture"], settings["n_latents"], settings["k"]))
        return fit(images, **settings)

    monkeypatch.setattr(ablations, "load_encoder", cache(ablations.load_encoder))
    monkeypatch.setattr(ablations.SparseAutoencoder, "fit", counted)
    ablations.main(options)
    report = capsys.readouterr().out
    rows = [line.split(" | ")[0] for line in report.split("\n") if line.startswith("| ")]
    assert list(dict.fromkeys(row[2:].split(":")[0] for row in rows if ":" in row)) == list(ablations.FACTORS)
    assert rows.count("| **the default**") == 1
    assert len(fitted) == len(set(fitted)) == 4 + 4 + 3  # architectures; other latents; other k
    assert (tmp_path / "test" / "scenes.png").stat().st_size > 10_000
    settings = {one for of in ablations.factors(ablations.Setting(n_latents=16, k=4)).values() for one in of.values()}
    kept = {
        file.stem: json.loads(file.read_text())["found"] for file in (tmp_path / "test" / "scenes-0").glob("*.json")
    }
    assert len(kept) == len(settings) + 1  # and text fine-tuning
    assert {tuple(found["tests"]) for found in kept.values()} == {("test", "test-combination")}

    # A row is its kept editor on the test it names.
    editor = ablations.CaptionEditor.load(tmp_path / "models" / "scenes-0" / "mask-mlp")
    test = Embeddings.load(tmp_path / "embeddings" / "scenes").split("test-combination")
    assert evaluate_retrieval(test, editor).to_dict() == kept["mask-mlp"]["tests"]["test-combination"]
    order = torch.randperm(12, generator=ablations.generator(0, ablations.SHUFFLED))
    shuffled = replace(test, images=test.images[order])
    default = ablations.CaptionEditor.load(tmp_path / "models" / "scenes-0" / "default")
    wanted = evaluate_retrieval(shuffled, default).to_dict()
    assert wanted == kept["control-shuffled-images"]["tests"]["test-combination"]
    assert kept["form-raw"]["sae"] == kept["form-plain"]["sae"] == {}
    assert kept["k-8"]["sae"]["validation"]["l0"] <= 8

    # What is finished is read; validation measures the editors that are there.
    monkeypatch.setattr(ablations.SparseAutoencoder, "fit", lambda *_, **__: pytest.fail("was fitted again"))
    monkeypatch.setattr(ablations.CaptionEditor, "fit", lambda *_, **__: pytest.fail("was fitted again"))
    ablations.main(options)
    assert capsys.readouterr().out == report
    ablations.main(replace(options, split="validation", factors=("text", "controls")))
    assert "| validation: T2I R@1 |" in capsys.readouterr().out
    with pytest.raises(ArtefactError, match="other settings"):
        ablations.main(replace(options, editor_steps=2))
    with pytest.raises(ArtefactError, match="other settings"):
        ablations.main(replace(options, n_latents=32))
    with pytest.raises(InputError, match="There is no 'colour'"):
        ablations.main(replace(options, factors=("colour",)))


def test_a_figure_needs_more_than_controls():
    found = ablations.Results(run(10.0, 10.0)["tests"], {BASE.tuned: [run(1.0, 1.0)], BASE: [run(2.0, 2.0)]}, BASE)
    levels = {"controls": {"none": BASE}, "text": {"finetuned": BASE}}
    assert ablations.draw_gains("emoji", {"controls": levels["controls"]}, found) is None
    axes = ablations.draw_gains("emoji", levels, found).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["text: finetuned"]
