"""A small CLIP from nothing: its tokenizer, its image processor, its model, and the folder they are saved in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, trainers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from boresight.seeds import generator
from boresight.training.model_folder import save_model

START, END = "<|startoftext|>", "<|endoftext|>"


@dataclass(frozen=True, kw_only=True)
class SmallClipConfig:
    """Shape of the model; the defaults have 4.2 M parameters, 8.4 MB in half precision."""

    image_size: int = 96
    patch_size: int = 16
    image_width: int = 160
    image_layers: int = 6
    image_heads: int = 5
    text_width: int = 192
    text_layers: int = 3
    text_heads: int = 6
    projection: int = 256
    context: int = 77
    vocabulary: int = 4096


def train_tokenizer(captions: Iterable[str], config: SmallClipConfig) -> CLIPTokenizer:
    """A CLIP tokenizer (lower case, byte-level BPE) whose merges are learnt from `captions`.

    The vocabulary is laid out as CLIP's: 256 bytes, the same 256 ending a word, the merges, then start and end. Every
    byte is there in both forms, so any text in any script has tokens. The end token has the highest number, as
    readers of old CLIP configurations expect.
    """
    blank = CLIPTokenizer()
    trainee = Tokenizer(BPE(end_of_word_suffix="</w>"))
    trainee.normalizer = blank.backend_tokenizer.normalizer
    trainee.pre_tokenizer = blank.backend_tokenizer.pre_tokenizer
    letters = sorted(ByteLevel.alphabet())
    symbols = letters + [letter + "</w>" for letter in letters]
    # Named first, the symbols have fixed numbers; met in the text, they would get them in the order of a hash table,
    # and numbers break ties between pairs that are equally frequent.
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary - 2,
        special_tokens=symbols,
        initial_alphabet=letters,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    trainee.train_from_iterator(sorted(set(captions)), trainer)
    merges = [tuple(pair) for pair in json.loads(trainee.to_str())["model"]["merges"]]
    words = [*symbols, *("".join(pair) for pair in merges), START, END]
    return CLIPTokenizer(
        vocab={word: number for number, word in enumerate(dict.fromkeys(words))},
        merges=merges,
        model_max_length=config.context,
    )


def small_processor(tokenizer: CLIPTokenizer, config: SmallClipConfig) -> CLIPProcessor:
    """The tokenizer with an image processor: shortest edge to `image_size`, centre crop, [0, 1] to [-1, 1]."""
    size = config.image_size
    images = CLIPImageProcessorPil(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return CLIPProcessor(image_processor=images, tokenizer=tokenizer)


def small_clip(tokenizer: CLIPTokenizer, config: SmallClipConfig, seed: int) -> CLIPModel:
    """A `CLIPModel` with random weights drawn from `seed`, float32.

    The text configuration carries the tokenizer's own start and end numbers: with the number 2, which old
    configurations have, `CLIPTextModel` would pool another token.
    """
    shared = {"projection_dim": config.projection, "hidden_act": "gelu"}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": config.text_width,
        "intermediate_size": 4 * config.text_width,
        "num_hidden_layers": config.text_layers,
        "num_attention_heads": config.text_heads,
        "max_position_embeddings": config.context,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": config.image_width,
        "intermediate_size": 4 * config.image_width,
        "num_hidden_layers": config.image_layers,
        "num_attention_heads": config.image_heads,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "small clip").initial_seed())
        return CLIPModel(
            CLIPConfig(
                text_config={**text, **shared}, vision_config={**vision, **shared}, projection_dim=config.projection
            )
        )


def save_clip(
    folder: str | Path,
    model: CLIPModel,
    processor: CLIPProcessor,
    config: SmallClipConfig,
    *,
    card: str,
    made_by: Mapping[str, Any],
) -> None:
    """Write an ordinary `CLIPModel` folder in half precision, as `save_model` does."""
    save_model(
        folder,
        model,
        processor.tokenizer,
        processor.image_processor,
        card=card,
        made_by={"shape": asdict(config), **made_by},
        dtype=torch.float16,
    )
