"""Encoders of open_clip: equal to the library called directly. Runs in the environment of .ci/openclip.sh."""

from __future__ import annotations

import json
import shutil
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from boresight.attribution import explain
from boresight.embeddings import embed
from boresight.encoders import load_encoder
from boresight.encoders.tokens import grouped_words
from boresight.encoders.towers.openclip import openclip_towers
from boresight.errors import InputError
from fake_encoder import make_collection
from open_clip_files import TEXT, VISION, save_open_clip
from tiny_encoders import bert_tokenizer, pictures

open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed; run .ci/openclip.sh")
pytestmark = pytest.mark.open_clip

TEXTS = ["a red dog", "Two Black Cats!", "z"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("open_clip")
    tokenizer = bert_tokenizer()
    text = {**TEXT, "vocab_size": len(tokenizer), "hf_tokenizer_name": "beside", "pool_type": "last"}
    folders = {
        "plain": save_open_clip(root / "plain"),
        "custom": save_open_clip(root / "custom", text, custom_text=True),
    }
    tokenizer.save_pretrained(root / "custom")
    return folders


@pytest.fixture(params=["plain", "custom"])
def pair(request, folders):
    """Our encoder and open_clip's own parts."""
    name = f"local-dir:{folders[request.param]}"
    model, _, transform = open_clip.create_model_and_transforms(name)
    return load_encoder(f"open_clip:{name}", device="cpu", dtype="float32"), model.eval(), transform


def test_embeddings_equal_the_library(pair, request):
    encoder, model, transform = pair
    images = pictures(4)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{encoder_folder(request)}")
    with torch.no_grad():
        expected_images = model.encode_image(torch.stack([transform(image) for image in images]), normalize=True)
        expected_texts = model.encode_text(tokenizer(TEXTS), normalize=True)
    torch.testing.assert_close(encoder.embed_images(images), expected_images, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.embed_texts(TEXTS), expected_texts, atol=1e-5, rtol=0)
    alone = torch.cat([encoder.embed_texts([text]) for text in TEXTS])
    torch.testing.assert_close(alone, expected_texts, atol=1e-5, rtol=0)
    assert encoder.width == 24
    assert encoder.logit_scale == pytest.approx(model.logit_scale.exp().item())
    assert encoder.name in ("plain", "custom")


def encoder_folder(request):
    return request.getfixturevalue("folders")[request.node.callspec.params["pair"]]


@pytest.mark.parametrize("kind", ["plain", "custom", "left"])
@given(texts=st.lists(st.text("abC .,'9éİ犬🙂<[]>", max_size=12), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
@pytest.mark.filterwarnings("ignore:.*longer than")
def test_alone_equals_in_any_batch(kind, texts, loaded):
    encoder = loaded(kind)
    together = encoder.embed_texts(texts)
    torch.testing.assert_close(torch.cat([encoder.embed_texts([text]) for text in texts]), together, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def loaded(folders):
    left = shutil.copytree(folders["custom"], folders["custom"].parent / "left")
    config = left / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "padding_side": "left"}))
    paths = {**folders, "left": left}
    return cache(lambda kind: load_encoder(f"open_clip:local-dir:{paths[kind]}", device="cpu", dtype="float32"))


def test_the_name_of_a_special_token_is_text(loaded):
    for kind, name in (("plain", "<end_of_text>"), ("plain", "<START_of_text>"), ("custom", "[SEP]")):
        encoder = loaded(kind)
        first, second = encoder.embed_texts([f"a {name} b", f"a {name} c"])
        assert float(first @ second) < 0.9999
        assert encoder.token_counts([f"a {name} b"]) == encoder.token_counts([f"a {name[0]} {name[1:]} b"])


def test_tokens_stand_where_their_words_do(loaded):
    text = "A 🙂 , 犬 and é, İİ ok"
    for kind in ("plain", "custom", "left"):
        tokens = loaded(kind).tokenized([text]).tokens[0]
        words = [word for word, _ in grouped_words(text, tokens)]
        assert words[:4] == ["A", "🙂", ",", "犬"]
        assert [word for word in words if not word.strip()] == []


def test_long_text_is_cut_loudly_once(folders):
    encoder = load_encoder(f"open_clip:local-dir:{folders['plain']}", device="cpu", dtype="float32")
    with pytest.warns(UserWarning, match="1 of these 2 captions was longer than the 16 tokens that plain reads"):
        encoder.embed_texts(["word " * 10_000, "short"])
    assert encoder.embed_texts_counted(["word " * 10_000, "short"])[1] == 1
    assert encoder.tokenize(["word " * 100])["input_ids"][0, -1] == encoder.tokenizer.eot_token_id


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_lower_precision_stays_close(dtype, folders):
    name = f"open_clip:local-dir:{folders['plain']}"
    exact, encoder = (load_encoder(name, device="cpu", dtype=d) for d in ("float32", dtype))
    assert encoder.fingerprint == exact.fingerprint
    assert ((encoder.embed_texts(TEXTS) * exact.embed_texts(TEXTS)).sum(1) > 0.999).all()
    assert ((encoder.embed_images(pictures(3)) * exact.embed_images(pictures(3))).sum(1) > 0.999).all()


def test_a_collection_is_embedded(folders, tmp_path):
    encoder = load_encoder(f"open_clip:local-dir:{folders['plain']}", device="cpu", dtype="float32")
    collection = make_collection(5)
    got = embed(encoder, collection, tmp_path / "e", dtype="float32")
    torch.testing.assert_close(
        got.images, encoder.embed_images([collection.image(i) for i in range(5)]), atol=1e-5, rtol=0
    )
    assert got.manifest["encoder_fingerprint"] == encoder.fingerprint


def test_the_fingerprint_follows_weights_and_configuration(folders, tmp_path):
    first = load_encoder(f"open_clip:local-dir:{folders['plain']}", device="cpu", dtype="float32").fingerprint
    folder = shutil.copytree(folders["plain"], tmp_path / "plain")
    weights = load_file(folder / "open_clip_model.safetensors")
    weights["logit_scale"] += 1e-3
    save_file(weights, folder / "open_clip_model.safetensors")
    assert load_encoder(f"open_clip:local-dir:{folder}", device="cpu", dtype="float32").fingerprint != first


def pickle_beside(folder):
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"never opened")


def tear(folder):
    file = folder / "open_clip_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (pickle_beside, r"are not \(only\) safetensors, and pickled ones are not read; convert them"),
        (lambda f: (f / "open_clip_model.safetensors").unlink(), r"are not \(only\) safetensors, and pickled ones are"),
        (tear, r"open_clip cannot load 'local-dir:.*\); check the name, the network and the files\."),
        (
            lambda f: (f / "open_clip_config.json").unlink(),
            r"open_clip cannot load .*; check the name, the network and",
        ),
    ],
)
def test_folders_that_cannot_be_loaded(change, sentence, folders, tmp_path):
    folder = shutil.copytree(folders["plain"], tmp_path / "plain")
    change(folder)
    with pytest.raises(InputError, match=sentence):
        load_encoder(f"open_clip:local-dir:{folder}", device="cpu")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("local-dir:/no/such", r"There is no folder /no/such; check the path after 'local-dir:'\."),
        ("ViT-Z-99/x", r"open_clip has no model 'ViT-Z-99'; open_clip\.list_models\(\) names those it has\."),
        ("ViT-B-32/x", r"has no weights 'x' for ViT-B-32; write open_clip:ViT-B-32/TAG with one of openai, laion400m"),
        ("ViT-B-32", r"has no weights '' for ViT-B-32; write open_clip:ViT-B-32/TAG with one of openai"),
        ("hf-hub:owner/model", r"open_clip cannot load 'hf-hub:owner/model' \(.*\); check the name, the network and"),
        (
            "ViT-B-32/laion2b_s34b_b79k",
            r"open_clip cannot load 'ViT-B-32/laion2b_s34b_b79k' \(.*\); check the",
        ),
    ],
)
def test_names_that_lead_nowhere(name, sentence):
    with pytest.raises(InputError, match=sentence):
        load_encoder(f"open_clip:{name}", device="cpu")


def test_unusable_arguments(folders):
    encoder = load_encoder(f"open_clip:local-dir:{folders['plain']}", device="cpu", dtype="float32")
    with pytest.raises(InputError, match="The list of captions is empty"):
        encoder.embed_texts([])
    with pytest.raises(InputError, match="too oblong to embed"):
        encoder.embed_images([Image.new("RGB", (1, 500))])
    with pytest.raises(InputError, match="plain gives no finite embedding for image 0"):
        encoder.embed_images(torch.full((1, 3, 32, 32), torch.nan))


def test_towers_give_the_librarys_embeddings(pair):
    encoder, model, _ = pair
    towers, texts = encoder.towers(), encoder.tokenized(TEXTS)
    pixels = encoder.collate(pictures(4))
    with torch.no_grad():
        seen, told = model.encode_image(pixels["pixel_values"]), model.encode_text(texts.inputs["input_ids"])
        for layer in range(3):
            found = towers.image.upper(towers.image.lower(pixels, layer))
            torch.testing.assert_close(found, seen, atol=1e-5, rtol=1e-5)
            found = towers.text.upper(towers.text.lower(texts.inputs, layer))
            torch.testing.assert_close(found, told, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("vision", "text"),
    [
        ({"pool_type": "avg"}, {}),
        ({"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True, "ls_init_value": 0.5}, {}),
        ({"image_size": (24, 40)}, {"no_causal_mask": True, "pool_type": "first", "ls_init_value": 0.3}),
        ({}, {"pool_type": "eos", "eos_id": 5, "proj_bias": True, "proj_type": "linear"}),
    ],
)
def test_towers_of_all_poolings(vision, text):
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(24, {**VISION, **vision}, {**TEXT, "vocab_size": 50, **text}).eval()
    towers = openclip_towers(model)
    height, width = vision.get("image_size", (32, 32))
    pixels, ids = torch.randn(3, 3, height, width), torch.randint(6, 50, (3, 16))
    ids[:, 9], ids[:, 10:] = 5, 0
    with torch.no_grad():
        hidden = towers.image.lower({"pixel_values": pixels}, 1)
        assert hidden.grids[0] == (height // 8, width // 8)
        torch.testing.assert_close(towers.image.upper(hidden), model.encode_image(pixels), atol=1e-5, rtol=1e-5)
        hidden = towers.text.lower({"input_ids": ids}, 1)
        torch.testing.assert_close(towers.text.upper(hidden), model.encode_text(ids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "pool", "proj"),
    [("vit_base_patch16_siglip_224", "map", "none"), ("vit_tiny_patch16_224", "token", "linear"),
     ("vit_tiny_patch16_224", "avg", "linear")],
)  # fmt: skip
def test_towers_of_timm(name, pool, proj):
    torch.manual_seed(0)
    vision = {"timm_model_name": name, "timm_pool": pool, "timm_proj": proj, "image_size": 224}
    text = {"vocab_size": 50, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    model = open_clip.CustomTextCLIP(768, vision, {**TEXT, **text}).eval()
    with torch.no_grad():
        for parameter in model.visual.trunk.blocks.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        towers, pixels = openclip_towers(model), torch.randn(2, 3, 224, 224)
        expected = model.encode_image(pixels)
        for layer in (0, -2):
            found = towers.image.upper(towers.image.lower({"pixel_values": pixels}, layer))
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        ids = torch.randint(0, 50, (3, 16))
        found = towers.text.upper(towers.text.lower({"input_ids": ids}, 1))
        torch.testing.assert_close(found, model.encode_text(ids), atol=1e-5, rtol=1e-5)


def test_explain(pair):
    encoder, _, _ = pair
    found = explain(encoder, pictures(3), TEXTS)
    scores = (encoder.embed_images(pictures(3)) * encoder.embed_texts(TEXTS)).sum(1)
    torch.testing.assert_close(found.score, scores, atol=1e-5, rtol=0)
    assert found.image.shape == (3, 4, 4)
    assert [word.text for word in found.words[0]] == ["a", "red", "dog"]
    assert found.words[1][0].text == "Two"
    assert found.special[0].sum() == 2


def test_towers_that_do_not_open():
    model = open_clip.CLIP(24, {**VISION, "attentional_pool": True}, TEXT)
    with pytest.raises(InputError, match="pools its image"):
        openclip_towers(model)
    model = open_clip.CLIP(24, {"layers": (1, 1, 1, 1), "width": 8, "image_size": 32}, TEXT)
    with pytest.raises(InputError, match="does not open"):
        openclip_towers(model)
    model = open_clip.CustomTextCLIP(24, {"timm_model_name": "resnet18", "timm_pool": "avg"}, TEXT)
    with pytest.raises(InputError, match=r"timm.*occlusion|does not open"):
        openclip_towers(model)
