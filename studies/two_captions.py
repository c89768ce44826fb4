"""One picture under two captions, what each keeps of it and what each drops: the picture of the README.

    python studies/two_captions.py

A scene that neither encoder, autoencoder nor editor has seen is edited by two captions, each of which tells another
part of it, in the form that shows. Bars are the activations of its latents, the largest first, with the names that
`name_latents` gives them; '?' is a latent without a name that is sure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro
from matplotlib.figure import Figure

from boresight.data.worlds.scenes import load_scenes, make_scenes
from boresight.editing import CaptionEditor
from boresight.editing.masks import HALF
from boresight.embeddings import embed
from boresight.encoders import load_encoder
from boresight.models import default_model_path
from boresight.sae import SparseAutoencoder, name_latents

KEPT, DROPPED = "#0072b2", "#c8c8c8"


@dataclass(frozen=True)
class Options:
    """Where to write, which scene to show, by which captions, and how many latents."""

    out: Path = Path("runs/two-captions")
    scene: int = 3
    captions: tuple[str, str] = ("", "")
    """Left out, each tells one object of the scene, the second with the background."""
    top: int = 10
    seed: int = 0


def main(options: Options) -> None:
    encoder = load_encoder(str(default_model_path()))
    scenes = load_scenes()
    seen = [row for row, split in enumerate(scenes.splits) if split != "encoder"]
    fitting = embed(encoder, scenes.select(seen), options.out / "scenes.embeddings")
    sae = SparseAutoencoder.fit(fitting.train, n_latents=512, k=16, seed=options.seed)
    editor = CaptionEditor.fit(sae, fitting.train, fitting.validation, seed=options.seed)
    names = name_latents(sae, embeddings=fitting.train)
    one = make_scenes(options.scene + 1, objects=(2, 2), split="test", seed=2001).select([options.scene])
    truth = json.loads(one.dataset["attributes"][0])
    first, second = truth["objects"]
    captions = tuple(
        given or told
        for given, told in zip(
            options.captions,
            (
                f"a {first['colour']} {first['shape']}",
                f"a {second['colour']} {second['shape']} on a {truth['background']} background",
            ),
            strict=True,
        )
    )
    picture = one.image(0)
    image, texts = encoder.embed_images([picture]), encoder.embed_texts(captions)
    edits = [editor.shown.explain_edit(image[0].float(), text.float(), names=names) for text in texts]
    for caption, edit in zip(captions, edits, strict=True):
        print(f"{caption}\n{edit}\n")
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=(1, 1.5, 1.5))
    panels[0].imshow(picture)
    panels[0].set_axis_off()
    for axes, caption, edit in zip(panels[1:], captions, edits, strict=True):
        shown = sorted(edit.latents, key=lambda latent: -latent.activation)[: options.top]
        places = range(len(shown))
        kept = [latent.mask >= HALF for latent in shown]
        axes.barh(places, [latent.activation for latent in shown], color=[KEPT if each else DROPPED for each in kept])
        axes.set_yticks(places, [latent.name or "?" for latent in shown], fontsize=8)
        for tick, each in zip(axes.get_yticklabels(), kept, strict=True):
            tick.set_color("black" if each else "#9a9a9a")
        axes.invert_yaxis()
        axes.set_title(f"'{caption}'\nkeeps the blue, drops the grey", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "two-captions.png", dpi=110)


if __name__ == "__main__":
    main(tyro.cli(Options))
