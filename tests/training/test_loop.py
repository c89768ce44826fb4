"""Training: what it learns, that it goes on to the same numbers, and that many processes make one."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from boresight import load_encoder, storage
from boresight.errors import ArtefactError, InputError
from boresight.training import checkpoints
from boresight.training.config import PretrainConfig, Stage
from boresight.training.loop import pretrain
from boresight.training.parameters import parameter_groups, rate_share
from boresight.training.trainee import Trainee
from pretraining_world import CONFIG, SHAPE, batches, tiny_tokenizer, tiny_trainee, weights
from tiny_encoders import save_tiny


def assert_close(found, expected, **options) -> None:
    torch.testing.assert_close(weights(found), weights(expected), **options)


def run(tmp_path: Path, trainee: Trainee | None = None, config: PretrainConfig = CONFIG, source=None, **options):
    return pretrain(
        tiny_trainee() if trainee is None else trainee,
        batches(8) if source is None else source,
        config,
        tmp_path,
        tensorboard=False,
        **options,
    )


def dying_at(step: int):
    """Batches as `batches(8)` gives them, until `step`, where the process is interrupted."""

    def from_(stage, start):
        for number, batch in enumerate(batches(8)(stage, start), start):
            if number == step:
                raise KeyboardInterrupt
            yield batch

    return from_


@pytest.mark.parametrize("captioner", [True, False])
def test_it_learns(tmp_path: Path, captioner: bool) -> None:
    told: dict[int, dict] = {}

    def evaluate(model) -> dict[str, float]:
        told[len(told)] = {name: value.clone() for name, value in model.state_dict().items()}
        return {"measure": 1.0}

    trainee = tiny_trainee(captioner=captioner)
    before = {name: value.clone() for name, value in trainee.state_dict().items()}
    config = replace(CONFIG, steps=40, every=20)
    first = run(tmp_path / "a", trainee, replace(config, steps=1, every=1))
    trained = run(tmp_path / "b", trainee, config, evaluate=evaluate)
    assert trained.loss < 0.8 * first.loss
    assert len(told) == 2
    torch.testing.assert_close(told[1], dict(trained.model.state_dict()))
    torch.testing.assert_close(dict(trainee.state_dict()), before, atol=0, rtol=0)
    assert (trained.captioner is not None) == captioner


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path: Path, average: float) -> None:
    config = replace(CONFIG, average=average, stages=(Stage(until=0.5, image_size=8, text_length=8), Stage()))
    whole = run(tmp_path / "whole", config=config)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", config=config, source=dying_at(8))
    again = run(tmp_path / "cut", config=config)
    assert_close(again, whole, atol=0, rtol=0)
    assert again.loss == whole.loss


def test_a_finished_run_is_not_done_again(tmp_path: Path) -> None:
    whole = run(tmp_path)
    assert_close(run(tmp_path, source=dying_at(0)), whole, atol=0, rtol=0)


def test_micro_batches_chunks_and_recomputing_change_nothing(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    spared = replace(CONFIG, micro_batch=3, loss_chunk=5, gradient_checkpointing=True)
    assert_close(run(tmp_path / "spared", config=spared), whole, atol=5e-4, rtol=1e-3)


def test_a_run_goes_on_under_settings_of_memory_and_of_the_log(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", source=dying_at(8))
    others = {"micro_batch": 3, "loss_chunk": 5, "gradient_checkpointing": True, "every": 3}
    assert_close(run(tmp_path / "cut", config=replace(CONFIG, **others)), whole, atol=5e-4, rtol=1e-3)


def test_recomputing_goes_through_the_captioner_too(tmp_path: Path) -> None:
    trainee = tiny_trainee()
    calls: list[bool] = []
    trainee.captioner.blocks[0].register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    batch = {name: value for name, value in next(batches(8)(Stage(), 0)).items() if name != "keys"}
    gradients = []
    for recompute in (False, True):
        trainee.zero_grad()
        trainee.captioner.recompute = recompute
        trainee(batch).rest.backward()
        gradients.append({name: value.grad for name, value in trainee.captioner.named_parameters()})
    assert len(calls) == 3
    torch.testing.assert_close(gradients[1], gradients[0])
    trained = run(tmp_path, trainee, replace(CONFIG, gradient_checkpointing=True, steps=1))
    assert not trained.captioner.recompute


@pytest.mark.parametrize(("started", "loss"), [(4.9, "softmax"), (4.6, "softmax"), (4.9, "sigmoid"), (4.6, "sigmoid")])
def test_the_temperature_a_training_starts_from_is_kept(tmp_path: Path, started: float, loss: str) -> None:
    """Pushed upwards, it stays at 100 or where it began, if that is above. The sigmoid loss has no bound."""
    encoder = load_encoder(save_tiny("siglip", tmp_path / "model"), dtype="float32")
    trainee = Trainee(encoder.model, encoder.tokenizer, captions="web")
    with torch.no_grad():
        trainee.model.logit_scale.fill_(started)
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ids = torch.randint(5, 90, (4, 16), generator=torch.Generator().manual_seed(0))

    def source(stage, start):
        while True:
            yield {"pixel_values": pixels, "web_ids": ids}

    def upwards(*_: torch.Tensor) -> None:
        for group in optimizers[-1].param_groups:
            for value in group["params"]:
                if value.shape == (1,) and value > 1:  # the temperature, and not the bias
                    value.grad.fill_(-1.0)

    optimizers: list[torch.optim.Optimizer] = []
    make = torch.optim.AdamW

    def noted(*given, **options):
        optimizers.append(make(*given, **options))
        optimizers[-1].register_step_pre_hook(upwards)
        return optimizers[-1]

    config = replace(CONFIG, steps=3, batch_size=4, captions="web", loss=loss, learning_rate=0.05, warmup=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", noted)
        found = float(run(tmp_path / "run", trainee, config, source).model.logit_scale.detach())
    if loss == "sigmoid":
        assert found > started + 0.05
    else:
        assert found == pytest.approx(max(started, math.log(100)), abs=1e-5)


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_locked_tower_stays(tmp_path: Path, tower: str) -> None:
    trainee = tiny_trainee()
    trained = run(tmp_path, trainee, replace(CONFIG, lock=(tower,)))
    locked = ("vision_model", "visual_projection") if tower == "image" else ("text_model", "text_projection")
    for name, value in trainee.model.state_dict().items():
        same = torch.equal(value, trained.model.state_dict()[name])
        assert same == name.startswith(locked) or value.numel() == 1, name


def test_the_average_is_what_is_saved(tmp_path: Path) -> None:
    """By hand: the weights after each of three steps, averaged."""
    trainee, config = tiny_trainee(), replace(CONFIG, steps=3, every=1, warmup=0)
    expected = {name: value.clone() for name, value in trainee.model.named_parameters()}
    seen: list[dict] = []
    run(tmp_path / "plain", trainee, config, evaluate=lambda model: seen.append(dict(model.named_parameters())) or {})
    for of_step in seen:
        expected = {name: 0.9 * value + 0.1 * of_step[name] for name, value in expected.items()}
    found = run(tmp_path / "averaged", trainee, replace(config, average=0.9))
    torch.testing.assert_close(dict(found.model.named_parameters()), expected)


def test_layers_below_learn_more_slowly() -> None:
    trainee = tiny_trainee()
    groups = parameter_groups(trainee, 1.0, 0.2, layer_decay=0.5)
    share = {id(value): (group["share"], group["weight_decay"]) for group in groups for value in group["params"]}
    named = {name: share[id(value)] for name, value in trainee.named_parameters()}
    assert len(named) == len(share)
    assert named["model.visual_projection.weight"] == (1.0, 0.2)
    assert named["model.logit_scale"] == (1.0, 0.0)
    assert named["captioner.head.weight"] == (1.0, 0.2)
    assert named["model.vision_model.encoder.layers.1.mlp.fc1.weight"] == (0.5, 0.2)
    assert named["model.vision_model.encoder.layers.0.mlp.fc1.bias"] == (0.25, 0.0)
    assert named["model.text_model.embeddings.token_embedding.weight"] == (0.125, 0.2)
    assert named["model.vision_model.pre_layrnorm.weight"] == (0.125, 0.0)


def test_rates_rise_and_fall() -> None:
    shares = [rate_share(step, 100, 10) for step in range(100)]
    assert shares[:10] == [(step + 1) / 10 for step in range(10)]
    assert shares[10] == 1
    assert all(later < sooner for sooner, later in pairwise(shares[10:]))
    assert shares[55] == pytest.approx(0.5)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_weights(tmp_path: Path) -> None:
    def poisoned(stage, start):
        for step, batch in enumerate(batches(8)(stage, start), start):
            yield {**batch, "pixel_values": batch["pixel_values"] * (torch.nan if step == 7 else 1)}

    with pytest.raises(InputError, match=r"no longer finite at step 7 .*checkpoint keeps the last good weights"):
        run(tmp_path, source=poisoned)
    (tmp_path / "model").mkdir()
    with pytest.raises(InputError, match=r"model has the last good weights\); train on from them into another folder"):
        run(tmp_path, source=poisoned)
    assert storage.read_manifest(tmp_path / "checkpoint")["step"] == 5
    tensors, _ = storage.load_artefact(tmp_path / "checkpoint", "training")
    assert all(value.isfinite().all() for value in tensors.values())


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    config = replace(CONFIG, every=3, warmup=0)

    def spoil(optimizer: torch.optim.Optimizer, *_: object) -> None:
        spoilt.append(optimizer)
        if len(spoilt) == 6:
            with torch.no_grad():
                optimizer.param_groups[0]["params"][-1].view(-1)[0] = torch.inf

    spoilt: list[torch.optim.Optimizer] = []
    handle = register_optimizer_step_post_hook(spoil)
    try:
        with pytest.raises(InputError, match=r"weights are no longer finite at step 5 .*keeps the last good"):
            run(tmp_path, config=config)
    finally:
        handle.remove()
    assert storage.read_manifest(tmp_path / "checkpoint")["step"] == 3


def test_a_checkpoint_that_gives_no_finite_loss_is_not_called_good(tmp_path: Path) -> None:
    def poisoned(stage, start):
        for step, batch in enumerate(batches(8)(stage, start), start):
            yield {**batch, "pixel_values": batch["pixel_values"] * (torch.nan if step == 5 else 1)}

    for _ in range(2):  # at once, and when it is gone on from
        with pytest.raises(InputError, match=r"at step 5 .*checkpoint give it already\); start anew"):
            run(tmp_path, source=poisoned)


@pytest.mark.parametrize("killed", ["is killed by signal: Killed. ", "(s) 7) exited unexpectedly"])
def test_a_loader_process_that_was_killed_is_told_with_the_way_on(tmp_path: Path, killed: str) -> None:
    def dying(stage, start):
        raise RuntimeError(f"DataLoader worker (pid 7) {killed}")
        yield

    with pytest.raises(InputError, match=r"loader process was ended .*the same command goes on with .*--workers 0"):
        run(tmp_path, source=dying)


def test_memory_that_does_not_suffice_is_told_with_the_way_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("boresight.training.loop.cached_backward", lambda *_, **__: full())
    with pytest.raises(InputError, match="memory does not suffice; the same command goes on with a smaller"):
        run(tmp_path)


def test_the_model_is_kept_with_every_checkpoint_but_the_last(tmp_path: Path) -> None:
    kept: list[dict] = []
    shown: list[dict] = []
    run(
        tmp_path,
        evaluate=lambda model: shown.append(dict(model.state_dict())) or {},
        keep=lambda model, captioner: kept.append((dict(model.state_dict()), captioner)),
    )
    assert len(kept) == 2
    assert len(shown) == 3
    torch.testing.assert_close([model for model, _ in kept], shown[:2], atol=0, rtol=0)
    assert all(captioner is not None for _, captioner in kept)


def test_processes_that_see_other_checkpoints_are_all_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, source=dying_at(8))
    other = [(0, None)]
    monkeypatch.setattr(checkpoints, "gather_objects", lambda value: [value, *other])
    sentence = r"do not see the same checkpoint in .* \(it is of step 5, 0\); write to a folder that all hosts share"
    with pytest.raises(InputError, match=sentence):
        run(tmp_path)
    other[0] = (5, "of another training")
    with pytest.raises(InputError, match="do not see the same checkpoint"):
        run(tmp_path)


def test_a_checkpoint_that_a_kill_left_aside_is_gone_on_from(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", source=dying_at(8))
    (tmp_path / "cut" / "checkpoint").rename(tmp_path / "cut" / ".checkpoint.abcd1234.old")
    seen: list[int] = []

    def noted(stage, start):
        seen.append(start)
        return batches(8)(stage, start)

    assert_close(run(tmp_path / "cut", source=noted), whole, atol=0, rtol=0)
    assert seen == [5]


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, source=dying_at(8))
    before = (tmp_path / "checkpoint" / "manifest.json").read_text()

    def full(tensors, file) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "save_file", full)
    with pytest.raises(ArtefactError, match="No space left"):
        run(tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "checkpoint" / "manifest.json").read_text() == before
    assert_close(run(tmp_path), run(tmp_path / "whole"), atol=0, rtol=0)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(ArtefactError, match=r"other settings \(learning_rate: 0.002, here 0.001\)"):
        run(tmp_path, config=replace(CONFIG, learning_rate=1e-3))
    with pytest.raises(ArtefactError, match="other weights"):
        run(tmp_path, tiny_trainee(seed=1))
    with pytest.raises(ArtefactError, match="other data"):
        run(tmp_path, data="other")


def test_what_the_log_holds(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pretrain(tiny_trainee(), batches(8), CONFIG, tmp_path, evaluate=lambda model: {"validation": 3.0})
    log = events.EventAccumulator(str(tmp_path / "logs"))
    log.Reload()
    names = {"loss", "captioning", "gradient norm", "learning rate", "validation"}
    assert set(log.Tags()["scalars"]) == names
    assert [point.step for point in log.Scalars("loss")] == [5, 10, 12]
    assert all(point.value == 3 for point in log.Scalars("validation"))


@pytest.mark.parametrize(
    "settings", [{"captions": "web"}, {"captions": "synthetic"}, {"loss": "multi-positive"}, {"precision": "bf16"}]
)
def test_other_captions_and_losses(tmp_path: Path, settings: dict) -> None:
    trainee = tiny_trainee(captioner=False, captions=settings.get("captions", "both"))
    config = replace(CONFIG, steps=20, every=20, **settings)
    first = run(tmp_path / "a", trainee, replace(config, steps=1))
    assert run(tmp_path / "b", trainee, config).loss < first.loss


@pytest.mark.parametrize("loss", ["softmax", "multi-positive"])
@pytest.mark.parametrize("captions", ["web", "both"])
def test_equal_captions_are_left_out_unless_asked_for(tmp_path: Path, loss: str, captions: str) -> None:
    trainee = tiny_trainee(captioner=False, captions=captions)
    config = replace(CONFIG, steps=1, every=1, loss=loss, captions=captions, micro_batch=3)  # colours repeat in a batch
    default, published = (
        run(tmp_path / str(equal), trainee, replace(config, equal_negatives=equal)).loss for equal in (False, True)
    )
    assert default < published - 1e-3


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"steps": 0}, "train nothing"),
        ({"stages": ()}, "must rise"),
        ({"stages": (Stage(until=0.5),)}, "must rise"),
        ({"average": 1.5}, "between 0 and 1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 learns nothing"),
        ({"learning_rate": math.nan}, "learning_rate=nan learns nothing"),
        ({"gradient_norm": -1.0}, "gradient_norm=-1.0 learns nothing"),
        ({"betas": (0.9, 1.0)}, "two numbers from 0 to below 1"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1 makes no sense"),
        ({"warmup": -1}, "warmup=-1 makes no sense"),
        ({"layer_decay": 0.0}, "above 0, at most 1"),
        ({"layer_decay": 1.1}, "above 0, at most 1"),
        ({"micro_batch": 0}, "micro_batch=0 is too small"),
        ({"loss_chunk": 0}, "loss_chunk=0 is too small"),
    ],
)
def test_settings_that_make_no_sense(settings: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        replace(CONFIG, **settings)


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this one is alone; use torchrun, or leave it out"):
        run(tmp_path, config=replace(CONFIG, shard=True))
    with pytest.raises(InputError, match="A stage of 0 pixels"):
        Stage(image_size=0)
    with pytest.raises(InputError, match="A stage of -3 tokens"):
        Stage(text_length=-3)
    with pytest.raises(InputError, match="Both towers are locked"):
        run(tmp_path, tiny_trainee(captioner=False), replace(CONFIG, lock=("image", "text")))
    with pytest.raises(InputError, match="needs a model with a bias"):
        run(tmp_path, tiny_trainee(captioner=False), replace(CONFIG, loss="sigmoid"))
    with pytest.raises(InputError, match="captions='synthetic' leaves them out"):
        tiny_trainee(captions="synthetic")
    vision = tiny_trainee(captioner=False).model.vision_model
    with pytest.raises(InputError, match="cannot be trained here"):
        Trainee(vision, tiny_tokenizer())
    assert SHAPE.context == 12


@pytest.mark.parametrize("captioner", [True, False])
@pytest.mark.parametrize("captions", ["web", "both"])
def test_padding_that_clip_does_not_read_is_left_out(captions: str, captioner: bool) -> None:
    trainee = tiny_trainee(captions=captions, captioner=captioner)
    batch = {name: value for name, value in next(batches(8)(Stage(), 0)).items() if name != "keys"}
    if captions == "web":
        del batch["syn_ids"]
    trimmed = trainee.trimmed(batch)
    assert trimmed["web_ids"].shape[1] < batch["web_ids"].shape[1]
    for name in trimmed.keys() & {"web_ids", "syn_ids"}:
        rest = batch[name][:, trimmed[name].shape[1] :]
        assert (rest == trainee.end).all()
        assert (trimmed[name] == trainee.end).any(1).all()
    gradients = []
    for each in (batch, trimmed):
        trainee.zero_grad()
        encoded = trainee(each)
        total = sum(side.sin().sum() for side in encoded.inputs)
        (total if encoded.rest is None else total + encoded.rest).backward()
        gradients.append({name: value.grad for name, value in trainee.named_parameters() if value.grad is not None})
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4)


def test_siglip_reads_its_padding(tmp_path: Path) -> None:
    encoder = load_encoder(save_tiny("siglip", tmp_path), dtype="float32")
    batch = {"web_ids": torch.tensor([[5, encoder.tokenizer.sep_token_id, 0, 0]])}
    assert Trainee(encoder.model, encoder.tokenizer).trimmed(batch) == batch
