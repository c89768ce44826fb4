"""`boresight pretrain` as a user types it: a folder or shards in, a model that transformers loads out."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tarfile
from itertools import islice
from pathlib import Path
from unittest import mock

import pytest
import torch
from PIL import Image
from transformers import AutoModel, CLIPModel

from boresight.cli.pretrain import Pretrain
from boresight.data import load_collection
from boresight.encoders import load_encoder
from boresight.errors import InputError
from boresight.storage import read_manifest
from boresight.training.captioner import Captioner
from boresight.training.config import CaptionerShape, PretrainConfig, Stage, StreamConfig
from boresight.training.model_folder import from_scratch, save_model
from boresight.training.recipe import Feed, train_on
from boresight.training.shards import open_rows, open_shards
from boresight.training.stream import PairStream
from boresight.training.trainee import Trainee
from command_line import boresight, lines, refused
from pretraining_world import COLOURS, SHAPE, synthetic, web
from tiny_encoders import save_tiny
from worlds.small_clip import small_clip, small_processor, train_tokenizer

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
    assert "trained with a model of fingerprint" in refused(
        *("caption", photos, "--model", model, "--captioner", "run/captioner", "--out", "none.jsonl"), cwd=tmp_path
    )
    code, out, err = boresight(*command, "--out", "run", cwd=tmp_path)  # finished: nothing is done again
    assert code == 0, err
    assert out == "finished already: run/model\n"
    assert "other settings (seed: 0, here 1)" in refused(*command, "--out", "run", "--seed", 1, cwd=tmp_path)
    command[command.index("long")] = "captions"
    assert "other data (synthetic: long, here captions)" in refused(*command, "--out", "run", cwd=tmp_path)
    more = ["pretrain", photos, "--model", "run/model", "--captioner-from", "run/captioner", "--synthetic", "long"]
    more += ["--grey", 0.2, "--betas", 0.9, 0.98, "--gradient-norm", 0.5]
    assert "has width 32, not 64; leave out" in refused(
        *more, *SMALL, "--captioner-size", 64, 1, 2, "--out", "more", cwd=tmp_path
    )
    assert "has queries 12, not 13" in refused(*more, *SMALL, "--caption-length", 13, "--out", "more", cwd=tmp_path)
    assert "run/model is what this training would write over" in refused(*more, *SMALL, "--out", "run", cwd=tmp_path)
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


def test_problems_are_counted_in_one_line(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shard(tmp_path / "a.tar", photos, range(24), corrupt=5)
    encoder = load_encoder(str(model), device="cpu", dtype="float32")
    stages = (Stage(until=0.5, image_size=8, text_length=8), Stage())
    config = PretrainConfig(steps=6, batch_size=8, every=2, warmup=1, stages=stages)

    def train(evaluate=None) -> None:
        shards = open_shards(tmp_path / "a.tar", "txt", "syn.txt")
        train_on(shards, encoder, tmp_path / "run", config, StreamConfig(), evaluate=evaluate, tensorboard=False)

    def interrupted(_: torch.nn.Module) -> dict[str, float]:
        raise InputError("Stopped.")

    monkeypatch.delenv("BORESIGHT_QUIET", raising=False)
    with pytest.raises(InputError, match="Stopped"):
        train(interrupted)
    train()
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("In all: ")]
    assert len(told) <= 2
    assert all(re.fullmatch(r"In all: \d x corrupt image skipped\.", line) for line in told)
    assert sum(int(line.split()[2]) for line in told) == 2  # in each pass once


def test_shards_are_counted_where_processes_share_a_batch(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard(tmp_path / "a.tar", photos, range(24))
    encoder = load_encoder(str(model), device="cpu", dtype="float32")
    monkeypatch.setattr("boresight.training.recipe.world_size", lambda: 2)
    with pytest.raises(InputError, match="A batch of 26 over all processes is more than the 24 samples"):
        train_on(
            open_shards(tmp_path / "a.tar"), encoder, tmp_path, PretrainConfig(steps=1, batch_size=26), StreamConfig()
        )


def test_a_run_that_went_wrong_is_trained_on_from_its_last_model(model: Path, photos: Path, tmp_path: Path) -> None:
    words = ["pretrain", photos, "--model", model, "--captioner", "queries", *CAPTIONER, *SMALL]
    steps = Trainee.forward
    calls: list[int] = []

    def poisoned(self: Trainee, batch):
        encoded = steps(self, batch)
        calls.append(len(calls))
        return (
            encoded._replace(inputs=tuple(each * torch.nan for each in encoded.inputs)) if len(calls) > 3 else encoded
        )

    with mock.patch.object(Trainee, "forward", poisoned):
        told = refused(*words, "--out", "run", cwd=tmp_path)
    assert "run/model has the last good weights); train on from them into another folder with a lower" in told
    words[words.index(model)] = "run/model"
    del words[words.index("--captioner") : words.index("--steps")]
    code, _, err = boresight(*words, "--captioner-from", "run/captioner", "--out", "again", cwd=tmp_path)
    assert code == 0, err
    assert not list((tmp_path / "run").glob(".*"))


def test_loader_workers_may_change_on_the_way(model: Path, photos: Path, tmp_path: Path) -> None:
    words = ["pretrain", photos, "--model", model, "--out", "run", *SMALL]
    with mock.patch("boresight.training.loop._Log.write", side_effect=KeyboardInterrupt):
        assert boresight(*words, cwd=tmp_path)[0] == 130
    assert read_manifest(tmp_path / "run" / "checkpoint")["step"] == 2
    words[words.index("--workers") + 1] = 2
    code, _, err = boresight(*words, cwd=tmp_path)
    assert code == 0, err


def test_a_siglip_from_nothing_starts_at_the_published_scale_and_bias(tmp_path: Path) -> None:
    drawn = {}
    for family in ("siglip", "clip"):
        encoder = load_encoder(save_tiny(family, tmp_path / family), device="cpu", dtype="float32")
        drawn[family] = from_scratch(encoder.model, 0)
    assert drawn["siglip"].logit_scale.item() == pytest.approx(math.log(10))
    assert drawn["siglip"].logit_bias.item() == -10
    assert drawn["siglip"].logit_bias.requires_grad
    assert drawn["clip"].logit_scale.item() == pytest.approx(math.log(1 / 0.07), abs=1e-4)


def test_siglip_2_reads_lower_case_in_training_too(photos: Path, tmp_path: Path) -> None:
    folder = save_tiny("siglip2_fixed", tmp_path / "model")
    words = ["pretrain", photos, "--model", folder, "--loss", "sigmoid", "--out", "run", *SMALL]
    code, _, err = boresight(*words, cwd=tmp_path)
    assert code == 0, err
    assert read_manifest(tmp_path / "run" / "model")["data"]["stream"]["lower_case"]
    assert load_encoder(str(tmp_path / "run" / "model")).lower_case


@pytest.mark.parametrize(("family", "loss"), [("siglip", "sigmoid"), ("siglip", "softmax")])
def test_siglip(photos: Path, tmp_path: Path, family: str, loss: str) -> None:
    folder = save_tiny(family, tmp_path / family)
    words = ["pretrain", photos, "--model", folder, "--synthetic", "long", "--loss", loss, "--out", "run", *SMALL]
    code, _, err = boresight(*words, "--captioner", "queries", *CAPTIONER, cwd=tmp_path)
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
    config = StreamConfig(batch_size=8, buffer=10, image_size=16, text_length=12)
    feed, other = (Feed(PairStream(shards, encoder.tokenizer, config)) for _ in range(2))
    expected = [batch["keys"] for batch in islice(feed(Stage(), 0), 6)][4:]
    other.load_state_dict({"batches": 4, "of": {}})
    assert [batch["keys"] for batch in islice(other(Stage(), 4), 2)] == expected


def test_bad_input(model: Path, photos: Path, tmp_path: Path) -> None:
    start = ("pretrain", photos, "--model", model, "--out", "run", *SMALL)
    assert "no column 'fancy'" in refused(*start, "--synthetic", "fancy", cwd=tmp_path)
    assert "A batch of 64 is more than the 40 captioned images" in refused(
        *start[:5], "run", *SMALL, "--batch-size", 64, cwd=tmp_path
    )
    assert "The split 'val' of" in refused(*start, "--validation", "val", cwd=tmp_path)
    assert "workers=-1 is no number of processes" in refused(*start, "--workers", -1, cwd=tmp_path)
    assert "learning_rate=0.0 learns nothing" in refused(*start, "--learning-rate", 0, cwd=tmp_path)
    assert "shard spreads weights over processes" in refused(*start, "--shard", cwd=tmp_path)
    assert "A stage of 7 pixels is less than a patch of" in refused(
        *start, "--stages", "0.5:7:8", "1:16:12", cwd=tmp_path
    )
    assert "A stage of 13 tokens is more than the 12 that" in refused(*start, "--stages", "1:16:13", cwd=tmp_path)
    assert "A length of 2 leaves no room" in refused(*start, "--stages", "0.5:8:2", "1:16:12", cwd=tmp_path)
    shard(tmp_path / "a.tar", photos, range(24))
    of_shards = ("pretrain", "a.tar", "--model", model, "--out", "run")
    assert "Shards have no splits" in refused(*of_shards, "--split", "train", cwd=tmp_path)
    assert "Shards have no splits" in refused(*of_shards, "--validation", "validation", cwd=tmp_path)
    assert not (tmp_path / "run").exists()
    assert "is not 'share:pixels:tokens'" in refused(*start, "--stages", "half", cwd=tmp_path)
    assert "'4572' is not 'share:pixels:tokens', such as 0.9:112:32; mend it, in quotes" in refused(
        *start, "--stages", "4572", cwd=tmp_path
    )
    assert "A stage of 0 pixels shows nothing" in refused(*start, "--stages", "1:0:12", cwd=tmp_path)
    assert "needs a model with a bias" in refused(*start, "--loss", "sigmoid", cwd=tmp_path)
    assert "cannot be opened (no such file)" in refused(
        *("pretrain", "b-{0..1}.tar", "--model", model, "--out", "run"), cwd=tmp_path
    )
    (tmp_path / "run" / "checkpoint").mkdir(parents=True, exist_ok=True)
    (tmp_path / "run" / "checkpoint" / "notes.txt").write_text("mine")
    assert "checkpoint holds files that boresight did not write" in refused(*start, cwd=tmp_path)


def test_what_is_wrong_is_refused_before_a_picture_is_read(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("boresight.training.stream.decode", "boresight.evaluation.watch.evaluate_retrieval"):
        monkeypatch.setattr(place, lambda *_: pytest.fail("a picture was read"))
    start = ("pretrain", photos, "--model", model, *SMALL)
    for wrong, sentence in (
        (("--budget", 0), "budget=0 is too small"),
        (("--n-sentences", 0), "n_sentences=0 is too small"),
        (("--captioner", "queries", "--caption-length", 1), "A captioner of 1 tokens has no room for a word"),
        (("--caption-length", 12), "--caption-length changes nothing without a captioner; leave it out or add"),
        (("--captioner-size", 32, 1, 2), "--captioner-size changes nothing without a captioner"),
        (("--captioning-weight", 0.2), "--captioning-weight changes nothing without a captioner"),
        (("--strategy", "none", "--budget", 8), "--budget changes nothing with --strategy none; leave out one"),
        (("--strategy", "block", "--n-sentences", 2), "--n-sentences changes nothing with --strategy block"),
    ):
        assert sentence in refused(*start, "--out", "run", *wrong, cwd=tmp_path)
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").write_text("mine")
    for out in ("file", "file/below"):
        assert "file is no folder, so nothing can be written" in refused(*start, "--out", out, cwd=tmp_path)
    (tmp_path / "logged").mkdir()
    (tmp_path / "logged" / "logs").write_text("mine")
    told = refused(*start, "--tensorboard", "--out", "logged", "--validation", "None", cwd=tmp_path)
    assert "Cannot write" in told
    assert "(File exists)" in told
    for name in ("model", "captioner"):
        (tmp_path / name / name).mkdir(parents=True)
        (tmp_path / name / name / "notes.txt").write_text("mine")
        told = refused(*start, "--out", name, cwd=tmp_path)
        assert f"{name}/{name} holds files that boresight did not write" in told


def test_a_folder_is_no_shard_whatever_its_name(model: Path, photos: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(photos, tmp_path / "my.target" / "photos")
    code, _, err = boresight("pretrain", folder, "--model", model, "--out", "run", *SMALL, cwd=tmp_path)
    assert code == 0, err


def test_what_one_should_know_is_said(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BORESIGHT_QUIET", raising=False)
    config = PretrainConfig(steps=1, batch_size=8, warmup=0, captioning_weight=0.0)
    encoder = load_encoder(str(model), device="cpu", dtype="float32")
    shape = CaptionerShape(width=32, layers=1, heads=2, queries=12)
    for column, name in ((None, "plain"), ("long", "long")):
        rows = open_rows(load_collection(photos), "captions", column)
        train_on(rows, encoder, tmp_path / name, config, StreamConfig(), captioner=shape, tensorboard=False)
        told = capsys.readouterr().err
        assert ("learns to write the web captions that it reads" in told) == (column is None)
        assert float(re.search(r"captioning ([\d.]+)", told)[1]) > 1  # unweighted
    options = Pretrain(data=str(photos), out=tmp_path / "out", split="validation")
    options._source(encoder)
    assert "'validation' is trained on and measured too" in capsys.readouterr().err
    half = load_encoder(str(model), device="cpu", dtype="bfloat16")
    with pytest.raises(InputError, match=r"are torch\.bfloat16 and only float32 is trained; load it with dtype="):
        train_on(rows, half, tmp_path / "half", config, StreamConfig())


def test_a_torn_checkpoint_is_no_loss_of_the_model(model: Path, photos: Path, tmp_path: Path) -> None:
    words = ["pretrain", photos, "--model", model, "--out", "run", *SMALL]
    assert boresight(*words, cwd=tmp_path)[0] == 0
    os.truncate(tmp_path / "run" / "checkpoint" / "tensors.safetensors", 1000)
    assert "or train on from run/model into another folder" in refused(*words, cwd=tmp_path)
