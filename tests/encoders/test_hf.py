"""Encoders of transformers: equal to the library called directly, and clear about what they cannot use."""

from __future__ import annotations

import builtins
import json
import shutil
import sys
import warnings

import pytest
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import load_file, save_file

from boresight.encoders import load_encoder
from boresight.encoders.tokens import grouped_words
from boresight.errors import InputError
from tiny_encoders import FAMILIES, TEXT_TOWER, bert_tokenizer, clip_tokenizer, pictures, save_tiny

TEXTS = ["a red dog", "Two Black Cats!", "z", "caps AND more"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return {family: save_tiny(family, root / family) for family in FAMILIES}


@pytest.fixture(scope="module")
def encoders(folders):
    return {family: load_encoder(folder, device="cpu", dtype="float32") for family, folder in folders.items()}


@pytest.fixture
def copy(folders, tmp_path):
    def make(family):
        return shutil.copytree(folders[family], tmp_path / family)

    return make


def unit(output):
    return torch.nn.functional.normalize(output.pooler_output, dim=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_images_equal_the_library(family, folders, encoders):
    model = hf.AutoModel.from_pretrained(folders[family]).eval()
    processor = hf.AutoImageProcessor.from_pretrained(folders[family])
    images = pictures(5)
    with torch.no_grad():
        expected = unit(model.get_image_features(**processor(images=images, return_tensors="pt")))
    encoder = encoders[family]
    got = encoder.embed_images(images)
    assert got.dtype == torch.float32
    assert got.shape == (5, encoder.width)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(got.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(encoder.embed_images([encoder.preprocess(image) for image in images]), got)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_equal_the_library(family, folders, encoders):
    model = hf.AutoModel.from_pretrained(folders[family]).eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(folders[family])
    if "siglip" in family:
        texts = [text.lower() for text in TEXTS]
        inputs = {"input_ids": tokenizer(texts, padding="max_length", max_length=16, return_tensors="pt")["input_ids"]}
    else:
        inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model.get_text_features(**inputs)
    torch.testing.assert_close(encoders[family].embed_texts(TEXTS), unit(output), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_neither_padding_nor_order_nor_company_changes_an_embedding(family, encoders):
    encoder, images = encoders[family], pictures(4)
    batch = encoder.embed_texts(TEXTS)
    torch.testing.assert_close(torch.cat([encoder.embed_texts([text]) for text in TEXTS]), batch, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.embed_texts(TEXTS[::-1]).flip(0), batch, atol=1e-5, rtol=0)
    together = encoder.embed_images(images)
    alone = torch.cat([encoder.embed_images([image]) for image in images])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_of_odd_shapes_and_modes(family, encoders):
    encoder = encoders[family]
    odd = [Image.new("L", (1, 1), 9), Image.new("RGBA", (3, 50)), Image.new("P", (7, 3)), Image.new("1", (40, 1))]
    assert torch.isfinite(encoder.embed_images(odd)).all()
    with pytest.raises(InputError, match=r"5 x 700 pixels is too oblong to embed; crop or drop it\."):
        encoder.preprocess(Image.new("RGB", (5, 700)))


def test_native_aspect_ratio_survives_preprocessing(encoders):
    assert encoders["siglip2_naflex"].preprocess(Image.new("RGB", (80, 20))).shape == (3, 16, 64)
    assert encoders["clip"].preprocess(Image.new("RGB", (80, 20))).shape == (3, 32, 32)


@pytest.mark.parametrize("family", FAMILIES)
def test_long_text_is_cut_loudly_once_and_keeps_the_end_token(family, folders):
    encoder = load_encoder(folders[family], device="cpu", dtype="float32")
    short = encoder.tokenize(["ab"])
    end = short["input_ids"][0][short["attention_mask"][0].bool()][-1]
    with pytest.warns(UserWarning, match=rf"^2 of these 3 captions were longer than the {encoder.token_limit} tokens"):
        encoder.embed_texts(["word " * 10_000, "short", "naïve café 猫 🐈 " * 20])
    ids = encoder.tokenize(["word " * 10_000])["input_ids"]
    assert ids.shape == (1, encoder.token_limit)
    assert ids[0, -1] == end
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = encoder.embed_texts(["another " * 50, "short"])
        counted, cut = encoder.embed_texts_counted(["another " * 50, "short"])
    assert cut == 1
    assert torch.equal(rows, counted)
    torch.testing.assert_close(encoder.embed_texts(["ab " * 40]), encoder.embed_texts(["ab " * 400]))


def test_siglip2_text_is_lower_cased_and_clip_keeps_its_own_rule(encoders):
    for family in ("siglip2_fixed", "siglip2_naflex"):
        assert torch.equal(encoders[family].embed_texts(["A DOG"]), encoders[family].embed_texts(["a dog"]))


def test_siglip_with_its_sentencepiece_tokenizer(copy, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs sentencepiece")
    pytest.importorskip("google.protobuf", reason="needs protobuf")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("a red dog\ntwo black cats\nthe quick brown fox jumps over lazy hounds\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(tmp_path / "spiece"), vocab_size=34, pad_id=0, eos_id=1, unk_id=2,
        bos_id=-1, minloglevel=2,
    )  # fmt: skip
    folder = copy("siglip")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    hf.SiglipTokenizer(str(tmp_path / "spiece.model")).save_pretrained(folder)
    encoder = load_encoder(folder, device="cpu", dtype="float32")
    assert type(encoder.tokenizer).__name__ == "SiglipTokenizer"
    with pytest.warns(UserWarning, match="1 of these 2 captions was longer than the 16 tokens"):
        ids = encoder.tokenize(["A red dog.", "cats " * 30])["input_ids"]
    assert torch.equal(ids[:1], encoder.tokenize(["a red dog"])["input_ids"])
    assert ids[1, -1] == encoder.tokenizer.eos_token_id
    assert ids.shape[1] == 16
    text = "A dog. It's"
    words = grouped_words(text, encoder.tokenized([text]).tokens[0])
    assert [word for word, _ in words] == ["A", "dog", "It's"]
    encoder.tokenizer.save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "pad_token": "<pad>"}))
    with pytest.raises(InputError, match="set pad_token to </s> in tokenizer_config"):
        load_encoder(folder, device="cpu", dtype="float32")


def test_positions_of_a_roberta_tower_start_after_the_padding(tmp_path):
    tokenizer = bert_tokenizer()
    tokenizer.model_max_length = int(1e30)
    text = hf.RobertaConfig(**TEXT_TOWER, vocab_size=len(tokenizer), max_position_embeddings=20, pad_token_id=1)
    vision = hf.ViTConfig(**TEXT_TOWER, image_size=32, patch_size=8)
    config = hf.VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=24)
    hf.VisionTextDualEncoderModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    hf.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path, device="cpu", dtype="float32")
    assert encoder.token_limit == 18
    with pytest.warns(UserWarning, match="18 tokens"):
        encoder.embed_texts(["x " * 100])


def test_what_an_encoder_says_of_itself(encoders, folders, copy):
    encoder = encoders["clip"]
    assert encoder.name == "clip"
    assert encoder.width == 24
    assert encoder.logit_scale == pytest.approx(hf.CLIPModel.from_pretrained(folders["clip"]).logit_scale.exp().item())
    assert encoder.dtype == torch.float32
    assert not encoder.model.training
    assert len(encoder.fingerprint) == 16
    folder = copy("clip")
    assert load_encoder(folder, device="cpu", dtype="bfloat16").fingerprint == encoder.fingerprint
    weights = load_file(folder / "model.safetensors")
    weights["logit_scale"] = weights["logit_scale"] + 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_encoder(folder, device="cpu", dtype="float32").fingerprint != encoder.fingerprint


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_lower_precision_stays_close(dtype, folders, encoders):
    encoder = load_encoder(folders["clip"], device="cpu", dtype=dtype)
    assert encoder.dtype == getattr(torch, dtype)
    assert next(encoder.model.parameters()).dtype == encoder.dtype
    assert encoder.logit_scale == encoders["clip"].logit_scale
    for method, arguments in (("embed_texts", TEXTS), ("embed_images", pictures(3))):
        got, exact = getattr(encoder, method)(arguments), getattr(encoders["clip"], method)(arguments)
        assert got.dtype == torch.float32
        assert ((got * exact).sum(1) > 0.999).all()


def test_one_picture_a_file_and_one_caption_are_taken_as_they_are(encoders, tmp_path):
    encoder, picture = encoders["clip"], pictures(1)[0]
    picture.save(tmp_path / "a.png")
    wanted = encoder.embed_images([picture])
    pixels = encoder.preprocess(picture)
    for one in (picture, tmp_path / "a.png", str(tmp_path / "a.png"), pixels):
        torch.testing.assert_close(encoder.embed_images(one), wanted)
    mixed = encoder.embed_images([picture, tmp_path / "a.png", pixels])
    torch.testing.assert_close(mixed, wanted.expand(3, -1))
    torch.testing.assert_close(encoder.preprocess(tmp_path / "a.png"), pixels)
    torch.testing.assert_close(encoder.embed_texts("a dog"), encoder.embed_texts(["a dog"]))
    assert encoder.token_counts("a dog") == encoder.token_counts(["a dog"])
    assert encoder.tokenized("a dog").tokens == encoder.tokenized(["a dog"]).tokens


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda e: e.embed_texts([]), r"The list of captions is empty; pass at least one\."),
        (lambda e: e.embed_texts(None), r"Captions came as NoneType; pass a string or a list of strings\."),
        (lambda e: e.embed_texts(pictures(1)[0]), r"Captions came as Image; pass a string or a list of strings\."),
        (lambda e: e.embed_texts(["a", None]), r"Caption 1 is of type NoneType, not a string; convert or drop it\."),
        (lambda e: e.embed_texts(["a", "\ud800"]), r"Caption 1 is no valid unicode .* repair or drop it\."),
        (lambda e: e.embed_images([]), r"The list of images is empty; pass at least one\."),
        (lambda e: e.embed_images(["a.jpg"]), r"The file 'a\.jpg' is missing; check the path\."),
        (lambda e: e.embed_images(torch.zeros(2, 3, 32).numpy()), r"Image 0 is of type ndarray; pass a PIL picture"),
        (lambda e: e.embed_images(None), r"Image 0 is of type NoneType; pass a PIL picture"),
        (lambda e: e.preprocess([pictures(1)[0]]), r"An image is of type list; pass a PIL picture"),
        (lambda e: e.embed_images(torch.zeros(2, 3, 32)), r"Image 0 is not a \(C, H, W\) float tensor; pass what"),
        (lambda e: e.embed_images([torch.zeros(3, 9, 9), torch.zeros(3, 8, 9)]), r"The batch holds images of shapes"),
        (lambda e: e.embed_images(torch.full((2, 3, 32, 32), torch.nan)), r"gives no finite embedding for image 0"),
    ],
)  # fmt: skip
def test_unusable_arguments(call, sentence, encoders):
    with pytest.raises(InputError, match=sentence):
        call(encoders["clip"])


def change_config(**changes):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return change


def damage_config(folder):
    (folder / "config.json").write_text("{ torn")


def tear_weights(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def drop_a_tensor(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def poison_weights(folder):
    weights = load_file(folder / "model.safetensors")
    save_file({k: v.fill_(torch.nan) for k, v in weights.items()}, folder / "model.safetensors", {"format": "pt"})


def tear_tokenizer(folder):
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model"')


def remove(*patterns):
    def change(folder):
        for pattern in patterns:
            for file in folder.glob(pattern):
                file.unlink()

    return change


def pickle_weights(folder):
    remove("*.safetensors")(folder)
    (folder / "pytorch_model.bin").write_bytes(b"never opened")


def timm_config(folder):
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet18", "num_classes": 1000}))


def another_preprocessor(folder):
    hf.CLIPImageProcessorPil(crop_size={"height": 40, "width": 40}).save_pretrained(folder)


def no_centre_crop(folder):
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "do_center_crop": False}))


def another_tokenizer(folder):
    tokenizer = clip_tokenizer()
    tokenizer.add_tokens([f"new{i}" for i in range(50)] + ["a</w>", "a"])
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (remove("config.json"), r"has no config\.json, so it is no model folder; pass a folder save_pretrained\(\)"),
        (remove("*.safetensors"), r"has no safetensors weights, and pickled ones are not read; save the model again"),
        (pickle_weights, r"has no safetensors weights, and pickled ones are not read; save the model again"),
        (remove("tokenizer*"), r"has no tokenizer files \(.*\); copy them from the original model"),
        (tear_tokenizer, r"The tokenizer of .* is missing or cannot be read .* copy its files from the original model"),
        (remove("preprocessor*"), r"The image processor of .* is missing or cannot be read .* copy its files"),
        (damage_config, r"The config\.json of .* cannot be used .* boresight reads CLIP, SigLIP,"),
        (
            lambda folder: (folder / "config.json").write_text("3"),
            r"config\.json of .* cannot be used .* boresight reads",
        ),
        (change_config(model_type=["clip"]), r"config\.json of .* cannot be used .* boresight reads CLIP, SigLIP,"),
        (change_config(text_config=5), r"config\.json of .* cannot be used .* boresight reads CLIP, SigLIP,"),
        (change_config(projection_dim=None), r"weights of .* are torn or do not fit its config\.json .* copy or"),
        (timm_config, r"config\.json of .* cannot be used .* boresight reads CLIP, SigLIP,"),
        (tear_weights, r"The weights of .* are torn or do not fit its config\.json .* copy or download"),
        (drop_a_tensor, r"lack 1 tensors that its config\.json needs, visual_projection\.weight among them; copy"),
        (poison_weights, r"gives no finite embedding for caption 0"),
        (
            no_centre_crop,
            r"The preprocessor of .* of several shapes \(.*48 x 32.*\).*; set do_center_crop to true in its",
        ),
        (another_preprocessor, r"The parts of .* do not fit together .* check that its tokenizer and preprocessor"),
    ],
)
def test_unusable_folders(change, sentence, copy):
    folder = copy("clip")
    change(folder)
    with pytest.raises(InputError, match=sentence):
        load_encoder(folder, device="cpu", dtype="float32")


def test_code_that_comes_with_a_model_is_neither_run_nor_asked_about(copy, monkeypatch):
    folder = copy("clip")
    (folder / "own.py").write_text("raise SystemExit('it ran')")
    code = {
        "AutoConfig": "own.C",
        "AutoModel": "own.M",
        "AutoImageProcessor": "own.P",
        "AutoTokenizer": ["own.T", None],
    }
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), "auto_map": code}))
    monkeypatch.setattr(builtins, "input", lambda *words: pytest.fail("asked whether to run it"))
    assert load_encoder(folder, device="cpu", dtype="float32").family == "clip"
    change_config(model_type="own")(folder)
    with pytest.raises(InputError, match=r"config\.json of .* cannot be used"):
        load_encoder(folder, device="cpu", dtype="float32")


def test_models_that_are_no_dual_encoder(tmp_path):
    tokenizer = bert_tokenizer()
    hf.BertModel(hf.BertConfig(**TEXT_TOWER, vocab_size=len(tokenizer))).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"is a 'bert' model, not a dual encoder; boresight reads CLIP, SigLIP,"):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("./nowhere", r"There is no model folder \./nowhere; check the path, or pass a hub name 'owner/model'\."),
        ("/no/such/folder", r"There is no model folder /no/such/folder; check the path"),
        ("nowhere", r"There is no model folder nowhere; check the path"),
        ("bad name/with spaces!", r"is neither a folder nor a hub name; check the spelling\."),
        (
            "owner/model",
            r"'owner/model' is no folder here and could not be had from the hub \(.*\); check the name and",
        ),
    ],
)
def test_names_that_lead_nowhere(name, sentence, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=sentence):
        load_encoder(name)


def test_a_file_and_an_unknown_dtype(folders):
    with pytest.raises(InputError, match=r"is a file; pass the folder that holds config\.json and the weights\."):
        load_encoder(folders["clip"] / "config.json")
    with pytest.raises(InputError, match=r"dtype 'int8' is unknown; choose 'auto', 'float32', 'bfloat16', 'float16'\."):
        load_encoder(folders["clip"], dtype="int8")
    with pytest.raises(InputError, match=r"Device 'nowhere' cannot be used here"):
        load_encoder(folders["clip"], device="nowhere")


def test_a_hub_model_is_read_from_its_local_copy(folders, monkeypatch, tmp_path):
    asked = []

    def download(name, revision=None, **options):
        asked.append((name, revision))
        return str(folders["clip"] if revision == "refs/pr/7" or name == "owner/clip" else tmp_path)

    class Offer:
        author, title, git_reference = "SFconvertbot", "Adding `safetensors` variant of this model", "refs/pr/7"

    monkeypatch.setattr("boresight.encoders.model_files.snapshot_download", download)
    monkeypatch.setattr("boresight.encoders.model_files.get_repo_discussions", lambda *a, **k: iter([Offer]))
    assert load_encoder("owner/clip", device="cpu", dtype="float32").name == "owner/clip"
    assert load_encoder("owner/pickled", device="cpu", dtype="float32").name == "owner/pickled"
    assert asked == [("owner/clip", None), ("owner/pickled", None), ("owner/pickled", "refs/pr/7")]
    Offer.author = "someone"
    with pytest.raises(InputError, match=r"'owner/pickled' has no config\.json"):
        load_encoder("owner/pickled")


def test_a_converted_copy_in_the_cache_needs_no_network(folders, monkeypatch, tmp_path):
    home, main, offer = tmp_path / "models--owner--pickled", "a" * 40, "b" * 40
    (home / "refs" / "refs" / "pr").mkdir(parents=True)
    (home / "refs" / "main").write_text(main)
    (home / "refs" / "refs" / "pr" / "7").write_text(offer)
    (home / "snapshots" / main).mkdir(parents=True)
    shutil.copytree(folders["clip"], home / "snapshots" / offer)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert load_encoder("owner/pickled", device="cpu", dtype="float32").name == "owner/pickled"

    def unreachable(*words, **options):
        raise RuntimeError("some error of a http library")

    (home / "refs" / "refs" / "pr" / "7").unlink()
    monkeypatch.setattr("boresight.encoders.model_files.get_repo_discussions", unreachable)
    with pytest.raises(InputError, match=r"could not be had from the hub \(some error of a http library\); check the"):
        load_encoder("owner/pickled")


def test_open_clip_absent_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(InputError, match=r"pip install 'boresight\[open-clip\]'"):
        load_encoder("open_clip:ViT-B-32/laion2b_s34b_b79k", device="cpu")


def test_an_open_clip_that_cannot_be_imported_is_said(monkeypatch):
    usual = builtins.__import__

    def broken(name, *rest, **options):
        if name == "open_clip":
            raise RuntimeError("operator torchvision::nms does not exist")
        return usual(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(InputError, match=r"cannot be imported \(operator torchvision::nms .*\); install the"):
        load_encoder("open_clip:ViT-B-32/laion2b_s34b_b79k", device="cpu")
