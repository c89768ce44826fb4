"""Benchmarks that any collection can be put to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boresight import load_collection
from boresight.benchmarks.job import BenchmarkJob
from boresight.benchmarks.registry import run_benchmark
from boresight.embeddings import embed
from boresight.embeddings.batches import embed_captions
from boresight.encoders.long_text import embed_texts_in_windows
from boresight.errors import InputError
from boresight.evaluation.word_swaps import swap_words


def test_altered_captions_are_read_as_the_true_ones(encoder, scenes, tmp_path: Path) -> None:
    with open(tmp_path / "captions.jsonl", "w") as lines:
        for row in range(len(scenes)):
            scenes.image(row).save(tmp_path / f"{row}.png")
            captions = [scenes.captions[row][0], " and ".join(scenes.captions[row][2] for _ in range(5))]
            lines.write(json.dumps({"file_name": f"{row}.png", "captions": captions, "split": "test"}) + "\n")
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
    images = encoder.embed_images([scenes.image(row) for row in range(len(scenes))])
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
