"""Which attributes stay linearly readable when an image embedding is edited by its caption, on scenes, in Markdown.

    python studies/retention.py

TEVI (arXiv 2606.07451) claims that what the caption describes stays and the rest goes. Autoencoder and editors are
fitted on the split 'train' of the scenes. Linear probes are fitted on other scenes of one object and read further ones,
each edited by its own medium caption: that tells the shape and two of size, texture, colour and place. Features are the
embeddings as they are ('plain') or edited by: the default editor; its form that shows; the same of an editor whose
autoencoder was fitted on what captions say too, with 512 latents and 8 active ('shown, captions'); the paper's form,
trained by contrast.

A caption may write its own words into the edit, which would pass for retention. So the probes also read images edited
by the caption of another image: a leak is where they find the value told by that caption, not the image's own. Further
probes are fitted to edits of one vector, the mean image: whatever they read there, the caption wrote.

Of the mask itself: a latent belongs to the attribute that most tells when it is active (mutual information, twice that
of any other and 5 % of its entropy, on the scenes the probes are fitted on). Among the active latents of an image, the
area under the ROC curve is how often the mask of a told attribute's latent is above that of an untold one's.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from attribute_retention import accuracy, attribute_retention
from boresight.data.worlds.scene_world import BACKGROUNDS, COLOURS, PLACES, SHAPES, SIZES, TEXTURES
from boresight.data.worlds.scenes import load_scenes, make_scenes
from boresight.editing import CaptionEditor
from boresight.editing.masks import HALF
from boresight.embeddings import embed
from boresight.encoders import Encoder, load_encoder
from boresight.evaluation.results import percent
from boresight.models import default_model_path
from boresight.progress import say
from boresight.sae import SparseAutoencoder
from boresight.seeds import generator
from boresight.storage import replace_text
from boresight.tables import Spread
from markdown_tables import markdown

VALUES: dict[str, Sequence[str]] = {
    "shape": SHAPES,
    "size": list(SIZES),
    "texture": TEXTURES,
    "colour": list(COLOURS),
    "place": list(PLACES),
    "background": list(BACKGROUNDS),
}
EDITORS: dict[str, dict[str, Any]] = {
    "edited": {},
    "reconstruct": {"form": "reconstruct", "memory": "none"},
}
CAPTIONED = {"n_latents": 512, "k": 8, "captions": True}
INKS = {
    "plain": "#9a9a9a",
    "edited": "#0072b2",
    "as shown": "#e69f00",
    "shown, captions": "#cc79a7",
    "reconstruct": "#009e73",
}
SORTS = ("described", "undescribed")
Figures = dict[tuple[str, str], dict[str, list[float]]]  # (attribute, measure) -> row -> one value a seed


@dataclass(frozen=True)
class Options:
    """Where to write, over how many seeds to go, and how many scenes the probes are fitted on and read."""

    out: Path = Path("runs/retention")
    seeds: tuple[int, ...] = (0, 1, 2)
    n_probe: int = 1500
    n_test: int = 1000


@dataclass(frozen=True)
class Singles:
    """Scenes of one object: images and medium captions (N, d), values (N,) and whether told (N,) by attribute."""

    images: Tensor
    texts: Tensor
    values: dict[str, Tensor]
    told: dict[str, Tensor]


def main(options: Options) -> None:
    encoder = load_encoder(str(default_model_path()))
    scenes = load_scenes()
    seen = [row for row, split in enumerate(scenes.splits) if split != "encoder"]
    fitting = embed(encoder, scenes.select(seen), options.out / "scenes.embeddings")
    fit = singles(encoder, options.n_probe, 1001, options.out)
    test = singles(encoder, options.n_test, 1002, options.out)
    figures: Figures = defaultdict(lambda: defaultdict(list))
    facts: list[str] = []
    measure(figures, "plain", lambda images, texts: images, fit, test)
    for seed in options.seeds:
        sae = SparseAutoencoder.fit(fitting.train, n_latents=1024, k=32, seed=seed)
        for row, settings in EDITORS.items():
            editor = CaptionEditor.fit(sae, fitting.train, fitting.validation, seed=seed, **settings)
            facts.append(f"- seed {seed}, {row}: {describe(editor, test)}")
            say(facts[-1])
            measure(figures, row, editor.edit, fit, test)
            if editor.taught_mask is not None:
                facts.append(f"- seed {seed}, as shown: {mask_facts(editor, fit, test)}")
                say(facts[-1])
                measure(figures, "as shown", editor.shown.edit, fit, test)
        sae = SparseAutoencoder.fit(fitting.train, seed=seed, **CAPTIONED)
        editor = CaptionEditor.fit(sae, fitting.train, fitting.validation, seed=seed)
        facts.append(f"- seed {seed}, shown, captions: {mask_facts(editor, fit, test)}")
        say(facts[-1])
        measure(figures, "shown, captions", editor.shown.edit, fit, test)
    text = report(figures, options, facts)
    print(text)
    replace_text(options.out / "retention.md", text + "\n")
    draw(figures).savefig(options.out / "retention.png", dpi=150)


def singles(encoder: Encoder, count: int, seed: int, out: Path) -> Singles:
    """Of the world's split 'test' under a seed of their own: neither encoder nor editor has seen them."""
    scenes = make_scenes(count, objects=(1, 1), split="test", seed=seed, richness="medium")
    embeddings = embed(encoder, scenes, out / f"single-{seed}-{count}.embeddings")
    truths = [json.loads(truth) for truth in scenes.dataset["attributes"]]
    flat = [{**truth["objects"][0], "background": truth["background"]} for truth in truths]
    told = []
    for of_image in scenes.dataset["described"]:
        described = json.loads(of_image)[0]
        told.append({"shape", *described["objects"]["0"], *(["background"] if described["background"] else [])})
    return Singles(
        images=embeddings.images.float(),
        texts=embeddings.texts.float(),
        values={name: torch.tensor([list(words).index(one[name]) for one in flat]) for name, words in VALUES.items()},
        told={name: torch.tensor([name in attributes for attributes in told]) for name in VALUES},
    )


def describe(editor: CaptionEditor, test: Singles) -> str:
    """What was chosen on validation, and how far its edits go."""
    config, edited = editor.config, editor.edit(test.images, test.texts).cpu()
    cosine = F.cosine_similarity(edited, test.images).mean()
    return (
        f"form {config.form}, length exponent {config.length_exponent:g}, memory {config.memory}; mean mask "
        f"{editor.mask(test.texts).mean():.2f}, mean gate {editor.gate(test.texts).mean():.2f}, mean cosine of edited "
        f"and plain embedding {cosine:.3f}"
    )


def mask_facts(editor: CaptionEditor, fit: Singles, test: Singles) -> str:
    """How well the mask tells latents of told from latents of untold attributes, and how much is dropped."""
    owner = attribute_of_latents(editor.sae, fit)
    codes, masks = editor.sae.encode(test.images), editor.taught_mask(F.normalize(test.texts, dim=1))
    kept, owned = masks.gather(1, codes.indices), owner[codes.indices]
    told = torch.stack([test.told[name] for name in VALUES], dim=1).gather(1, owned.clamp_min(0))
    ours = (codes.values > 0) & (owned >= 0)
    left = kept >= HALF
    return (
        f"area under the ROC curve {area_under_roc(kept[ours & told], kept[ours & ~told]):.2f}; of the latents of told "
        f"attributes {percent(left[ours & told]):.0f} % are kept, of untold ones {percent(left[ours & ~told]):.0f} %; "
        f"{int((owner >= 0).sum())} latents belong to an attribute"
    )


def attribute_of_latents(sae: SparseAutoencoder, fit: Singles) -> Tensor:
    """(n,) the place of its attribute in VALUES, or -1."""
    codes, count = sae.encode(fit.images), len(fit.images)
    active = torch.zeros(count, sae.n_latents).scatter_(1, codes.indices, (codes.values > 0).float())
    often = active.mean(0).clamp(1e-9, 1 - 1e-9)
    entropy = -(often * often.log() + (1 - often) * (1 - often).log())
    shared = []
    for name, words in VALUES.items():
        of_value = F.one_hot(fit.values[name], len(words)).float()
        joint = torch.stack([of_value.t() @ active, of_value.t() @ (1 - active)], dim=2) / count
        apart = of_value.mean(0)[:, None, None] * torch.stack([often, 1 - often], dim=1)
        shared.append((joint * (joint / apart).clamp_min(1e-12).log()).sum((0, 2)) - (len(words) - 1) / (2 * count))
    first, second = torch.stack(shared).topk(2, dim=0).values
    owned = (active.sum(0) >= 10) & (first > 0.05 * entropy) & (first > 2 * second)
    return torch.where(owned, torch.stack(shared).argmax(0), -1)


def area_under_roc(higher: Tensor, lower: Tensor) -> float:
    """How often a value of one is above a value of the other; ties count half."""
    order = lower.double().sort().values
    below = torch.searchsorted(order, higher.double()) + torch.searchsorted(order, higher.double(), right=True)
    return float(below.double().mean() / (2 * len(lower)))


def measure(figures: Figures, row: str, edit: Callable[[Tensor, Tensor], Tensor], fit: Singles, test: Singles) -> None:
    """Add one row's figures, in percent, to `figures`."""
    order = torch.randperm(len(test.images), generator=generator(0, "retention foreign captions"))
    foreign = torch.empty_like(order)
    foreign[order] = order.roll(1)  # one cycle through all rows, so no image keeps its own caption
    fitted, own = edit(fit.images, fit.texts).cpu(), edit(test.images, test.texts).cpu()
    swapped = edit(test.images, test.texts[foreign]).cpu()
    mean = fit.images.mean(0, keepdim=True)
    written, unseen = (edit(mean.expand_as(part.images), part.texts).cpu() for part in (fit, test))
    for name, words in VALUES.items():
        classes, seen, truth, told = len(words), fit.values[name], test.values[name], test.told[name]
        results = attribute_retention(fitted, seen, own, truth, told, classes=classes)
        figures[name, "chance"][row] = [results["guessing"]]
        for sort in SORTS:
            figures[name, f"{sort} rows"][row] = [results.counts[f"{sort} rows"]]
            figures[name, sort][row].append(results[sort])
            mine, theirs = (fit.told[name], told) if sort == "described" else (~fit.told[name], ~told)
            if mine.any() and theirs.any():
                alone = attribute_retention(
                    fitted[mine], seen[mine], own[theirs], truth[theirs], told[theirs], classes=classes
                )
                figures[name, f"{sort} alone"][row].append(alone[sort])
        if told.any():
            alone = attribute_retention(written, seen, unseen, truth, told, classes=classes)
            figures[name, "written"][row].append(alone["described"])
        said = truth[foreign]
        contrary = told[foreign] & (said != truth)
        if contrary.any():
            figures[name, "contrary rows"][row] = [int(contrary.sum())]
            frequent = said[contrary] == results.probe.most_frequent
            figures[name, "contrary chance"][row] = [100 * float(frequent.double().mean())]
            figures[name, "image"][row].append(accuracy(results.probe, swapped[contrary], truth[contrary]))
            figures[name, "caption"][row].append(accuracy(results.probe, swapped[contrary], said[contrary]))


def report(figures: Figures, options: Options, facts: Sequence[str]) -> str:
    numbers = ", ".join(map(str, options.seeds))
    over = f"mean ± sample standard deviation over seeds {numbers}" if len(options.seeds) > 1 else f"seed {numbers}"
    leaks = [
        line(figures, name, whose, f"the {whose}", "contrary rows", "contrary chance")
        for name in VALUES
        if figures[name, "contrary rows"]
        for whose in ("image", "caption")
    ]
    written = [
        line(figures, name, "written", "described", "described rows", "chance")
        for name in VALUES
        if figures[name, "written"]
    ]
    parts = {
        "One probe for all rows": ("caption", retention_lines(figures, "")),
        "A probe for described rows, another for undescribed rows": ("caption", retention_lines(figures, " alone")),
        "Leak: the probes for all rows, on images edited by a caption that tells another value": (
            "reads the value of",
            leaks,
        ),
        "The caption alone: probes fitted to, and reading, edits of the mean image": ("caption", written),
    }
    about = f"Accuracy in %, {over}; probes fitted on {options.n_probe:,} scenes. The editors:"
    lines = [about, "", *facts]
    for title, (second, rows) in parts.items():
        lines += ["", f"### {title}", "", markdown(["attribute", second, "rows", "chance", *INKS], rows)]
    return "\n".join(lines)


def retention_lines(figures: Figures, ending: str) -> list[list[str]]:
    return [
        line(figures, name, sort + ending, sort, f"{sort} rows", "chance")
        for name in VALUES
        for sort in SORTS
        if figures[name, f"{sort} rows"]["plain"][0]
    ]


def line(figures: Figures, name: str, measured: str, label: str, rows: str, chance: str) -> list[str]:
    cells = [Spread.of(figures[name, measured][row]).text() for row in INKS]
    count, floor = figures[name, rows]["plain"][0], figures[name, chance]["plain"][0]
    return [name, label, f"{count:,}", f"{floor:.1f}", *cells]


def draw(figures: Figures) -> Figure:
    """Bars by attribute, a panel for described and one for undescribed rows; a dashed line at chance."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    width = 0.8 / len(INKS)
    for axes, sort in zip(figure.subplots(2, 1, sharex=True, sharey=True), SORTS, strict=True):
        for at, name in enumerate(VALUES):
            if not figures[name, f"{sort} rows"]["plain"][0]:
                axes.text(at, 3, "none", ha="center", color="#666666", fontsize=9)
                continue
            for place, (row, ink) in enumerate(INKS.items()):
                value = Spread.of(figures[name, sort][row])
                left = at + (place - (len(INKS) - 1) / 2) * width
                axes.bar(left, value.mean, width * 0.92, color=ink, label=row if at == 1 else None)
                if value.deviation is not None:
                    axes.errorbar(left, value.mean, value.deviation, color="#202020", linewidth=1, capsize=2)
            chance = figures[name, "chance"]["plain"][0]
            label = "chance" if at == 1 else None
            axes.hlines(chance, at - 0.45, at + 0.45, colors="#202020", linestyles="dashed", linewidth=1, label=label)
        axes.set(ylim=(0, 105), ylabel="probe accuracy, %", xticks=range(len(VALUES)), xticklabels=list(VALUES))
        axes.set_title("attribute told by the caption" if sort == "described" else "attribute not told", loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    return figure


if __name__ == "__main__":
    main(tyro.cli(Options))
