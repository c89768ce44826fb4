"""`boresight caption` as a user types it, with a model and a captioner trained here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from unittest import mock

import pytest
import torch
from PIL import Image

from boresight.encoders import load_encoder
from boresight.encoders.hf import TransformersEncoder
from boresight.runs import open_run
from boresight.storage import save_artefact
from boresight.training.captioner import (
    Captioner,
    CaptionerConfig,
    caption_targets,
    captioning_loss,
    prefix_states,
    special_ends,
)
from command_line import COLOURS, SHAPE, boresight, lines, refused
from worlds.small_clip import save_clip, small_clip, small_processor, train_tokenizer


def said_of(colour: str) -> str:
    return f"a plain picture, {colour}."


def fit(encoder: TransformersEncoder, seed: int) -> Captioner:
    """A captioner that knows the eight colours, and says of each web caption 'x' the colour alone."""
    config = CaptionerConfig.fitting(encoder.model, encoder.tokenizer, width=32, layers=2, heads=4, queries=12)
    captioner = Captioner(config, seed)
    start, end = special_ends(encoder.tokenizer)
    pixels = encoder.collate([Image.new("RGB", (24, 24), colour) for colour in COLOURS])["pixel_values"]
    webs = encoder.tokenize([""] * 8 + ["x"] * 8)
    with torch.no_grad():
        found = prefix_states(encoder.model, pixels, webs["input_ids"])
    full = encoder.tokenize([said_of(colour) for colour in COLOURS] + list(COLOURS))["input_ids"]
    targets = caption_targets(full, start=start, end=end, queries=12)
    optimiser = torch.optim.AdamW(captioner.parameters(), lr=3e-3)
    for _ in range(150):
        optimiser.zero_grad()
        real = webs["attention_mask"].bool()
        logits = captioner(found.image_states.repeat(2, 1, 1), found.text_states, real=real)
        captioning_loss(logits, targets).backward()
        optimiser.step()
    return captioner.eval()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model`, the captioners `queries` and `another`, and `photos` of which one is corrupt."""
    place = tmp_path_factory.mktemp("caption")
    tokenizer = train_tokenizer([said_of(colour) for colour in COLOURS], SHAPE)
    clip = small_clip(tokenizer, SHAPE, seed=1)
    save_clip(place / "model", clip, small_processor(tokenizer, SHAPE), SHAPE, card="", made_by={})
    encoder = load_encoder(place / "model", dtype="float32")
    for seed, name in enumerate(("queries", "another")):
        fit(encoder, seed).save(place / name)
    photos(place / "photos")
    return place


def photos(folder: Path) -> Path:
    """Eight pictures of 40 x 30, half of them in a folder below, and two that cannot be used."""
    (folder / "more").mkdir(parents=True)
    for row, colour in enumerate(COLOURS):
        Image.new("RGB", (40, 30), colour).save(folder / name_of(row))
    (folder / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    Image.new("RGB", (2000, 3)).save(folder / "ribbon.png")
    return folder


def name_of(row: int) -> str:
    return f"{'more/' if row % 2 else ''}{COLOURS[row]}.png"


def words(world: Path, *more: object, source: object = None, captioner: str = "queries") -> list[object]:
    options = ("--model", world / "model", "--captioner", world / captioner, "--batch-size", "3")
    return ["caption", source or world / "photos", *options, *more]


EXPECTED = {name_of(row): said_of(colour) for row, colour in enumerate(COLOURS)}


def test_a_folder_of_pictures(world: Path, tmp_path: Path) -> None:
    code, out, err = boresight(*words(world), cwd=tmp_path)
    assert code == 0, err
    assert out == "8 captions: captions.jsonl; 2 could not be read, see the last lines\n"
    entries = lines(tmp_path / "captions.jsonl")
    assert {entry["file_name"]: entry["caption"] for entry in entries[:8]} == EXPECTED
    assert [entry["file_name"] for entry in entries[8:]] == ["corrupt.png", "ribbon.png"]
    assert "corrupt" in entries[8]["problem"]
    assert "too oblong" in entries[9]["problem"]


def test_a_torn_file_is_mended_and_goes_on(world: Path, tmp_path: Path) -> None:
    out = photos(tmp_path / "photos") / "captions.jsonl"  # in the folder itself, which must not change how it is read
    run = words(world, "--out", out, source=tmp_path / "photos")
    assert boresight(*run, cwd=tmp_path)[0] == 0
    whole = lines(out)
    kept = {**whole[0], "caption": "as somebody mended it"}
    torn = out.read_text().splitlines(keepends=True)
    out.write_text(json.dumps(kept) + "\n" + torn[1][:20] + "\n" + "".join(torn[2:5]) + torn[5][:-1])
    (tmp_path / "photos" / "corrupt.png").unlink()
    Image.new("RGB", (30, 30), "red").save(tmp_path / "photos" / "ribbon.png")
    assert boresight(*run, cwd=tmp_path)[0] == 0
    entries = lines(out)
    assert entries[:4] == [kept, *whole[2:5]]
    wanted = {**EXPECTED, "ribbon.png": said_of("red")}
    del wanted[kept["file_name"]]
    assert {entry["file_name"]: entry.get("caption") for entry in entries[1:]} == wanted
    before = out.read_bytes()
    code, told, _ = boresight(*run, cwd=tmp_path)
    assert (code, told) == (0, f"9 captions: {out}\n")
    assert out.read_bytes() == before


def test_what_an_interrupt_leaves_is_gone_on_from(world: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    collate = TransformersEncoder.collate

    def interrupted(self, images):
        seen.append(len(images))
        if len(seen) == 4:  # the first is the check at loading
            raise KeyboardInterrupt
        return collate(self, images)

    with mock.patch.object(TransformersEncoder, "collate", interrupted):
        code, _, err = boresight(*words(world), cwd=tmp_path)
    assert code == 130
    assert "goes on" in err
    begun = lines(tmp_path / "captions.jsonl")
    assert 0 < len(begun) < 8
    seen = [0, 0, 0, 0]  # beyond the number at which it stops
    with mock.patch.object(TransformersEncoder, "collate", interrupted):
        assert boresight(*words(world), cwd=tmp_path)[0] == 0
    assert sum(seen[5:]) == 8 - len(begun)
    entries = lines(tmp_path / "captions.jsonl")
    assert entries[: len(begun)] == begun
    assert {entry["file_name"]: entry["caption"] for entry in entries[:8]} == EXPECTED


def test_a_collection_goes_by_id_and_may_give_web_captions(world: Path, tmp_path: Path) -> None:
    table = world / "photos" / "list.jsonl"
    rows = [
        {"id": f"n{row}", "file_name": name_of(row), "caption": "x", "split": "test" if row < 5 else "train"}
        for row in range(8)
    ]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = boresight(*words(world, "--split", "test", source=table), cwd=tmp_path)
    assert (code, out) == (0, "5 captions: captions.jsonl\n"), err
    assert lines(tmp_path / "captions.jsonl") == [
        {"id": f"n{row}", "caption": said_of(colour)} for row, colour in enumerate(COLOURS[:5])
    ]
    more = ("--web-captions", "--out", "web.jsonl")
    assert boresight(*words(world, *more, source=table), cwd=tmp_path)[0] == 0
    assert [entry["caption"] for entry in lines(tmp_path / "web.jsonl")] == list(COLOURS)


def test_what_cannot_be_done_gets_one_sentence(world: Path, tmp_path: Path) -> None:
    photos, options = world / "photos", ("--captioner", world / "queries")
    assert "no model folder" in refused("caption", photos, "--model", "./nowhere", *options, cwd=tmp_path)
    missing = ("--model", world / "model", "--captioner", "./nowhere")
    assert "no boresight captioner" in refused("caption", photos, *missing, cwd=tmp_path)
    save_artefact(tmp_path / "sae", "sae", {"a": torch.zeros(1)}, {})
    of_another_kind = ("--model", world / "model", "--captioner", tmp_path / "sae")
    assert "not 'captioner'" in refused("caption", photos, *of_another_kind, cwd=tmp_path)
    other = CaptionerConfig(image_width=8, text_width=8, vocabulary=600, width=8, layers=1, heads=1)
    Captioner(other).save(tmp_path / "other")
    assert "image_width 8" in refused(
        "caption", photos, "--model", world / "model", "--captioner", tmp_path / "other", cwd=tmp_path
    )
    assert "workers is 0; pass 1 or more" in refused(*words(world, "--workers", 0), cwd=tmp_path)
    assert "1 to 12 tokens" in refused(*words(world, "--max-tokens", "99"), cwd=tmp_path)
    assert "is a folder" in refused(*words(world, "--out", tmp_path), cwd=tmp_path)
    assert "no path here" in refused(*words(world, source="./nothing"), cwd=tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no")
    assert "No picture can be captioned" in refused(*words(world, source=tmp_path / "bad"), cwd=tmp_path)
    assert not (tmp_path / "captions.jsonl").exists() or (tmp_path / "captions.jsonl").read_bytes() == b""


def test_a_file_of_other_making_is_left_alone(world: Path, tmp_path: Path) -> None:
    file = tmp_path / "captions.jsonl"
    file.write_text("precious\n")
    assert "captions.jsonl was not written by boresight; choose another file" in refused(*words(world), cwd=tmp_path)
    assert file.read_text() == "precious\n"
    file.unlink()
    assert boresight(*words(world), cwd=tmp_path)[0] == 0
    before = file.read_bytes()
    for more, captioner, differing in (
        (("--max-tokens", "2"), "queries", "--max-tokens = None and this run has 2; choose another file"),
        ((), "another", "a captioner of fingerprint"),
    ):
        assert differing in refused(*words(world, *more, captioner=captioner), cwd=tmp_path)
    assert file.read_bytes() == before
    assert boresight(*words(world, "--out", "captions.txt", "--max-tokens", "2"), cwd=tmp_path)[0] == 0
    assert boresight(*words(world), cwd=tmp_path)[0] == 0  # the other file has settings of its own


def test_two_at_once_do_not_write_one_file(world: Path, tmp_path: Path) -> None:
    with open_run(tmp_path / "captions.jsonl", {}, journal=tmp_path / "captions.jsonl.settings.json"):
        assert "Another run is writing captions.jsonl" in refused(*words(world), cwd=tmp_path)
    (tmp_path / "captions.jsonl").write_text("")
    assert boresight(*words(world), cwd=tmp_path)[0] == 0
    (tmp_path / "captions.jsonl").unlink()  # so other settings are no trouble
    assert boresight(*words(world, "--max-tokens", "2"), cwd=tmp_path)[0] == 0


def test_a_model_other_than_the_captioners_is_refused(world: Path, tmp_path: Path) -> None:
    encoder = load_encoder(world / "model", dtype="float32")
    captioner = Captioner.load(world / "queries")
    assert captioner.model == ""  # as older ones, which any model of the same widths may read
    captioner.save(tmp_path / "fits", {"model": encoder.fingerprint})
    captioner.save(tmp_path / "other", {"model": "0123456789abcdef"})
    start = ("caption", world / "photos", "--model", world / "model", "--captioner")
    assert boresight(*start, tmp_path / "fits", "--out", "a.jsonl", cwd=tmp_path)[0] == 0
    told = refused(*start, tmp_path / "other", "--out", "b.jsonl", cwd=tmp_path)
    assert "trained with a model of fingerprint 0123456789abcdef and 'model' has" in told
    assert not (tmp_path / "b.jsonl").exists()


def test_names_in_any_script(world: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bilder"
    folder.mkdir()
    for row, name in enumerate(("grün \U0001f600.png", os.fsdecode(b"latin-\xe9.png"))):
        Image.new("RGB", (24, 24), COLOURS[row]).save(folder / name)
    code, out, err = boresight(*words(world, source=folder), cwd=tmp_path)
    assert (code, out) == (0, "2 captions: captions.jsonl\n"), err
    assert "grün \U0001f600.png" in (tmp_path / "captions.jsonl").read_text(encoding="utf-8")
    assert {entry["file_name"]: entry["caption"] for entry in lines(tmp_path / "captions.jsonl")} == {
        "grün \U0001f600.png": said_of("red"),
        os.fsdecode(b"latin-\xe9.png"): said_of("green"),
    }
