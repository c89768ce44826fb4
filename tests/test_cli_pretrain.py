"""`boresight pretrain` as a user types it: a folder or shards in, a model that transformers loads out."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModel, CLIPModel

from boresight.artefacts import read_manifest
from boresight.encoders import load_encoder
from boresight.pretraining.captioner import Captioner
from boresight.pretraining.model_folder import save_model
from boresight.pretraining.pretrain import PretrainConfig, Stage
from boresight.pretraining.recipe import Feed, train_on
from boresight.pretraining.shards import open_shards
from boresight.pretraining.small_clip import small_clip, small_processor, train_tokenizer
from boresight.pretraining.stream import StreamConfig
from pretraining_world import COLOURS, SHAPE, synthetic, web
from test_cli_caption import boresight, lines, refused
from tiny_encoders import save_tiny

SMALL = ["--steps", 4, "--every", 2, "--batch-size", 8, "--warmup", 1, "--workers", 0, "--no-tensorboard"]
CAPTIONER = ["--captioner-size", 32, 1, 2, "--caption-length", 12]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tokenizer = train_tokenizer([text(row) for row in range(8) for text in (web, synthetic)], SHAPE)
    processor = small_processor(tokenizer, SHAPE)
    save_model(folder, small_clip(tokenizer, SHAPE, 0), processor.tokenizer, processor.image_processor)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pictures with a web caption each and, but for four, a long one."""
    folder = tmp_path_factory.mktemp("photos")
    rows = []
    for row in range(48):
        Image.new("RGB", (20 + row % 3, 18), COLOURS[row % 8]).save(folder / f"{row}.png")
        split = ("train", "train", "train", "validation")[row // 8 % 4]
        long = synthetic(row) + ". Nothing else is there." if row % 12 else ""
        rows.append({"file_name": f"{row}.png", "caption": web(row), "long": long, "split": split})
    (folder / "captions.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder


def shard(file: Path, photos: Path, rows: range, corrupt: int | None = None) -> None:
    with tarfile.open(file, "w") as tar:
        for row in rows:
            picture = b"no picture" if row == corrupt else (photos / f"{row}.png").read_bytes()
            for suffix, content in (("png", picture), ("txt", web(row).encode()), ("syn.txt", synthetic(row).encode())):
                entry = tarfile.TarInfo(f"{row:04d}.{suffix}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


def test_from_a_folder_to_captions(model: Path, photos: Path, tmp_path: Path) -> None:
    command = [
        "pretrain",
        photos,
        "--model",
        model,
        "--synthetic",
        "long",
        "--captioner",
        "queries",
        *CAPTIONER,
        *SMALL,
    ]
    code, out, err = boresight(*command, "--out", "run", cwd=tmp_path)
    assert code == 0, err
    assert "images/s: run/model" in out
    trained = CLIPModel.from_pretrained(tmp_path / "run" / "model")
    assert trained.logit_scale.shape == ()
    assert not torch.equal(trained.visual_projection.weight, CLIPModel.from_pretrained(model).visual_projection.weight)
    assert load_encoder(str(tmp_path / "run" / "model")).embed_texts(["a red thing"]).shape == (1, SHAPE.projection)
    assert read_manifest(tmp_path / "run" / "model")["from"] == "tiny"
    code, _, err = boresight(
        *("caption", photos, "--model", "run/model", "--captioner", "run/captioner", "--out", "said.jsonl"),
        cwd=tmp_path,
    )
    assert code == 0, err
    assert len(lines(tmp_path / "said.jsonl")) == 48
    code, out, err = boresight(*command, "--out", "run", cwd=tmp_path)  # finished: nothing is done again
    assert code == 0, err
    assert "other settings" in refused(*command, "--out", "run", "--seed", 1, cwd=tmp_path)
    more = ["pretrain", photos, "--model", "run/model", "--captioner-from", "run/captioner", "--synthetic", "long"]
    more += ["--grey", 0.2, "--betas", 0.9, 0.98, "--gradient-norm", 0.5]
    code, _, err = boresight(*more, *SMALL, "--out", "more", cwd=tmp_path)
    assert code == 0, err
    before, after = (Captioner.load(tmp_path / each / "captioner") for each in ("run", "more"))
    assert before.config == after.config
    changed = (after.queries - before.queries).abs().max().item()
    assert 0 < changed < 0.1
    assert read_manifest(tmp_path / "more" / "model")["settings"]["betas"] == [0.9, 0.98]
    more[more.index("run/model")] = str(save_tiny("clip", tmp_path / "other"))
    assert "captioner was trained with" in refused(*more, *SMALL, "--out", "none", cwd=tmp_path)


def test_shards_with_a_corrupt_picture_and_stages(model: Path, photos: Path, tmp_path: Path) -> None:
    shard(tmp_path / "a-0.tar", photos, range(24), corrupt=5)
    shard(tmp_path / "a-1.tar", photos, range(24, 48))
    code, _, err = boresight(
        *("pretrain", "a-{0..1}.tar", "--model", model, "--synthetic", "syn.txt", "--out", "run", *SMALL),
        *("--scratch", "--average", 0.9, "--stages", "0.5:8:8", "1:16:12"),
        cwd=tmp_path,
    )
    assert code == 0, err
    assert CLIPModel.from_pretrained(tmp_path / "run" / "model").config.vision_config.image_size == 16


@pytest.mark.parametrize(("family", "loss"), [("siglip", "sigmoid"), ("siglip", "softmax")])
def test_siglip(photos: Path, tmp_path: Path, family: str, loss: str) -> None:
    folder = save_tiny(family, tmp_path / family)
    words = ["pretrain", photos, "--model", folder, "--synthetic", "long", "--loss", loss, "--out", "run", *SMALL]
    code, _, err = boresight(*words, "--captioner", "teacher", *CAPTIONER, cwd=tmp_path)
    assert code == 0, err
    before, after = (AutoModel.from_pretrained(each) for each in (folder, tmp_path / "run" / "model"))
    assert not torch.equal(before.vision_model.head.probe, after.vision_model.head.probe)
    assert (before.logit_bias == after.logit_bias) == (loss == "softmax")


def test_torchrun_is_all_that_changes(model: Path, photos: Path, tmp_path: Path) -> None:
    """A batch is shared: all 40 captioned pictures make one of 40, of which two alone would need 80."""
    words = ["pretrain", photos, "--model", model, "--synthetic", "long", "--out", tmp_path / "run", *SMALL]
    words += ["--batch-size", 40]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "boresight"]
    done = subprocess.run(
        [*launch, *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("images/s") == 1
    assert read_manifest(tmp_path / "run" / "checkpoint")["step"] == 4
    assert CLIPModel.from_pretrained(tmp_path / "run" / "model").logit_scale.isfinite()


def test_a_killed_run_on_shards_goes_on_without_counting_them(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        shard(tmp_path / f"{number}.tar", photos, range(16 * number, 16 * number + 16))
    shards = open_shards(f"{tmp_path}/*.tar", "txt", "syn.txt")
    encoder = load_encoder(str(model), device="cpu", dtype="float32")
    config = PretrainConfig(
        steps=12, batch_size=8, every=4, warmup=1, stages=(Stage(until=0.8, image_size=8, text_length=8), Stage())
    )

    def train(out: str, evaluate=None):
        stream = StreamConfig(buffer=10)
        return train_on(shards, encoder, tmp_path / out, config, stream, evaluate=evaluate, tensorboard=False)

    whole = train("whole")
    told: list[int] = []

    def interrupted(_: torch.nn.Module) -> dict[str, float]:
        told.append(len(told))
        if len(told) == 2:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        train("cut", interrupted)
    monkeypatch.setattr(type(shards), "count", lambda *_: pytest.fail("a shard was counted"))
    again = train("cut")
    assert again.loss == whole.loss
    torch.testing.assert_close(again.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)

    monkeypatch.undo()  # a place that other readers left is found by counting
    manifest = json.loads((tmp_path / "cut" / "checkpoint" / "manifest.json").read_text())
    assert manifest["places"][0]["batches"] == 12
    feed = Feed(shards, encoder.tokenizer, StreamConfig(batch_size=8, buffer=10), 16, 12)
    expected = [batch["keys"] for batch in islice(feed(Stage(), 0), 6)][4:]
    other = Feed(shards, encoder.tokenizer, StreamConfig(batch_size=8, buffer=10), 16, 12, {"batches": 4, "of": {}})
    assert [batch["keys"] for batch in islice(other(Stage(), 4), 2)] == expected


def test_bad_input(model: Path, photos: Path, tmp_path: Path) -> None:
    start = ("pretrain", photos, "--model", model, "--out", "run", *SMALL)
    assert "no column 'fancy'" in refused(*start, "--synthetic", "fancy", cwd=tmp_path)
    assert "A batch of 64 is more than the 40 captioned images" in refused(
        *start[:5], "run", *SMALL, "--batch-size", 64, cwd=tmp_path
    )
    assert "is not 'share:pixels:tokens'" in refused(*start, "--stages", "half", cwd=tmp_path)
    assert "needs a model with a bias" in refused(*start, "--loss", "sigmoid", cwd=tmp_path)
    assert "cannot be opened (no such file)" in refused(
        *("pretrain", "b-{0..1}.tar", "--model", model, "--out", "run"), cwd=tmp_path
    )
    (tmp_path / "run" / "checkpoint").mkdir(parents=True, exist_ok=True)
    (tmp_path / "run" / "checkpoint" / "notes.txt").write_text("mine")
    assert "is no boresight training" in refused(*start, cwd=tmp_path)
