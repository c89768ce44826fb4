"""Contrastive loss, batches and training loop."""

from __future__ import annotations

import io
import math
import shutil

import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from boresight.collections import Collection
from boresight.errors import ArtefactError, InputError
from boresight.pretraining.contrastive import clamp_scale, contrastive_loss
from boresight.pretraining.pairs import Pairs, augment, mix
from boresight.pretraining.parameters import rate_share
from boresight.pretraining.small_clip import SmallClipConfig, small_clip, small_processor, train_tokenizer
from boresight.pretraining.training import ContrastiveConfig, train
from boresight.seeds import generator

TINY = SmallClipConfig(
    image_size=24,
    patch_size=12,
    image_width=16,
    image_layers=1,
    image_heads=2,
    text_width=16,
    text_layers=1,
    text_heads=2,
    projection=8,
    vocabulary=600,
)
COLOURS = ("red", "green", "blue", "orange", "purple", "white", "black", "gray")
QUICK = {"steps": 6, "batch_size": 8, "warmup": 2, "seed": 3}


def coloured(name: str = "colours", colours: tuple[str, ...] = COLOURS) -> Collection:
    """One plain picture a colour, captioned 'a colour', '<colour>' and a longer sentence."""
    rows = []
    for colour in colours:
        data = io.BytesIO()
        Image.new("RGB", (24, 24), colour).save(data, "PNG")
        captions = ["a colour", colour, f"a plain picture, all of it {colour}"]
        rows.append(
            {"id": colour, "image": {"bytes": data.getvalue(), "path": None}, "captions": captions, "split": "train"}
        )
    return Collection(Dataset(pa.Table.from_pylist(rows)), name)


@pytest.fixture(scope="module")
def tools():
    tokenizer = train_tokenizer(coloured().texts, TINY)
    return tokenizer, small_processor(tokenizer, TINY)


@pytest.fixture(scope="module")
def pairs(tools):
    return Pairs.from_collection(coloured(), tools[1])


def slow_loss(images, texts, log_scale, shared):
    """The definition, one pair at a time."""
    scale, terms = math.exp(float(log_scale)), []
    count = len(images)
    for i in range(count):
        over_texts = over_images = 0.0
        for j in range(count):
            if i == j or not shared[i, j]:
                over_texts = over_texts + torch.exp(scale * images[i] @ texts[j])
            if i == j or not shared[j, i]:
                over_images = over_images + torch.exp(scale * images[j] @ texts[i])
        own = scale * images[i] @ texts[i]
        terms.append((torch.log(over_texts) - own + torch.log(over_images) - own) / 2)
    return sum(terms) / count


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 7), seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_loss_and_gradients_are_those_of_the_definition(count, seed, share):
    random = torch.Generator().manual_seed(seed)
    sides = [F.normalize(torch.randn(count, 5, generator=random, dtype=torch.float64), dim=1) for _ in range(2)]
    shared = torch.rand(count, count, generator=random) < share
    log_scale = torch.tensor(1.3, dtype=torch.float64)
    results = []
    for function in (contrastive_loss, slow_loss):
        images, texts = (side.clone().requires_grad_() for side in sides)
        loss = function(images, texts, log_scale, shared)
        results.append((loss.detach(), *torch.autograd.grad(loss, [images, texts])))
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-9)


def test_a_repeated_caption_is_no_negative():
    images = F.normalize(torch.tensor([[1.0, 0.2], [0.9, 0.4], [-1.0, 0.3]]), dim=1)
    texts = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), dim=1)
    shared = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    scale = torch.tensor(math.log(100.0))
    assert contrastive_loss(images, texts, scale, shared) < 1e-4
    assert contrastive_loss(images, texts, scale) > 0.3


def test_the_temperature_is_clamped_and_can_come_back():
    images = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    texts = images.roll(1, 0)  # wrong pairs: a smaller scale is better
    log_scale = torch.nn.Parameter(torch.tensor(9.0))
    clamp_scale(log_scale)
    assert log_scale.exp().item() == pytest.approx(100.0, rel=1e-5)
    contrastive_loss(images, texts, log_scale).backward()
    assert log_scale.grad > 0
    with torch.no_grad():
        log_scale -= 0.1 * log_scale.grad
    clamp_scale(log_scale)
    assert log_scale.exp().item() < 99


def test_shared_names_the_images_that_own_a_drawn_caption(pairs):
    batch = mix([pairs, pairs], 0, 8, 5)
    texts = [set(row.tolist()) for row in batch.owned]
    for i in range(8):
        for j in range(8):
            assert bool(batch.shared()[i, j]) == (int(batch.drawn[j]) in texts[i])
    assert batch.shared().diagonal().all()


def test_ragged_captions_and_whole_epochs(tools):
    table = coloured().dataset.to_list()
    table[2]["captions"] = ["blue"]
    table[5]["captions"] = ["white", "snow", "milk", "paper", "chalk"]
    source = Pairs.from_collection(Collection(Dataset(pa.Table.from_pylist(table)), "ragged"), tools[1])
    rows = torch.cat([source.rows(step, 3, 1) for step in range(16)])
    for epoch in rows.split(8):
        assert sorted(epoch.tolist()) == list(range(8))
    drawn = set()
    for step in range(60):
        batch = source.batch(step, 4, 1)
        assert ((batch.owned == batch.drawn[:, None]).sum(1) == 1).all()
        drawn |= set(batch.drawn.tolist())
    assert drawn == set(source.texts.tolist())


def test_tokens_are_cut_to_the_longest_caption_and_keep_their_end(pairs, tools):
    end = tools[0].eos_token_id
    for step in range(5):
        tokens = mix([pairs], step, 4, 0).tokens
        assert (tokens[:, -1] == end).all()
        assert (tokens[:, -2] != end).any()


def test_augmentation_is_seeded_mild_and_never_mirrors():
    pixels = torch.zeros(16, 3, 24, 24, dtype=torch.uint8)
    pixels[:, 0, :, :8] = 255
    first, again, other = (augment(pixels, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.min() >= 0
    assert first.max() <= 1
    assert (first[:, 0, :, :5] > 0.8).all()
    assert (first[:, 0, :, 12:] == 0).all()


def test_schedule_rises_then_falls_to_nearly_zero():
    factors = [rate_share(step, 50, 10) for step in range(50)]
    assert factors[:10] == sorted(factors[:10])
    assert factors[9] == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert 0 < factors[-1] < 0.01


def test_training_learns_and_shards_change_it_by_rounding_only(pairs, tools):
    losses = []
    for shards in (1, 2):
        config = ContrastiveConfig(steps=20, batch_size=8, warmup=5, learning_rate=1e-2, shards=shards)
        losses.append(train(small_clip(tools[0], TINY, 0), [pairs], config))
    assert sum(losses[0][-5:]) < 0.8 * sum(losses[0][:5])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_one_gradient_equals_plain_autograd(pairs, tools, monkeypatch):
    seen = {}
    model = small_clip(tools[0], TINY, 0)

    def keep(parameters, _):
        seen.update({name: value.grad.clone() for name, value in model.named_parameters()})
        return torch.tensor(1.0)

    start = {name: value.clone() for name, value in model.state_dict().items()}
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", keep)
    train(model, [pairs], ContrastiveConfig(steps=1, batch_size=8, seed=2, shards=3))

    plain = small_clip(tools[0], TINY, 1)
    plain.load_state_dict(start)
    batch = mix([pairs], 0, 8, 2)
    images = augment(batch.pixels, generator(2, "augment 0")) * 2 - 1
    mask = torch.arange(batch.tokens.shape[1]) <= (batch.tokens != tools[0].eos_token_id).sum(1)[:, None]
    out = plain(input_ids=batch.tokens, attention_mask=mask.long(), pixel_values=images)
    contrastive_loss(out.image_embeds, out.text_embeds, plain.logit_scale, batch.shared()).backward()
    for name, value in plain.named_parameters():
        torch.testing.assert_close(seen[name], value.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_a_resumed_run_gives_the_same_numbers(pairs, tools, tmp_path):
    whole = small_clip(tools[0], TINY, 0)
    losses = train(whole, [pairs], ContrastiveConfig(**QUICK))

    class Killed(Exception):
        pass

    def kill(step, loss):
        if step == 4:
            raise Killed

    folder = tmp_path / "checkpoint"
    with pytest.raises(Killed):
        train(
            small_clip(tools[0], TINY, 0), [pairs], ContrastiveConfig(**QUICK), checkpoint=folder, every=2, watch=kill
        )
    resumed = small_clip(tools[0], TINY, 99)
    rest = train(resumed, [pairs], ContrastiveConfig(**QUICK), checkpoint=folder, every=2)
    assert rest == losses[4:]
    for name, value in whole.named_parameters():
        assert torch.equal(value, dict(resumed.named_parameters())[name]), name
    assert train(resumed, [pairs], ContrastiveConfig(**QUICK), checkpoint=folder, every=2) == []


def test_the_mean_at_the_end_is_of_the_last_stretch(pairs, tools):
    means = {}
    losses = train(small_clip(tools[0], TINY, 0), [pairs], ContrastiveConfig(**QUICK), every=4, watch=means.__setitem__)
    assert means == {4: pytest.approx(sum(losses[:4]) / 4), 6: pytest.approx(sum(losses[4:]) / 2)}


def test_a_checkpoint_of_other_settings_data_or_another_model_is_refused(pairs, tools, tmp_path):
    folder = tmp_path / "checkpoint"
    train(small_clip(tools[0], TINY, 0), [pairs], ContrastiveConfig(**QUICK), checkpoint=folder)
    with pytest.raises(ArtefactError, match="other settings"):
        train(small_clip(tools[0], TINY, 0), [pairs], ContrastiveConfig(**{**QUICK, "seed": 4}), checkpoint=folder)
    fewer = Pairs.from_collection(coloured(colours=COLOURS[:-1]), tools[1])
    with pytest.raises(ArtefactError, match="made with other data; use the same or another folder"):
        train(small_clip(tools[0], TINY, 0), [fewer], ContrastiveConfig(**QUICK), checkpoint=folder)
    wide = SmallClipConfig(**{**TINY.__dict__, "text_width": 32})
    with pytest.raises(ArtefactError, match="another model"):
        train(small_clip(tools[0], wide, 0), [pairs], ContrastiveConfig(**QUICK), checkpoint=folder)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(pairs, tools, tmp_path):
    folder = tmp_path / "checkpoint"
    model = small_clip(tools[0], TINY, 0)

    def spoil(step, loss):
        if step == 4:
            shutil.copytree(folder, tmp_path / "good")
            with torch.no_grad():
                model.logit_scale.fill_(torch.nan)

    with pytest.raises(InputError, match=r"no longer finite at step 4 .*keeps the last good weights"):
        train(model, [pairs], ContrastiveConfig(**QUICK), checkpoint=folder, every=2, watch=spoil)
    for file in (tmp_path / "good").iterdir():
        assert file.read_bytes() == (folder / file.name).read_bytes()


def test_an_image_without_caption_is_named(tools):
    table = coloured().dataset.to_list()
    table[1]["captions"] = []
    with pytest.raises(InputError, match="'green' has no caption"):
        Pairs.from_collection(Collection(Dataset(pa.Table.from_pylist(table)), "bare"), tools[1])
