"""What does each part of the caption editor bring? From the default editor, one change at a time, in Markdown.

    python studies/ablations.py

On the emoji collection and on the scenes, embedded by the shipped model. Autoencoders and editors are fitted on the
split 'train', what they leave open and early stopping are chosen on 'validation', and every test split is scored once.
The default of this study is the default editor **without its memory**: the memory brings most of the gain
(docs/results/editing.md) and would hide what the rest does. Factors:

    autoencoder   topk, batchtopk, jumprelu, matryoshka
    latents       a quarter of the default to four times as many; the embedding has 256 dimensions
    k             a quarter of the default's active latents to twice as many
    mask          what reads the caption: bilinear, mlp; 'ones' keeps all latents, which leaves the gate
                  or, with nothing trained, the autoencoder's reconstruction
    form          of the edit: gated, residual, reconstruct (the paper's), raw (a gate alone, no autoencoder)
    text          finetuned, frozen
    score         divided by the length of the edit to the power of 0, 0.5 or 1, or by its mean over training images
    memory        none, text, both; and what either brings without an edit
    controls      a random mask of equal density, shuffled images

Where form or length exponent is not what changes, it is chosen on validation as in the default: of gated undivided,
gated divided and residual divided, or of what the change leaves of these; the last column says which was chosen. The
table of a world begins with the two rows to beat, 'plain', the cosine of the embeddings as they are, and 'text
fine-tuning', the same training of the text side without an edit (form 'plain'), and the default.

Gains are in the mean of T2I and I2T R@1, paired by seed. Of the autoencoder: explained variance and active latents on
the pictures of 'validation', and the share of latents that are active in no picture of 'train'. Figures are mean ±
sample standard deviation over seeds, which change all fits. With `--split validation` the set that early stopping was
chosen on is reported, so its gains flatter; use it to choose. What is done is kept, and not done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import pyarrow as pa
import torch
import tyro
from matplotlib.figure import Figure

from boresight import load_encoder
from boresight.data import Collection
from boresight.data.assemble import dataset_of
from boresight.data.worlds.emoji.load import load_emoji
from boresight.data.worlds.scenes import make_scenes
from boresight.editing import CaptionEditor
from boresight.editing.config import Form, MaskKind, MemoryKind, TextKind
from boresight.embeddings import Embeddings, embed
from boresight.errors import InputError
from boresight.evaluation.retrieval import evaluate_retrieval
from boresight.models import default_model_path
from boresight.progress import say
from boresight.sae import SparseAutoencoder, measure_sae
from boresight.sae.config import ARCHITECTURES, Architecture
from boresight.seeds import generator
from boresight.storage import fingerprint, replace_text
from boresight.tables import Spread
from kept import keep, kept
from markdown_tables import markdown

RANDOM, SHUFFLED = "random mask", "shuffled images"
PLAIN, TUNED = "plain", "text fine-tuning"
FACTORS = ("autoencoder", "latents", "k", "mask", "form", "text", "score", "memory", "controls")
SCENES = {"train": 3000, "validation": 500, "test": 1000, "test-combination": 1000}
OF_TEST = ("T2I R@1", "I2T R@1", "over plain", "over fine-tuning")
OF_SAE = ("explained variance", "dead latents, %", "active latents")
Recalls = Mapping[str, Mapping[str, float]]  # test set -> measure, say 'T2I R@1' -> value


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a row is fitted with: the default, and what the row changes of it. None is chosen on validation."""

    architecture: Architecture = "topk"
    n_latents: int = 1024
    k: int = 32
    form: Form | None = None
    mask: MaskKind = "bilinear"
    text: TextKind = "finetuned"
    length_exponent: float | None = None
    memory: MemoryKind = "none"
    control: str = ""

    @property
    def tuned(self) -> Setting:
        """Text fine-tuning: the same training without an edit."""
        return replace(self, form="plain")

    @property
    def of_editor(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("form", "mask", "text", "length_exponent", "memory")}

    @property
    def of_sae(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("architecture", "n_latents", "k")}


@dataclass(frozen=True)
class Options:
    """What to change, on what, and where to keep what is finished."""

    out: Path = Path("runs/ablations")
    worlds: tuple[str, ...] = ("emoji", "scenes")
    seeds: tuple[int, ...] = (0, 1, 2)
    factors: tuple[str, ...] = FACTORS
    split: Literal["test", "validation"] = "test"
    n_latents: int = 1024
    """of the default's autoencoder, as `k`"""
    k: int = 32
    n_train: int | None = None
    """pictures to fit on, at most; the next two likewise, `n_test` for each test"""
    n_validation: int | None = None
    n_test: int | None = None
    sae_steps: int | None = None
    editor_steps: int | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Data:
    """A world's embeddings; `tests` are what is reported, `stamp` changes with any embedding or caption."""

    name: str
    train: Embeddings
    validation: Embeddings
    tests: Mapping[str, Embeddings]
    stamp: str


@dataclass(frozen=True)
class Results:
    """Figures of a world: recalls of 'plain', and for each setting what every seed found, in the order of the seeds."""

    plain: Recalls
    rows: Mapping[Setting, Sequence[Mapping[str, Any]]]
    base: Setting

    def recalls(self, setting: Setting | None, split: str) -> list[dict[str, float]]:
        """One entry a seed, as `headline`; None is 'plain', which no seed changes."""
        runs = self.rows[setting or self.base]
        return [headline(self.plain if setting is None else run["tests"], split) for run in runs]

    def gain(self, setting: Setting | None, over: Setting | None, split: str) -> Spread:
        """How much higher the mean of both R@1 is, paired by seed, in points."""
        pairs = zip(self.recalls(setting, split), self.recalls(over, split), strict=True)
        return Spread.of([mine["mean"] - other["mean"] for mine, other in pairs])


def main(options: Options) -> None:
    torch.set_num_threads(1)
    for given, known in ((options.worlds, WORLDS), (options.factors, FACTORS)):
        for name in given:
            if name not in known:
                raise InputError(f"There is no '{name}'; choose from {', '.join(known)}.")
    base = Setting(n_latents=options.n_latents, k=options.k)
    levels = {name: of for name, of in factors(base).items() if name in options.factors}
    settings = dict.fromkeys([base.tuned, base, *(one for of in levels.values() for one in of.values())])
    seeds = ", ".join(map(str, options.seeds))
    for name in options.worlds:
        data = embedded(name, options)
        plain = {split: evaluate_retrieval(test, device="cpu").to_dict() for split, test in data.tests.items()}
        rows: dict[Setting, list[Mapping[str, Any]]] = {setting: [] for setting in settings}
        for seed in options.seeds:
            for setting in settings:
                rows[setting].append(measured(data, seed, setting, options))
        results = Results(plain, rows, base)
        report = f"### {name} (seeds {seeds})\n\n{table(levels, results)}\n"
        print(f"\n{report}", flush=True)
        replace_text(options.out / options.split / f"{name}.md", report)
        if drawn := draw_gains(name, levels, results):
            drawn.savefig(options.out / options.split / f"{name}.png", dpi=150)


def factors(base: Setting) -> dict[str, dict[str, Setting]]:
    """Factor -> level -> setting, for each of FACTORS; one level of each is `base` itself.

    Of latents and k only levels that fit together, so that k latents can be active.
    """
    change = partial(replace, base)
    latents = [int(base.n_latents * share) for share in (1 / 4, 1 / 2, 1, 2, 4)]
    active = [int(base.k * share) for share in (1 / 4, 1 / 2, 1, 2)]
    return {
        "autoencoder": {name: change(architecture=name) for name in ARCHITECTURES},
        "latents": {f"{n:,}": change(n_latents=n) for n in latents if n >= base.k},
        "k": {str(k): change(k=k) for k in active if 1 <= k <= base.n_latents},
        "mask": {
            "bilinear": base,
            "mlp": change(mask="mlp"),
            "ones, the gate alone": change(form="raw"),  # which is 'gated' with every latent kept
            "ones, the reconstruction alone": change(mask="ones", form="reconstruct", text="frozen"),
        },
        "form": {
            "gated or residual": base,
            **{form: change(form=form) for form in ("gated", "residual", "reconstruct", "raw")},
        },
        "text": {"finetuned": base, "frozen": change(text="frozen")},
        "score": {
            "0 or 1": base,
            **{f"{power:g}": change(length_exponent=power) for power in (0.0, 0.5, 1.0)},
        },
        "memory": {
            "none": base,
            "text": change(memory="text"),
            "both": change(memory="both"),
            "text, no edit": change(memory="text", form="plain"),
            "both, no edit": change(memory="both", form="plain"),
        },
        "controls": {"none": base, **{name: change(control=name) for name in (RANDOM, SHUFFLED)}},
    }


def measured(data: Data, seed: int, setting: Setting, options: Options) -> dict[str, Any]:
    """Figures of a row for one seed, from its file where they are finished.

    `tests`: as Recalls; `chosen`: form and length exponent; `sae`: measures of the autoencoder where the form has one.
    """
    name = name_of(setting, options)
    file = options.out / options.split / f"{data.name}-{seed}" / f"{name}.json"
    settings = {"setting": asdict(setting), **_of_outcome(data, options)}
    if (done := kept(file, settings)) is not None:
        return done
    sae = autoencoder(data, seed, setting, options)
    editor = edited(data, seed, replace(setting, control=""), sae, options)
    config, measures = editor.config, {}
    if config.has_latents:
        unseen = measure_sae(sae, data.validation.images).to_dict()
        measures = {"train": sae.manifest["measures"], "validation": unseen}
    chosen = "" if config.form == "plain" else f"{config.form} {config.length_exponent:g}"
    results: dict[str, Any] = {"chosen": chosen, "sae": measures, "tests": {}}
    scorer = editor.control("random", seed) if setting.control == RANDOM else editor
    for split, test in data.tests.items():
        if setting.control == SHUFFLED:
            order = torch.randperm(len(test), generator=generator(seed, SHUFFLED))
            test = replace(test, images=test.images[order])
        results["tests"][split] = evaluate_retrieval(test, scorer).to_dict()
    keep(file, settings, results)
    tests = results["tests"]
    say(f"{data.name}, seed {seed}, {name}: {json.dumps({of: headline(tests, of) for of in tests})}")
    return results


def autoencoder(data: Data, seed: int, setting: Setting, options: Options) -> SparseAutoencoder:
    """One for all editors of the same architecture, latents and k."""
    settings = {**setting.of_sae, "sae_steps": options.sae_steps, "data": data.stamp}
    name = "-".join(("sae", *map(str, setting.of_sae.values())))
    folder = options.out / "models" / f"{data.name}-{seed}" / name

    def fit() -> SparseAutoencoder:
        chosen = {**setting.of_sae, "steps": options.sae_steps, "seed": seed, "device": options.device}
        return SparseAutoencoder.fit(data.train, **chosen)

    return _artefact(folder, SparseAutoencoder, settings, fit, options.device)


def edited(data: Data, seed: int, setting: Setting, sae: SparseAutoencoder, options: Options) -> CaptionEditor:
    """The editor that validation chose, for the row and its controls."""
    settings = {"setting": asdict(setting), **_of_outcome(data, options)}
    folder = options.out / "models" / f"{data.name}-{seed}" / name_of(setting, options)

    def fit() -> CaptionEditor:
        chosen = {**setting.of_editor, "steps": options.editor_steps, "seed": seed, "device": options.device}
        return CaptionEditor.fit(sae, data.train, data.validation, **chosen)

    return _artefact(folder, CaptionEditor, settings, fit, options.device)


def name_of(setting: Setting, options: Options) -> str:
    """What the setting changes of the default, fit for a file."""
    base = asdict(Setting(n_latents=options.n_latents, k=options.k))
    changes = [f"{name}-{value}" for name, value in asdict(setting).items() if value != base[name]]
    return "-".join(changes).replace(" ", "-") or "default"


def embedded(name: str, options: Options) -> Data:
    """A world's splits, embedded by the shipped model."""
    encoder = load_encoder(str(default_model_path()))
    whole = embed(encoder, WORLDS[name](options), options.out / "embeddings" / name)
    tests = {split: whole.split(split) for split in sorted(set(whole.splits)) if split.startswith("test")}
    validation = whole.validation
    captions = torch.frombuffer(bytearray("\n".join(whole.captions or ()), "utf-8"), dtype=torch.uint8)
    stamp = fingerprint({"images": whole.images, "texts": whole.texts, "owners": whole.owners, "captions": captions})
    return Data(name, whole.train, validation, tests if options.split == "test" else {"validation": validation}, stamp)


def emoji(options: Options) -> Collection:
    whole, rows = load_emoji(), []
    for split in set(whole.splits) - {"encoder"}:
        of_split = [row for row, its in enumerate(whole.splits) if its == split]
        most = _most(split, options) or len(of_split)
        rows += of_split[:: max(1, len(of_split) // most)][:most]  # evenly, because neighbours are alike
    return whole.select(sorted(rows))


def scenes(options: Options) -> Collection:
    """Those of `load_scenes`, without the encoder's."""
    parts = [make_scenes(_most(split, options) or n, split=split) for split, n in SCENES.items()]
    return Collection(dataset_of(pa.concat_tables(part.dataset.data.table for part in parts)), "scenes")


WORLDS: dict[str, Callable[[Options], Collection]] = {"emoji": emoji, "scenes": scenes}


def headline(tests: Recalls, split: str) -> dict[str, float]:
    """R@1 in percent, in both directions and their mean."""
    t2i, i2t = (tests[split][f"{side} R@1"] for side in ("T2I", "I2T"))
    return {"T2I": t2i, "I2T": i2t, "mean": fmean((t2i, i2t))}


def table(levels: Mapping[str, Mapping[str, Setting]], results: Results) -> str:
    """The two rows to beat, the default, then what a level of each factor changes of it."""
    rows: dict[str, Setting | None] = {PLAIN: None, TUNED: results.base.tuned, "**the default**": results.base}
    rows |= {
        f"{factor}: {level}": setting
        for factor, of in levels.items()
        for level, setting in of.items()
        if setting != results.base
    }
    headings = [f"{split}: {column}" for split in results.plain for column in OF_TEST] + [*OF_SAE, "chosen"]
    lines = []
    for row, setting in rows.items():
        cells = [row]
        for split in results.plain:
            recalls = results.recalls(setting, split)
            for name in ("T2I", "I2T"):
                values = [one[name] for one in recalls]
                cells.append(Spread.of(values if setting else values[:1]).text())
            for over in (None, results.base.tuned):
                cells.append("" if setting == over else results.gain(setting, over, split).text(sign="+"))
        lines.append([*cells, *fits(results.rows[setting] if setting else [])])
    return markdown(["row", *headings], lines)


def fits(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Cells of OF_SAE, empty unless every seed's editor uses an autoencoder, and what validation chose."""
    measures, chosen = [""] * len(OF_SAE), [run["chosen"] for run in runs]
    saes = [run["sae"] for run in runs]
    if runs and all(saes):
        measures = [
            Spread.of([sae["validation"]["explained_variance"] for sae in saes]).text(3),
            Spread.of([100 * sae["train"]["dead_share"] for sae in saes]).text(),
            Spread.of([sae["validation"]["l0"] for sae in saes]).text(),
        ]
    return [*measures, ", ".join(chosen if len(set(chosen)) > 1 else chosen[:1])]


def draw_gains(world: str, levels: Mapping[str, Mapping[str, Setting]], results: Results) -> Figure | None:
    """Gains over text fine-tuning, a panel a test set, without controls, which would set the scale; or None."""
    shown = {factor: of for factor, of in levels.items() if factor != "controls"}
    rows = [(factor, f"{factor}: {level}", setting) for factor, of in shown.items() for level, setting in of.items()]
    if not rows:
        return None
    drawn = Figure(figsize=(3.5 + 3 * len(results.plain), 1.2 + 0.22 * len(rows)), layout="constrained")
    drawn.subplots(1, len(results.plain), sharey=True)
    for axes, split in zip(drawn.axes, results.plain, strict=True):
        for at, (factor, _, setting) in enumerate(rows):
            point = results.gain(setting, results.base.tuned, split)
            ink = "black" if setting == results.base else f"C{FACTORS.index(factor)}"
            axes.errorbar(point.mean, at, xerr=point.deviation or 0.0, marker="o", color=ink, capsize=2)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.axvline(
            results.gain(results.base, results.base.tuned, split).mean, color="grey", linewidth=0.8, linestyle="--"
        )
        axes.set(title=split, xlabel="gain over text fine-tuning, points of R@1", yticks=range(len(rows)))
        axes.spines[["top", "right"]].set_visible(False)
    drawn.axes[0].set_yticklabels([label for _, label, _ in rows], fontsize=8)
    drawn.axes[0].invert_yaxis()
    drawn.suptitle(f"{world}; black and dashed: the default without a memory")
    return drawn


def _most(split: str, options: Options) -> int | None:
    return {"train": options.n_train, "validation": options.n_validation}.get(split, options.n_test)


def _of_outcome(data: Data, options: Options) -> dict[str, Any]:
    """What decides a row beside its setting, seed and split."""
    return {"data": data.stamp, "sae_steps": options.sae_steps, "editor_steps": options.editor_steps}


def _artefact(folder: Path, kind: Any, settings: Mapping[str, Any], fit: Callable[[], Any], device: str) -> Any:
    """The artefact kept in `folder`, fitted now unless it is there; its settings stand in a file beside it."""
    file = folder.parent / f"{folder.name}.json"
    if kept(file, settings) is None:
        fit().save(folder)
        keep(file, settings, True)
    return kind.load(folder, device)


if __name__ == "__main__":
    main(tyro.cli(Options))
