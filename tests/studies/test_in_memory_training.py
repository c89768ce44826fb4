"""What the shipped model was trained with: batches and a loop in memory."""

from __future__ import annotations

import io
import shutil

import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from PIL import Image

from boresight.data import Collection
from boresight.errors import ArtefactError, InputError
from boresight.seeds import generator
from command_line import COLOURS
from command_line import SHAPE as TINY
from in_memory_pairs import Pairs, augment, mix
from in_memory_training import ContrastiveConfig, train
from shared_captions import infonce_of_shared
from worlds.small_clip import SmallClipConfig, small_clip, small_processor, train_tokenizer

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
    infonce_of_shared(out.image_embeds, out.text_embeds, plain.logit_scale, batch.shared()).backward()
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
