"""Plain retrieval, and attributes told apart, of the shipped model on what it was not fitted on, in Markdown.

    python studies/measure_default_model.py

No editor takes part: this says what the encoder alone can do. Emoji captions of the kind 'short' name a family, which
many pictures share, so no encoder can find the one picture by them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
import tyro

from boresight.data import Collection
from boresight.data.worlds.emoji.load import load_emoji
from boresight.data.worlds.scene_world import ATTRIBUTES, COLOURS, PLACES, SHAPES, SIZES, TEXTURES, Thing, thing_phrase
from boresight.data.worlds.scenes import load_scenes, make_scenes
from boresight.embeddings import embed
from boresight.encoders import Encoder, load_encoder
from boresight.evaluation import RetrievalScores, chance, evaluate_retrieval
from boresight.evaluation.retrieval import RECALLS
from boresight.models import default_model_path
from markdown_tables import markdown


def main(model: Path | None = None) -> None:
    """Measure the model in this folder, by default the shipped one."""
    encoder = load_encoder(str(model or default_model_path()), dtype="float32")
    print("| collection, split | images | captions | " + " | ".join(RECALLS) + " |")
    print("|---|---|---" + "|---" * len(RECALLS) + "|")
    for collection in splits():
        kinds = [kind for row in collection.dataset["caption_kinds"] for kind in row]
        embeddings = embed(encoder, collection)
        results = evaluate_retrieval(embeddings, kinds=kinds)
        title = f"{collection.name}, {collection.splits[0]}"
        for kind, result in {"all": results, **results.kinds}.items():
            print(line(title, len(collection), kind, result))
        print(line(title, len(collection), "all, chance", chance(embeddings)))
    print(attributes(encoder))


def splits() -> Iterator[Collection]:
    emoji, scenes = load_emoji(), load_scenes(n_encoder=1, n_train=1)
    for split in ("validation", "test-combination", "test-style"):
        yield emoji.split(split)
    for split in ("validation", "test", "test-combination"):
        yield scenes.split(split)


def attributes(encoder: Encoder, count: int = 200) -> str:
    """How often the true caption of a scene of one object beats all that differ from it in one attribute."""
    scenes = make_scenes(count, split="validation", objects=(1, 1))
    truths = [json.loads(truth)["objects"][0] for truth in scenes.dataset["attributes"]]
    images = encoder.embed_images([scenes.image(i) for i in range(count)])
    values = {"shape": SHAPES, "colour": COLOURS, "size": SIZES, "texture": TEXTURES, "place": PLACES}
    rows = []
    for attribute, words in values.items():
        captions = [thing_phrase(Thing(**{**truth, attribute: word}), ATTRIBUTES) for truth in truths for word in words]
        texts = encoder.embed_texts(captions).view(count, len(words), -1)
        own = torch.tensor([list(words).index(truth[attribute]) for truth in truths])
        right = (torch.einsum("nwd,nd->nw", texts, images).argmax(1) == own).float().mean()
        rows.append([attribute, f"{100 * right:.1f}", f"{100 / len(words):.1f}"])
    return "\n" + markdown(["attribute", "right", "chance"], rows)


def line(title: str, images: int, kind: str, result: RetrievalScores) -> str:
    values = [f"{result[measure]:.1f}" for measure in RECALLS]
    return f"| {title} | {images} | {kind} | " + " | ".join(values) + " |"


if __name__ == "__main__":
    tyro.cli(main)
