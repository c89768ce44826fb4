"""The study of imbalance: what is perfect, what is told, and a very small run from data to tables."""

from __future__ import annotations

import json
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch

import imbalance
from boresight.data import Collection
from boresight.embeddings import Embeddings, embed
from boresight.encoders import load_encoder
from boresight.errors import ArtefactError, InputError
from boresight.evaluation import evaluate_retrieval
from boresight.evaluation.alignment import relative_modality_gap
from boresight.evaluation.probes import object_bias
from boresight.sae import SparseAutoencoder
from worlds.glyphs import NAMES
from worlds.idx import FASHION
from worlds.mad import FACTORS, make_mad, phrase
from worlds.small_clip import train_tokenizer


def undrawn(n: int, split: str, seed: int = 0) -> Collection:
    """`make_mad` with captions of every k and blank pictures, where nothing looks at them: drawing takes longest."""
    with mock.patch("worlds.mad.draw", return_value=np.zeros((28, 28, 3), np.uint8)):
        return make_mad(n, split, range(6), seed)


@pytest.fixture(scope="module")
def shown():
    return undrawn(60, "test")


@pytest.fixture(scope="module")
def fitted():
    return undrawn(300, "train")


def known(shown, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures and captions of k attributes by one 1 for each value, of pictures all, of captions those in the text."""
    values = [*NAMES, *(f"{name} {value}" for name, words in FACTORS.items() for value in words)]
    images, texts = torch.zeros(len(shown), len(values)), torch.zeros(len(shown), len(values))
    for row, truth in enumerate(map(json.loads, shown.dataset["attributes"])):
        for name, value in truth.items():
            at = values.index(value if name == "class" else f"{name} {value}")
            word = value if name == "class" else FACTORS[name][value]
            images[row, at] = 1
            texts[row, at] = float(word in shown.captions[row][k].replace(",", "").split())
    return images, texts


@pytest.mark.parametrize("k", range(6))
def test_perfect_matching_is_what_retrieval_measures_where_all_is_known(shown, k):
    images, texts = known(shown, k)
    assert (texts.sum(1) == k + 1).all()
    # A caption's cosine is highest, and the same, with all pictures that have all its values.
    found = evaluate_retrieval(Embeddings.from_arrays(images, texts, torch.arange(len(images))), device="cpu")
    wanted = {side: found[f"{side.upper()} R@1"] for side in ("t2i", "i2t")}
    assert imbalance.perfect(shown, k) == pytest.approx(wanted, rel=1e-5)


def test_codes_and_what_is_told(shown):
    values = imbalance.codes(shown)
    truths = [json.loads(text) for text in shown.dataset["attributes"]]
    classes = {(int(number), truth["class"]) for number, truth in zip(values[:, 0], truths, strict=True)}
    assert len(classes) == len({number for number, _ in classes}) == len({name for _, name in classes})
    for row, (truth, numbers) in enumerate(zip(truths, values.tolist(), strict=True)):
        for name, number in zip(FACTORS, numbers[1:], strict=True):
            assert list(FACTORS[name])[number] == truth[name]
        for k in range(6):
            assert int(imbalance.told_by(shown, k)[row].sum()) == k
    assert imbalance.telling(shown, [2, 5]).captions == [[captions[2], captions[5]] for captions in shown.captions]
    assert imbalance.telling(shown, [2, 5]).ids == shown.ids


@pytest.mark.parametrize("k", [0, 2, 5])
def test_probes_that_read_all_match_perfectly(fitted, shown, k):
    """And where an image tells nothing they are at chance."""
    (seen, _), (read, _) = known(fitted, 5), known(shown, 5)
    truth, values = imbalance.codes(fitted, shown).split([300, 60])
    told = imbalance.told_by(shown, k)
    found = imbalance.recall_by_probes(seen, truth, read, values, told)
    # The regularised probes are not quite sure, so some ties come out one way or the other.
    assert found["t2i"] == pytest.approx(imbalance.perfect(shown, k)["t2i"], abs=8)
    assert found["i2t"] >= imbalance.perfect(shown, k)["i2t"] - 8
    blind = imbalance.recall_by_probes(torch.zeros_like(seen), truth, torch.zeros_like(read), values, told)
    assert blind["t2i"] == pytest.approx(100 / 60)


class Writer:
    """An editor that leaves of an image what its caption tells, and nothing else."""

    def edit(self, images, texts):
        return images * texts


def test_retention_is_of_told_and_of_left_out_attributes():
    parts = []
    for seed in (0, 1):
        shown = undrawn(120, "validation", seed)
        images, texts = known(shown, 3)
        # The class tells nothing of the attributes; noise keeps the probes from being exact where nothing is left.
        noise = 0.01 * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
        parts.append((Embeddings.from_arrays(images + noise, texts, torch.arange(120)), shown))
    found = imbalance.retention(Writer(), *parts, 3)
    assert set(found) == {"told", "left out"}
    assert found["told"]["plain"] == found["left out"]["plain"] == 100
    assert found["told"]["edited"] > 95
    assert found["left out"]["edited"] < found["left out"]["guessing"] + 15
    assert found["told"]["guessing"] == pytest.approx(100 * (1 / 3 + 3 / 2 + 1 / 7) / 5, abs=9)


def test_the_longest_captions_fit_the_text_tower():
    texts = [
        phrase(name, [list(words.values())[row % len(words)] for words in FACTORS.values()], row % 6)
        for row, name in enumerate([*NAMES, *FASHION] * 7)
    ]
    tokenizer = train_tokenizer(texts, imbalance.SHAPE)
    assert max(map(len, tokenizer(texts, truncation=False, verbose=False)["input_ids"])) <= imbalance.SHAPE.context


def run(**recalls: tuple[float, float]) -> dict:
    named = {"edited_masks": imbalance.EDITED_MASKS.name, "tuned": imbalance.TUNED.name}
    rows = {named.get(name, name): dict(zip(("t2i", "i2t"), pair, strict=True)) for name, pair in recalls.items()}
    return {"recall": {"5": rows}}


def test_gains_are_paired_by_seed():
    runs = [run(edited=(10.0, 20.0), plain=(4.0, 6.0)), run(edited=(30.0, 30.0), plain=(20.0, 10.0))]
    assert imbalance.gains(runs, 5, imbalance.EDITED, imbalance.PLAIN) == [10.0, 15.0]


@pytest.fixture
def small(monkeypatch):
    shape = replace(imbalance.SHAPE, patch_size=14, image_width=16, image_layers=1, image_heads=1, projection=16)
    monkeypatch.setattr(imbalance, "SHAPE", replace(shape, text_width=16, text_layers=1, text_heads=1))
    imbalance.world.cache_clear()
    imbalance._stamp.cache_clear()
    fit = imbalance.CaptionEditor.fit
    once = {"form": "residual", "memory": "none", "length_exponent": 0.0, "steps": 2}  # in place of choosing
    monkeypatch.setattr(imbalance.CaptionEditor, "fit", lambda *parts, **options: fit(*parts, **(once | options)))
    sae = SparseAutoencoder.fit
    monkeypatch.setattr(SparseAutoencoder, "fit", lambda images, **options: sae(images, **options, steps=5))
    monkeypatch.setattr("boresight.editing.presence.STEPS", 2)
    yield
    imbalance.world.cache_clear()
    imbalance._stamp.cache_clear()


def test_the_study_runs_and_goes_on(small, tmp_path, monkeypatch, capsys):
    options = imbalance.Options(
        out=tmp_path,
        attributes=(1, 5),
        seeds=(0, 1),
        steps=3,
        batch_size=8,
        n_images=24,
        n_train=32,
        n_validation=12,
        n_test=20,
        n_probe=40,
        n_latents=32,
    )
    imbalance.main(options)
    report = capsys.readouterr().out
    assert report == (tmp_path / "told" / "imbalance.md").read_text()
    assert report.count("### ") == 8
    blocks = {block.split("\n")[0]: block for block in report.split("### ")[1:]}
    whole = blocks["Captions of all five attributes: T2I R@1"].split("\n")
    told = blocks["Captions of k attributes: T2I R@1"].split("\n")
    assert whole[5] == told[5]  # at k = 5 they are the same
    assert whole[4] != told[4]
    assert "| told: guessing | told: plain | told: edited | left out: guessing |" in report
    assert report.rstrip().split("\n")[-1].endswith("|  |  |  |")  # nothing is left out at k = 5
    assert (tmp_path / "told" / "imbalance.png").stat().st_size > 10_000

    kept = json.loads((tmp_path / "told" / "1-attributes-1" / "found.json").read_text())["found"]
    assert set(kept["recall"]) == {"1", "5"}
    assert set(kept["recall"]["1"]) == {*(row.name for row in imbalance.ROWS), imbalance.PERFECT}
    assert set(json.loads((tmp_path / "probes" / "1-attributes-1.json").read_text())["found"]) == {"1", "5"}
    assert f"| {imbalance.PROBED} | {imbalance.PERFECT} |" in report
    files = [tmp_path / "told" / f"1-attributes-{seed}" / "found.json" for seed in (0, 1)]
    cells = [json.loads(file.read_text())["found"]["recall"]["1"]["plain"]["t2i"] for file in files]
    mean = sum(cells) / 2
    assert told[4].startswith(f"| 1 | {mean:.1f} ± ")

    # Gap and bias, of the embeddings that the kept encoder gives, with labels found another way.
    shown = make_mad(20, "test", 1)
    encoder = load_encoder(tmp_path / "models" / "1-attributes-1" / "model", device="cpu", dtype="float32")
    test = embed(encoder, shown, workers=0, dtype="float32")
    truths = [json.loads(text) for text in shown.dataset["attributes"]]
    classes = torch.tensor([NAMES.index(truth["class"]) for truth in truths])
    attributes = known(undrawn(20, "test"), 5)[0][:, len(NAMES) :].bool()
    lying = kept["lying"]
    assert lying["object bias, images"]["plain"] == pytest.approx(object_bias(test.images, classes, attributes))
    assert lying["RMG"]["plain"] == pytest.approx(relative_modality_gap(test))
    assert set(lying["L2M"]) == {"plain", "edited", "shuffled images"}

    # What is finished is read; the encoders serve what is learnt otherwise.
    monkeypatch.setattr(imbalance, "train_on", lambda *_, **__: pytest.fail("was trained again"))
    imbalance.main(options)
    assert capsys.readouterr().out == report
    imbalance.main(replace(options, learn="whole", attributes=(1,), seeds=(0,)))
    assert "with captions of all five attributes" in capsys.readouterr().out
    with pytest.raises(ArtefactError, match="other settings"):
        imbalance.main(replace(options, steps=4))
    with pytest.raises(InputError, match="0 to 5 attributes, not 6"):
        imbalance.main(replace(options, attributes=(6,)))
