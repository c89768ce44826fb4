"""Tokenizer, model and folder of a small CLIP, and the model that comes with boresight."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from transformers import AutoProcessor, AutoTokenizer, CLIPModel, CLIPProcessor

from boresight.errors import ArtefactError
from boresight.models import default_model_path
from boresight.storage import fingerprint
from worlds.small_clip import SmallClipConfig, save_clip, small_clip, small_processor, train_tokenizer

CAPTIONS = [
    "woman firefighter with medium-dark skin tone",
    "a red star on the left",
    "police car: cops, patrol",
    "café",
]
TINY = SmallClipConfig(
    image_size=32,
    image_width=16,
    image_layers=1,
    image_heads=2,
    text_width=16,
    text_layers=2,
    text_heads=2,
    projection=8,
    vocabulary=640,
)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(CAPTIONS, TINY)


@pytest.fixture(scope="module")
def shipped():
    folder = default_model_path()
    return CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)


def pictures() -> list[Image.Image]:
    drawn = []
    for colour in ("red", "blue"):
        for corner in (8, 56):
            picture = Image.new("RGB", (96, 96), "white")
            ImageDraw.Draw(picture).ellipse((corner, corner, corner + 30, corner + 30), fill=colour)
            drawn.append(picture)
    return drawn


def test_captions_survive_the_round_trip(tokenizer):
    for caption in CAPTIONS:
        numbers = tokenizer(caption)["input_ids"]
        assert tokenizer.decode(numbers, skip_special_tokens=True).replace(" ", "") == caption.lower().replace(" ", "")
    assert len(tokenizer("firefighter")["input_ids"]) == 3, "a word of the captions is one token"


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=20))
def test_any_text_has_tokens_between_one_start_and_one_end(tokenizer, text):
    numbers = tokenizer(text)["input_ids"]
    assert numbers[0] == tokenizer.bos_token_id
    assert numbers[-1] == tokenizer.eos_token_id
    if "<|" not in text:
        assert tokenizer.eos_token_id not in numbers[:-1], "nothing is unknown: every byte has a token"
    assert max(numbers) < len(tokenizer)


def test_long_text_keeps_its_end(tokenizer):
    numbers = tokenizer("red " * 500, truncation=True)["input_ids"]
    assert len(numbers) == 77
    assert numbers[-1] == tokenizer.eos_token_id


def test_the_tokenizer_does_not_depend_on_the_order_of_the_captions(tokenizer):
    again = train_tokenizer(CAPTIONS[::-1] * 2, TINY)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again("police star")["input_ids"] == tokenizer("police star")["input_ids"]


def test_weights_depend_on_the_seed_alone(tokenizer):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    models = [small_clip(tokenizer, TINY, seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator is left alone"
    weights = [model.text_projection.weight for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_end_token_is_what_is_pooled(tokenizer):
    model = small_clip(tokenizer, TINY, 0).eval()
    batch = tokenizer(["red", "a red star on the left"], padding=True, return_tensors="pt")
    out = model.text_model(**batch)
    ends = (batch["input_ids"] == tokenizer.eos_token_id).int().argmax(1)
    assert ends[0] < ends[1]
    torch.testing.assert_close(out.pooler_output, out.last_hidden_state[torch.arange(2), ends])


def test_a_saved_folder_is_a_plain_clip_model(tokenizer, tmp_path):
    model, processor = small_clip(tokenizer, TINY, 0).eval(), small_processor(tokenizer, TINY)
    tokenizer("a red star", padding="max_length", truncation=True)
    folder = tmp_path / "clip"
    save_clip(folder, model, processor, TINY, card="# card\n", made_by={"command": "test"})
    loaded, tools = CLIPModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    assert loaded.dtype == torch.float32
    assert AutoTokenizer.from_pretrained(folder)("Ünknown 日本")["input_ids"] == tokenizer("Ünknown 日本")["input_ids"]
    inputs = tools(text=["a red star"], images=pictures()[:2], return_tensors="pt")
    ours, theirs = model(**inputs), loaded(**inputs)
    torch.testing.assert_close(theirs.image_embeds, ours.image_embeds, atol=2e-3, rtol=0)
    torch.testing.assert_close(theirs.text_embeds, ours.text_embeds, atol=2e-3, rtol=0)
    assert inputs["pixel_values"].shape == (2, 3, 32, 32)
    saved = json.loads((folder / "tokenizer.json").read_text())
    assert saved["padding"] is None
    assert saved["truncation"] is None
    save_clip(folder, model, processor, TINY, card="# second\n", made_by={})
    assert (folder / "README.md").read_text() == "# second\n"


def test_a_folder_with_other_files_is_not_overwritten(tokenizer, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ArtefactError, match="did not write"):
        save_clip(tmp_path, small_clip(tokenizer, TINY, 0), small_processor(tokenizer, TINY), TINY, card="", made_by={})


def test_the_shipped_folder_is_small_and_says_how_it_was_made():
    folder = default_model_path()
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 15e6
    made = json.loads((folder / "manifest.json").read_text())
    assert made["fingerprint"] == fingerprint(load_file(folder / "model.safetensors"))
    assert made["command"] == "python studies/train_default_model.py --out src/boresight/models/tiny-clip --seed 0"
    assert made["command"] in (folder / "README.md").read_text()
    assert {"config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"} <= {
        file.name for file in folder.iterdir()
    }


def test_the_shipped_model_embeds_finite_unit_and_distinct(shipped):
    model, processor = shipped
    texts = ["woman firefighter", "a small red circle at the top left", "pie: apple, filling", "日本 🚒 zebra"]
    with torch.inference_mode():
        out = model(**processor(text=texts, images=pictures(), padding=True, truncation=True, return_tensors="pt"))
    for side in (out.image_embeds, out.text_embeds):
        assert torch.isfinite(side).all()
        torch.testing.assert_close(side.norm(dim=1), torch.ones(4))
        assert torch.pdist(side).min() > 1e-2
    assert model.config.text_config.eos_token_id == processor.tokenizer.eos_token_id != 2
    assert 1 < model.logit_scale.exp().item() <= 100.1


def test_the_shipped_model_sees_colours(shipped):
    model, processor = shipped
    texts = ["a large solid red circle", "a large solid blue circle"]
    with torch.inference_mode():
        out = model(**processor(text=texts, images=pictures(), padding=True, return_tensors="pt"))
    assert out.logits_per_image.argmax(1).tolist() == [0, 0, 1, 1]


def test_the_shipped_model_gives_attention_maps(shipped):
    model, processor = shipped
    model.set_attn_implementation("eager")
    inputs = processor(images=pictures()[:1], return_tensors="pt")
    with torch.inference_mode():
        maps = model.vision_model(**inputs, output_attentions=True).attentions
    vision = model.config.vision_config
    tokens = (vision.image_size // vision.patch_size) ** 2 + 1
    assert len(maps) == vision.num_hidden_layers
    assert maps[0].shape[-2:] == (tokens, tokens)
    model.set_attn_implementation("sdpa")
