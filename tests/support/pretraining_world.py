"""What the tests of training share: a tiny CLIP that speaks, and batches whose captions tell the pictures apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

import torch
from torch import Tensor

from boresight.seeds import generator
from boresight.training.captioner import Captioner, CaptionerConfig
from boresight.training.config import PretrainConfig
from boresight.training.trainee import Trainee
from worlds.small_clip import SmallClipConfig, small_clip, train_tokenizer

COLOURS = ("red", "green", "blue", "white", "black", "yellow", "pink", "grey")
SHAPE = SmallClipConfig(
    image_size=16,
    patch_size=8,
    image_width=32,
    image_layers=2,
    image_heads=2,
    text_width=32,
    text_layers=2,
    text_heads=2,
    projection=16,
    context=12,
    vocabulary=700,
)


def web(row: int) -> str:
    return f"a {COLOURS[row % 8]} thing"


def synthetic(row: int) -> str:
    return f"a picture of a {COLOURS[row % 8]} thing on paper"


@cache
def tiny_tokenizer():
    return train_tokenizer([text(row) for row in range(8) for text in (web, synthetic)], SHAPE)


def tiny_trainee(seed: int = 0, *, captioner: bool = True, captions: str = "both") -> Trainee:
    tokenizer = tiny_tokenizer()
    model = small_clip(tokenizer, SHAPE, seed)
    made = None
    if captioner:
        shape = {"width": 32, "layers": 2, "heads": 2, "queries": 12}
        made = Captioner(CaptionerConfig.fitting(model, tokenizer, **shape), seed)
    return Trainee(model, tokenizer, captions=captions, captioner=made)


def batches(count: int, rank: int = 0, world: int = 1):
    """`Batches` of `count` pictures over all processes, drawn by their number, of which this process has its share."""
    tokenizer = tiny_tokenizer()

    def ids(texts: list[str], length: int) -> Tensor:
        options = {"padding": "max_length", "max_length": length, "truncation": True, "return_tensors": "pt"}
        return tokenizer(texts, **options)["input_ids"]

    def endlessly(stage, start: int) -> Iterator[Mapping]:
        step = start
        while True:
            draw = generator(0, f"batch {step}")
            rows = torch.randint(8, (count,), generator=draw).tolist()
            size = stage.image_size or SHAPE.image_size
            pixels = torch.stack([torch.full((3, size, size), row / 4 - 1) for row in rows])
            pixels += 0.1 * torch.randn(pixels.shape, generator=draw)
            own = slice(rank * count // world, (rank + 1) * count // world)
            length = stage.text_length or SHAPE.context
            yield {
                "pixel_values": pixels[own],
                "web_ids": ids([web(row) for row in rows], length)[own],
                "syn_ids": ids([synthetic(row) for row in rows], length)[own],
                "syn_full_ids": ids([synthetic(row) for row in rows], 12)[own],
                "keys": [str(row) for row in rows[own]],
            }
            step += 1

    return endlessly


CONFIG = PretrainConfig(steps=12, batch_size=8, every=5, warmup=3, learning_rate=2e-3)


def weights(trained) -> dict[str, torch.Tensor]:
    found = {f"model.{name}": value for name, value in trained.model.state_dict().items()}
    if trained.captioner is not None:
        found |= {f"captioner.{name}": value for name, value in trained.captioner.state_dict().items()}
    return found
