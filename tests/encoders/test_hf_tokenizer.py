"""Whatever its tokenizer's settings say, an encoder reads a caption as its makers meant it, alone and in any batch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.encoders import load_encoder
from boresight.encoders.base import LibraryEncoder
from boresight.encoders.tokens import grouped_words
from boresight.errors import InputError
from boresight.models import default_model_path
from tiny_encoders import FAMILIES, TEXT_TOWER, bert_tokenizer, clip_tokenizer, pictures, save_tiny

CAPTIONS = ["a red cup", "A RED CUP.", "two", "it is left of the [SEP] and </s> <eos>"]
MASKED = ("clip", "vision_text")
FIXED = tuple(family for family in FAMILIES if family not in MASKED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("tiny")
    return cache(lambda family: save_tiny(family, root / family))


@pytest.fixture(scope="module")
def encoder(folder: Callable[[str], Path]) -> Callable[[str], LibraryEncoder]:
    return cache(lambda family: load(folder(family)))


@pytest.fixture
def changed(folder: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of a family's folder with other settings of its tokenizer."""

    def make(family: str, file: str = "tokenizer_config.json", **settings: Any) -> Path:
        copy = shutil.copytree(folder(family), tmp_path / family, dirs_exist_ok=True)
        rewrite(copy / file, **settings)
        return copy

    return make


def rewrite(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def load(folder: Path) -> Any:
    return load_encoder(folder, device="cpu", dtype="float32")


def same(first: Any, second: Any, texts: list[str] = CAPTIONS) -> None:
    torch.testing.assert_close(first.embed_texts(texts), second.embed_texts(texts), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:.*longer than")
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_alone_equals_in_any_batch(family: str, encoder: Callable[[str], LibraryEncoder], data: st.DataObject) -> None:
    model = encoder(family)
    names = [str(name) for name in model.tokenizer.special_tokens_map.values()]
    word = st.one_of(st.sampled_from([*names, "red", "CUP"]), st.text("abC .,'9éİ犬🙂\u0301", max_size=6))
    texts = data.draw(st.lists(st.lists(word, max_size=5).map(" ".join), min_size=1, max_size=5))
    together = model.embed_texts(texts)
    alone = torch.cat([model.embed_texts([text]) for text in texts])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)
    order = data.draw(st.permutations(range(len(texts))))
    torch.testing.assert_close(model.embed_texts([texts[i] for i in order]), together[order], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", MASKED)
def test_a_tokenizer_that_pads_on_the_left(family: str, encoder: Callable, changed: Callable) -> None:
    model = load(changed(family, padding_side="left"))
    same(model, encoder(family))
    assert model.tokenizer.padding_side == "right"  # what training and saving take from it


@pytest.mark.parametrize("family", MASKED)
@pytest.mark.parametrize("pad", [None, "<fill>"])
def test_a_padding_token_that_is_none_or_unknown_to_the_model(
    family: str, pad: str | None, encoder: Callable, changed: Callable
) -> None:
    same(load(changed(family, pad_token=pad)), encoder(family))


def test_a_padding_token_of_a_higher_number_than_the_end(encoder: Callable, changed: Callable, tmp_path: Path) -> None:
    folder = changed("clip")
    with_added_token(folder, "<fill>", pad_token="<fill>")
    rewrite(folder / "config.json", text_config={**text_config(folder), "eos_token_id": 2})
    same(load(folder), encoder("clip"))


@pytest.mark.parametrize("end", [2, 7, None])
def test_text_behind_an_added_token_is_read(end: int | None, changed: Callable) -> None:
    folder = changed("clip")
    with_added_token(folder, "<sks>")
    right = load(folder)
    rewrite(folder / "config.json", text_config={**text_config(folder), "eos_token_id": end or 2})
    model = load(folder)
    texts = ["a <sks> on the", "a <sks> under"]
    same(model, right, texts)
    first, second = model.embed_texts(texts)
    assert float(first @ second) < 0.999
    assert model.towers().text.upper(model.towers().text.lower(model.tokenized(texts).inputs, 1)).shape == (2, 24)
    assert model.model.config.text_config.eos_token_id == model.tokenizer.eos_token_id


@pytest.mark.parametrize("family", ["clip", "vision_text"])
def test_an_added_special_token_reads_the_same_beside_the_name_of_another(family: str, changed: Callable) -> None:
    folder = changed(family)
    with_added_token(folder, "<sks>", special=True)
    model = load(folder)
    end = model.tokenizer.convert_ids_to_tokens(int(model.tokenize("a")["input_ids"][0, -1]))
    texts = ["a <sks> cup", "a cup", f"a {end}"]
    torch.testing.assert_close(model.embed_texts(texts)[:2], model.embed_texts(texts[:2]), atol=1e-5, rtol=0)
    assert "<sks>" in [token.text for token in model.tokenized(texts).tokens[0]]


def with_added_token(folder: Path, token: str, special: bool = False, **settings: Any) -> None:
    model, tokenizer = hf.AutoModel.from_pretrained(folder), hf.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([token], special_tokens=special)
    for name, value in settings.items():
        setattr(tokenizer, name, value)
    torch.manual_seed(0)
    model.text_model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.config.text_config.vocab_size = len(tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def text_config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())["text_config"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_name_of_a_special_token_is_text(family: str, encoder: Callable) -> None:
    model = encoder(family) if family != "clip" else load(default_model_path())  # the tiny one reads too little of it
    for name in model.tokenizer.special_tokens_map.values():
        texts = [f"a {name} b", f"a {name} c", f"a {name}"]
        rows = model.embed_texts(texts)
        assert (rows @ rows.T)[~torch.eye(3).bool()].max() < 0.9999
        for text, tokens in zip(texts, model.tokenized(texts).tokens, strict=True):
            spelt = "".join(word for word, _ in grouped_words(text, tokens))
            assert spelt == text.replace(" ", "")


@pytest.mark.parametrize("family", ["siglip2_fixed", "siglip2_naflex", "siglip"])
@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "TokenizersBackend"])
def test_lower_case_does_not_hang_on_the_tokenizers_class(
    family: str, name: str, encoder: Callable, changed: Callable
) -> None:
    model = load(changed(family, tokenizer_class=name))
    same(model, encoder(family))
    assert torch.equal(*model.embed_texts(["A RED CUP", "a red cup"]).split(1))


@pytest.mark.parametrize("family", ["clip", "vision_text"])
def test_a_generic_class_reads_what_its_tokenizer_file_says(family: str, encoder: Callable, changed: Callable) -> None:
    same(load(changed(family, tokenizer_class="PreTrainedTokenizerFast")), encoder(family))


@pytest.mark.parametrize(
    ("family", "name"),
    [("clip", "GemmaTokenizer"), ("clip", "BertTokenizer"), ("vision_text", "CLIPTokenizer"),
     ("vision_text", "GemmaTokenizer"), ("siglip", "GemmaTokenizer"), ("siglip2_fixed", "CLIPTokenizer")],
)  # fmt: skip
def test_a_class_that_reads_otherwise_than_the_tokenizer_file(family: str, name: str, changed: Callable) -> None:
    with pytest.raises(InputError, match=r"reads captions otherwise than its own tokenizer\.json says; set"):
        load(changed(family, tokenizer_class=name))


@pytest.mark.parametrize("family", MASKED)
def test_a_rule_on_capitals_that_the_class_loses(family: str, changed: Callable) -> None:
    folder = changed(family)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("do_lower_case", None)  # an older repository may not have it
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    file = folder / "tokenizer.json"
    written = json.loads(file.read_text())
    text = json.dumps(written["normalizer"]).replace('"lowercase": true', '"lowercase": false')
    rewrite(file, normalizer=json.loads(text.replace('{"type": "Lowercase"}', '{"type": "NFC"}')))
    with pytest.raises(
        InputError, match=r"reads captions otherwise than its own tokenizer\.json says; set tokenizer_cl"
    ):
        load(folder)
    rewrite(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    first, second = load(folder).embed_texts(["A CUP", "a cup"])
    assert float(first @ second) < 0.999


@pytest.mark.parametrize(
    ("family", "token"),
    [("clip", "bos_token"), ("vision_text", "cls_token"), ("vision_text", "sep_token"), ("siglip", "sep_token")],
)
def test_another_start_or_end_token_than_in_the_tokenizer_file(family: str, token: str, changed: Callable) -> None:
    with pytest.raises(InputError, match=r"reads captions otherwise than its own tokenizer\.json .* special tokens to"):
        load(changed(family, **{token: "a"}))


@pytest.mark.parametrize("setting", ["do_lower_case", "strip_accents"])
def test_capitals_and_accents_read_otherwise_than_the_tokenizer_file_says(setting: str, changed: Callable) -> None:
    with pytest.raises(InputError, match=r"reads captions otherwise than its own tokenizer\.json says; set"):
        load(changed("vision_text", **{setting: False}))


@pytest.mark.parametrize("family", FIXED)
@pytest.mark.parametrize("limit", [4, 12, 1_000])
def test_a_siglip_is_padded_to_its_tower_whatever_its_tokenizer_allows(
    family: str, limit: int, encoder: Callable, changed: Callable
) -> None:
    same(load(changed(family, model_max_length=limit)), encoder(family), ["a red cup"])


@pytest.mark.parametrize("limit", [4, 12, 1_000])
def test_a_clip_reads_all_the_positions_it_has(limit: int, encoder: Callable, changed: Callable) -> None:
    same(load(changed("clip", model_max_length=limit)), encoder("clip"), ["a red cup", "two dogs"])


def test_a_limit_of_a_tower_that_need_not_be_trained_to_its_last_position(changed: Callable) -> None:
    assert load(changed("vision_text", model_max_length=12)).token_limit == 12
    assert load(changed("vision_text", model_max_length=1_000)).token_limit == 20


@pytest.mark.parametrize("family", FIXED)
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"padding_side": "left"}, r"pads on the left, and a SigLIP .*; set padding_side to right in tokenizer_config"),
        ({"pad_token": None}, r"pads with None, and a SigLIP reads the padding .*; set pad_token to .* in tokenizer_c"),
        ({"pad_token": "a"}, r"pads with a, and a SigLIP reads the padding .*; set pad_token to .* in tokenizer_conf"),
    ],
)
def test_padding_that_a_siglip_was_not_trained_on(
    family: str, settings: dict[str, Any], sentence: str, changed: Callable
) -> None:
    with pytest.raises(InputError, match=sentence):
        load(changed(family, **settings))


def without_ends(folder: Path) -> None:
    file = folder / "tokenizer.json"
    rewrite(file, post_processor=None)
    rewrite(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")


@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2_fixed"])
def test_a_tokenizer_that_puts_no_end_token(family: str, changed: Callable) -> None:
    folder = changed(family)
    without_ends(folder)
    with pytest.raises(InputError, match=r"puts no end token behind a caption, where the model reads it; take the"):
        load(folder)


@pytest.mark.parametrize("family", MASKED)
def test_a_tokenizer_that_puts_no_start_token(family: str, changed: Callable) -> None:
    """A BERT is read at its start token; a CLIP had one before every caption of its training."""
    folder = changed(family)
    ends = hf.AutoTokenizer.from_pretrained(folder).special_tokens_map
    end = ends["sep_token" if family == "vision_text" else "eos_token"]
    number = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"][end]
    template = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": end, "type_id": 0}}]
    tokens = {end: {"id": end, "ids": [number], "tokens": [end]}}
    processor = {"type": "TemplateProcessing", "single": template, "pair": template, "special_tokens": tokens}
    rewrite(folder / "tokenizer.json", post_processor=processor)
    rewrite(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    with pytest.raises(
        InputError, match=r"puts no start token before a caption, with which .*; take the tokenizer files"
    ):
        load(folder)


def test_a_start_token_that_siglip_2_does_not_know(changed: Callable) -> None:
    folder = changed("siglip2_fixed")
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_bos_token = tokenizer.add_eos_token = True
    tokenizer.update_post_processor()
    tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match=r"puts a start token before a caption, .*; set add_bos_token to false in"):
        load(folder)


def test_an_unknown_character_that_is_written_as_the_end(tmp_path: Path) -> None:
    folder = save_tiny("clip", tmp_path / "clip")
    file = folder / "tokenizer.json"
    written = json.loads(file.read_text())
    del written["model"]["vocab"]["z</w>"]
    file.write_text(json.dumps(written))
    model = load(folder)
    with pytest.raises(InputError, match=r"Caption 1 has a character that the tokenizer of clip does not know and"):
        model.embed_texts(["a b", "a z b"])


def test_a_text_tower_that_reads_its_padding_is_refused(tmp_path: Path) -> None:
    class Unmasked(hf.BertModel):
        def forward(self, input_ids: Any = None, attention_mask: Any = None, **options: Any) -> Any:
            return super().forward(input_ids=input_ids, **options)

    tokenizer = bert_tokenizer()
    model = hf.AutoModel.from_pretrained(save_tiny("vision_text", tmp_path / "m"))
    model.text_model.__class__ = Unmasked
    encoder = load(tmp_path / "m")
    with pytest.raises(InputError, match=r"^x gives a caption another embedding beside a longer one than alone"):
        type(encoder)(
            model,
            tokenizer,
            encoder.image_processor,
            name="x",
            fingerprint="",
            device=torch.device("cpu"),
            dtype=torch.float32,
        )


def test_a_clip_text_tower_in_a_model_of_two_towers(tmp_path: Path) -> None:
    tokenizer = clip_tokenizer()
    text = hf.CLIPTextConfig(**TEXT_TOWER, vocab_size=len(tokenizer), max_position_embeddings=16, eos_token_id=2)
    vision = hf.ViTConfig(**TEXT_TOWER, image_size=32, patch_size=8)
    config = hf.VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=24)
    torch.manual_seed(0)
    hf.VisionTextDualEncoderModel(config).save_pretrained(tmp_path)
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(tmp_path)
    hf.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    model = load(tmp_path)
    alone, together = model.embed_texts(["a cup"]), model.embed_texts(["a cup", "a cup on it"])
    torch.testing.assert_close(alone[0], together[0], atol=1e-5, rtol=0)
    assert model.embed_images(pictures(1)).shape == (1, 24)
