"""Train the model that comes with boresight: a small CLIP, from nothing, on emoji and scenes.

    python studies/train_default_model.py --out src/boresight/models/tiny-clip --seed 0

It fits on the split 'encoder' of both collections, prints retrieval on their split 'validation' as it goes, and never
opens a test split. Stopped at any moment, the same command goes on from its last checkpoint.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import tyro
from torch.nn import functional as F
from transformers import CLIPModel

from boresight.data import Collection
from boresight.data.worlds.emoji.load import load_emoji
from boresight.data.worlds.scenes import make_scenes
from boresight.progress import say
from in_memory_pairs import Pairs
from in_memory_training import ContrastiveConfig, train
from worlds.small_clip import SmallClipConfig, save_clip, small_clip, small_processor, train_tokenizer

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: zero-shot-image-classification
---
# tiny-clip

A `CLIPModel` of {parameters:.1f} million parameters ({size} x {size} pixels, patches of {patch}, {context} tokens of
context), trained from nothing by boresight for its demo and its tests. It knows emoji and generated scenes of simple
shapes, and nothing else of the world: do not expect it to understand photographs.

- Made by `{command}`, on a CPU, in {steps} steps of {batch} pairs, seed {seed}.
- Trained on {emoji} emoji pictures (Fluent Emoji 3D by Microsoft, MIT; Noto Emoji by Google, Apache-2.0; words from
  emojibase by Miles Johnson, MIT, and Unicode CLDR, Unicode licence) and {scenes} generated scenes, three captions
  each, {captions} captions in all; only the splits called 'encoder'. No third style of emoji, and no held-out
  combination of skin tone with person or of colour with shape, was seen.
- Weights in half precision; licence Apache-2.0. What it reaches is in boresight's `docs/results/default-model.md`.
"""


@dataclass(frozen=True)
class Options:
    """Where to write the model and what to make it from; the defaults are those of the model that is shipped."""

    out: Path
    seed: int = 0
    steps: int = 3600
    batch_size: int = 96
    learning_rate: float = 1e-3
    scenes: int = 8000
    single_scenes: int = 4000
    checkpoint: Path = Path("runs/train-default-model")
    every: int = 100


def main(options: Options) -> None:
    emoji, shape = load_emoji(), SmallClipConfig()
    collections = [emoji.split("encoder"), *scenes("encoder", options.scenes, options.single_scenes)]
    held = [emoji.split("validation"), *scenes("validation", 300, 300)]
    tokenizer = train_tokenizer((text for collection in collections for text in collection.texts), shape)
    processor = small_processor(tokenizer, shape)
    sources = [Pairs.from_collection(collection, processor) for collection in collections]
    validation = [Pairs.from_collection(collection, processor) for collection in held]
    settings = ContrastiveConfig(
        steps=options.steps, batch_size=options.batch_size, learning_rate=options.learning_rate, seed=options.seed
    )
    model = small_clip(tokenizer, shape, options.seed)
    command = f"python studies/train_default_model.py --out {options.out} --seed {options.seed}"
    train(
        model,
        sources,
        settings,
        checkpoint=options.checkpoint,
        every=options.every,
        watch=partial(report, model, validation),
    )
    card = CARD.format(
        parameters=sum(value.numel() for value in model.parameters()) / 1e6,
        size=shape.image_size,
        patch=shape.patch_size,
        context=shape.context,
        command=command,
        steps=settings.steps,
        batch=settings.batch_size,
        seed=settings.seed,
        emoji=len(sources[0]),
        scenes=len(sources[1]) + len(sources[2]),
        captions=sum(len(source.tokens) for source in sources),
    )
    data = {source.name: {"images": len(source), "fingerprint": source.fingerprint} for source in sources}
    save_clip(
        options.out,
        model,
        processor,
        shape,
        card=card,
        made_by={"command": command, "settings": asdict(settings), "data": data},
    )
    say(f"Wrote {options.out}")


def scenes(split: str, n: int, n_single: int) -> list[Collection]:
    """Scenes of 1 to 4 objects, and others of one object: there every word of a caption is about one shape."""
    single = make_scenes(n_single, split=split, objects=(1, 1))
    return [make_scenes(n, split=split), Collection(single.dataset, "single scenes")]


def report(model: CLIPModel, validation: list[Pairs], step: int, loss: float) -> None:
    """Say the loss, the scale, and T2I R@1 of short, medium and long captions on validation; ties count as lost."""
    recalls = []
    for pairs in validation:
        kinds = [f"{100 * recall_at_1(model, pairs, kind):.1f}" for kind in range(3)]
        recalls.append(f"{pairs.name} {' / '.join(kinds)}")
    say(f"step {step}: loss {loss:.3f}, scale {model.logit_scale.exp():.1f}; T2I R@1 {'; '.join(recalls)}")


@torch.inference_mode()
def recall_at_1(model: CLIPModel, pairs: Pairs, kind: int) -> float:
    """Share of the images that their caption of this kind (0 short, 1 medium, 2 long) finds first among `pairs`."""
    pixels, tokens = pairs.pixels.split(256), pairs.tokens[kind::3].long().split(256)
    images = torch.cat([model.get_image_features(pixel_values=part / 127.5 - 1).pooler_output for part in pixels])
    texts = torch.cat([model.get_text_features(input_ids=part).pooler_output for part in tokens])
    scores = F.normalize(texts, dim=-1) @ F.normalize(images, dim=-1).T
    own = scores.diag()[:, None]
    return float(((scores >= own).sum(1) == 1).float().mean())


if __name__ == "__main__":
    main(tyro.cli(Options))
