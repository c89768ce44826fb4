"""Dual encoders of a few thousand random weights, saved as the hub would hold them."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as hf
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel

FAMILIES = ("clip", "siglip", "siglip2_fixed", "siglip2_naflex", "vision_text")
TEXT_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION_TOWER = {**TEXT_TOWER, "patch_size": 8}


def save_tiny(family: str, folder: Path, seed: int = 0) -> Path:
    """A tiny checkpoint of one of FAMILIES, written with save_pretrained; returns `folder`."""
    torch.manual_seed(seed)
    model, tokenizer, image_processor = _MAKERS[family]()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") and parameter.ndim == 1:
                parameter.normal_(std=0.1)
            elif parameter.ndim > 1:
                parameter.normal_(std=0.2)
    for part in (model, tokenizer, image_processor):
        part.save_pretrained(folder)
    return folder


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    """Noise of several sizes and aspect ratios."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(40, 30), (30, 64), (33, 33), (100, 41)]
    return [
        Image.fromarray(torch.randint(0, 256, (*sizes[i % 4], 3), generator=generator, dtype=torch.uint8).numpy())
        for i in range(count)
    ]


def clip_tokenizer() -> hf.CLIPTokenizer:
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return hf.CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=16)


def gemma_like_tokenizer(kind: type) -> hf.PreTrainedTokenizerBase:
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *(chr(c) for c in range(33, 127))]
    return kind(
        vocab={token: i for i, token in enumerate(tokens)}, merges=[], add_bos_token=False, add_eos_token=True,
        padding_side="right",
    )  # fmt: skip


def bert_tokenizer() -> hf.BertTokenizer:
    letters = [chr(c) for c in range(33, 127)]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters)]
    return hf.BertTokenizer(vocab={token: i for i, token in enumerate(tokens)}, model_max_length=20)


def tiny_tokenizers() -> dict[str, hf.PreTrainedTokenizerBase]:
    """One of each way to put special tokens around a text."""
    return {
        "clip": clip_tokenizer(),
        "bert": bert_tokenizer(),
        "gemma": gemma_like_tokenizer(hf.GemmaTokenizer),
        "siglip2": gemma_like_tokenizer(hf.Siglip2Tokenizer),
    }


def _clip():
    tokenizer = clip_tokenizer()
    config = hf.CLIPConfig(
        text_config={**TEXT_TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 16,
                     "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id},
        vision_config={**VISION_TOWER, "image_size": 32},
        projection_dim=24,
    )  # fmt: skip
    processor = hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return hf.CLIPModel(config), tokenizer, processor


def _siglip():
    return _siglip_with(bert_tokenizer())


def _siglip2_fixed():
    return _siglip_with(gemma_like_tokenizer(hf.GemmaTokenizer))


def _siglip_with(tokenizer):
    config = hf.SiglipConfig(
        text_config={**TEXT_TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 16,
                     "projection_size": 32, "pad_token_id": tokenizer.pad_token_id},
        vision_config={**VISION_TOWER, "image_size": 32},
    )  # fmt: skip
    return hf.SiglipModel(config), tokenizer, hf.SiglipImageProcessorPil(size={"height": 32, "width": 32})


def _siglip2_naflex():
    tokenizer = gemma_like_tokenizer(hf.Siglip2Tokenizer)
    config = hf.Siglip2Config(
        text_config={**TEXT_TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 16,
                     "projection_size": 32, "pad_token_id": tokenizer.pad_token_id},
        vision_config={**VISION_TOWER, "num_patches": 16},
    )  # fmt: skip
    return hf.Siglip2Model(config), tokenizer, hf.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=20)


def _vision_text():
    tokenizer = bert_tokenizer()
    config = hf.VisionTextDualEncoderConfig.from_vision_text_configs(
        hf.ViTConfig(**VISION_TOWER, image_size=32),
        hf.BertConfig(**TEXT_TOWER, vocab_size=len(tokenizer), max_position_embeddings=20),
        projection_dim=24,
    )
    processor = hf.ViTImageProcessorPil(size={"height": 32, "width": 32})
    return hf.VisionTextDualEncoderModel(config), tokenizer, processor


_MAKERS = {
    "clip": _clip,
    "siglip": _siglip,
    "siglip2_fixed": _siglip2_fixed,
    "siglip2_naflex": _siglip2_naflex,
    "vision_text": _vision_text,
}
