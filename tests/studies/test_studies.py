"""What the studies share: captions in other forms, halves, readers, tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import flickr8k
import photographs
from boresight.errors import InputError
from boresight.seeds import generator
from markdown_tables import markdown


@given(words=st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=30), seed=st.integers(0, 99))
def test_a_cut_caption_is_a_run_of_its_words(words, seed):
    for share in (0.25, 0.5, 1.0):
        kept = photographs.cut(" ".join(words), share, generator(seed, "cut")).split()
        assert len(kept) == max(1, round(share * len(words)))
        assert any(words[start : start + len(kept)] == kept for start in range(len(words)))


def test_halves_are_apart_and_whole():
    first, second = photographs.halves(11, 3, "rows")
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(11))
    assert not torch.equal(first, photographs.halves(11, 4, "rows")[0])


def write_split(folder: Path, split: str, count: int, captions: int = 5) -> None:
    draw = torch.Generator().manual_seed(count)
    features = {
        "image_features": torch.randn(count, 12, generator=draw).half(),
        "caption_features": torch.randn(count, 5, 8, generator=draw).half(),
    }
    save_file(features, folder / f"{split}.safetensors")
    rows = [{"file_name": f"{row}.jpg", "captions": [f"{row} {c}" for c in range(captions)]} for row in range(count)]
    (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_photographs_are_read_and_mismatches_refused(tmp_path):
    write_split(tmp_path, "train", 7)
    found = photographs.load_photographs(tmp_path, "train")
    assert len(found) == 7
    assert found.captions[3][2] == "3 2"
    assert found.texts.shape == (7, 5, 8)
    write_split(tmp_path, "train", 7, captions=4)
    with pytest.raises(InputError, match="do not hold the same captions"):
        photographs.load_photographs(tmp_path, "train")


def test_embedded_keeps_captions_with_their_photographs(tmp_path):
    write_split(tmp_path, "dev", 6)
    read = photographs.load_photographs(tmp_path, "dev")
    towers = (lambda images: images[:, :8], lambda texts: texts)
    found = photographs.embedded(towers, read, torch.tensor([4, 1]), "dev")
    assert found.ids == ["dev 4", "dev 1"]
    torch.testing.assert_close(found.texts[found.owners == 1], read.texts[1])
    other = photographs.embedded(towers, read, torch.tensor([4]), "dev", read.texts[:, :2] + 1)
    torch.testing.assert_close(other.texts, read.texts[4, :2] + 1)


@pytest.mark.parametrize("fit", photographs.ENCODERS.values(), ids=photographs.ENCODERS)
def test_the_small_encoders_learn_pairs(fit):
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(600, 16, generator=draw)
    images = hidden @ torch.randn(16, 300, generator=draw)
    captions = (hidden @ torch.randn(16, 40, generator=draw))[:, None] + 0.1 * torch.randn(600, 5, 40, generator=draw)
    image, text = fit(images[:300], captions[:300], 0)
    with torch.no_grad():
        scores = image(images[300:]) @ text(captions[300:, 0]).T
    assert scores.shape == (300, 300)
    assert float((scores.argmax(1) == torch.arange(300)).float().mean()) > 0.3


def run(recall: float) -> dict[str, dict[str, float]]:
    return {f"{side} R@{k}": recall for side in ("T2I", "I2T") for k in (1, 5, 10)}


def test_tables_hold_the_paired_gain():
    figures = {row.name: [run(10.0), run(20.0)] for row in flickr8k.MAIN_ROWS}
    figures[flickr8k.EDITED.name] = [run(11.0), run(22.0)]
    assert "| edited | 16.5 ± 7.8 |" in "\n".join(flickr8k.table(figures))
    assert "| +9.0 ± 4.2 |" in "\n".join(flickr8k.table(figures))
    assert flickr8k.summary("2", figures).endswith("| +9.0 ± 4.2 | +10.0 % |")


def test_markdown_has_a_rule_below_its_headings() -> None:
    assert markdown(["", "R@1", "median rank"], [["plain", "31.20", "4.0"]]).splitlines() == [
        "|  | R@1 | median rank |",
        "|---|---|---|",
        "| plain | 31.20 | 4.0 |",
    ]
