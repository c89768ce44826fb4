"""The comparison: plain, rivals, edited and controls, over seeds, on held-out sets.

Everything that is fitted is fitted on `train`, chosen on `validation` and scored once on each test set. The rows stand
in `comparison_rows`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from boresight.editing import CaptionEditor, Scorer
from boresight.editing.config import EditorFit
from boresight.editing.training import require_apart
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation.comparison_figures import ALL_KINDS, Comparison, HeldOut
from boresight.evaluation.comparison_rows import CHANCE, CHANGES, EDITED, PLAIN, RANDOM, ROWS, SHUFFLED, Row
from boresight.evaluation.retrieval import RetrievalScores, chance, evaluate_retrieval
from boresight.progress import progress
from boresight.runs import Run, open_run
from boresight.sae import SparseAutoencoder, measure_sae
from boresight.seeds import generator
from boresight.storage import MANIFEST, fingerprint

_FIGURES_NEED = ("images", "texts", "owners")
UNSEEDED = "-"


def compare(
    train: Embeddings,
    validation: Embeddings,
    tests: Mapping[str, Embeddings],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    n_latents: int = 4096,
    k: int = 32,
    kinds: Mapping[str, Sequence[str]] | None = None,
    sae_options: Mapping[str, Any] | None = None,
    editor_options: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    device: str | torch.device | None = None,
    rows: Sequence[Row] = ROWS,
) -> Comparison:
    """Retrieval of all rows on all test sets over the seeds.

    Args:
        train, validation: what to fit and what to choose on; never images the encoder was fitted on.
        tests: the held-out sets by name.
        seeds: each fits an autoencoder, the editors and the rivals anew.
        n_latents, k: of the autoencoder.
        kinds: for a test set, a kind for each of its captions, e.g. 'short', 'medium', 'long'.
        sae_options, editor_options: passed on to `SparseAutoencoder.fit` and `CaptionEditor.fit`.
        folder: where to keep what is finished: `seed-<s>/sae` and `seed-<s>/edited` (artefacts), and the figures. A
            comparison of the same data and settings that was interrupted goes on from there.
        rows: some of ROWS, where not all are wanted; 'plain' and 'chance' are always there.

    Raises:
        InputError: no seed or test set, a repeated seed, a row that is none, kinds of an unknown test set or of another
            length, or a test set that shares an image with training or validation.
    """
    kinds = dict(kinds or {})
    _check(tests, seeds, kinds)
    for name, held in tests.items():
        require_apart(train, held, "training", f"'{name}'")
        require_apart(validation, held, "validation", f"'{name}'")
    settings = {
        "n_latents": n_latents,
        "k": k,
        "sae": dict(sae_options or {}),
        "editor": dict(editor_options or {}),
    }
    if unknown := [row.name for row in rows if row not in ROWS]:
        raise InputError(f"There is no row '{unknown[0]}'; choose from {', '.join(row.name for row in ROWS)}.")
    rows = [row for row in ROWS if row in rows or row in (PLAIN, CHANCE)]
    started = time.monotonic()
    made_from = {"digest": _digest(settings, train, validation, tests, kinds)}
    keep = nullcontext(None) if folder is None else open_run(folder, made_from, start_over=True)
    with keep as run, progress(total=len(seeds) * (len(rows) - 2) + 2, what="comparing", unit="row") as bar:
        finished = _Finished(run)

        def measure(row: Row, seed: str, score: Callable[[str, Embeddings], RetrievalScores]) -> None:
            bar.set_postfix_str(row.name if seed == UNSEEDED else f"{row.name}, seed {seed}")
            for name, held in tests.items():
                if (name, row.name, seed) not in finished.figures:
                    finished.add(figure=(name, row.name, seed), result=score(name, held).to_dict())
            bar.update()

        def retrieval(name: str, held: Embeddings, scorer: Scorer | None = None) -> RetrievalScores:
            return evaluate_retrieval(held, scorer, kinds=kinds.get(name), device=device)

        def of_row(models: _Models, row: Row, name: str, held: Embeddings) -> RetrievalScores:
            return retrieval(name, *models.prepared(row, held))

        measure(PLAIN, UNSEEDED, retrieval)
        measure(CHANCE, UNSEEDED, lambda name, held: chance(held, kinds.get(name)))
        for seed in seeds:
            models = _Models(train, validation, seed, settings, finished, device)
            for row in rows:
                if row not in (PLAIN, CHANCE):
                    measure(row, str(seed), partial(of_row, models, row))
            if str(seed) not in finished.measures:
                measures = measure_sae(models.sae, next(iter(tests.values()))).to_dict()
                finished.add(seed=str(seed), measures=measures)
    sets = [
        HeldOut(name, len(held), len(held.owners), dict(Counter(kinds.get(name, ())))) for name, held in tests.items()
    ]
    return Comparison(
        rows=rows,
        tests=sets,
        seeds=list(seeds),
        figures={name: finished.ordered(name, rows, seeds) for name in tests},
        measures={str(seed): finished.measures[str(seed)] for seed in seeds},
        facts=_facts(train, validation, settings, time.monotonic() - started),
    )


class _Models:
    """What one seed fits, each when it is first asked for."""

    def __init__(
        self,
        train: Embeddings,
        validation: Embeddings,
        seed: int,
        settings: Mapping[str, Any],
        finished: _Finished,
        device: str | torch.device | None,
    ) -> None:
        self.train, self.validation, self.seed, self.settings = train, validation, seed, settings
        self.finished, self.device = finished, device
        self.scorers: dict[Row, Scorer] = {}

    def prepared(self, row: Row, held: Embeddings) -> tuple[Embeddings, Scorer]:
        """The embeddings and the scorer of a row."""
        if row == SHUFFLED:
            order = torch.randperm(len(held), generator=generator(self.seed, "shuffled images"))
            return replace(held, images=held.images[order]), self.edited
        if row not in self.scorers:
            self.scorers[row] = self._scorer(row)
        return held, self.scorers[row]

    def _scorer(self, row: Row) -> Scorer:
        if row == EDITED:
            return self.edited
        if row == RANDOM:
            return self.edited.control("random", self.seed)
        return self._editor(**CHANGES[row])

    @cached_property
    def sae(self) -> SparseAutoencoder:
        def fit() -> SparseAutoencoder:
            options = {"n_latents": self.settings["n_latents"], "k": self.settings["k"], **self.settings["sae"]}
            return SparseAutoencoder.fit(self.train, **{**options, "seed": self.seed, "device": self.device})

        return self.finished.artefact(f"seed-{self.seed}/sae", SparseAutoencoder, fit, self.device)

    @cached_property
    def edited(self) -> CaptionEditor:
        return self.finished.artefact(f"seed-{self.seed}/edited", CaptionEditor, self._editor, self.device)

    def _editor(self, **changes: Any) -> CaptionEditor:
        options = {**self.settings["editor"], **changes, "seed": self.seed, "device": self.device}
        return CaptionEditor.fit(self.sae, self.train, self.validation, **options)


class _Finished:
    """What is finished: figures, measures of the autoencoders, and the artefacts where there is a folder."""

    def __init__(self, run: Run | None) -> None:
        self.run = run
        self.figures: dict[tuple[str, str, str], dict[str, Any]] = {}
        """By test set, row and seed."""
        self.measures: dict[str, dict[str, float]] = {}
        self.artefacts: set[str] = set()
        for part in run.parts if run else ():
            self._note(part)

    def add(self, **part: Any) -> None:
        """figure=(test, row, seed) and result; seed and measures; or artefact."""
        self._note(part)
        if self.run is not None:
            self.run.add(part)

    def _note(self, part: Mapping[str, Any]) -> None:
        if "figure" in part:
            test, row, seed = part["figure"]
            self.figures[test, row, seed] = part["result"]
        elif "measures" in part:
            self.measures[part["seed"]] = part["measures"]
        else:
            self.artefacts.add(part["artefact"])

    def artefact(self, name: str, kind: Any, fit: Callable[[], Any], device: str | torch.device | None) -> Any:
        """The artefact kept under `name`, or a fitted one, which is kept."""
        if self.run is None:
            return fit()
        if name in self.artefacts and (self.run.path / name / MANIFEST).is_file():
            return kind.load(self.run.path / name, device)
        made = fit()
        made.save(self.run.path / name)
        self.add(artefact=name)
        return made

    def ordered(self, test: str, rows: Sequence[Row], seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
        """Row -> seed -> result, in the order of the rows and seeds asked for."""
        wanted = (UNSEEDED, *map(str, seeds))
        return {
            row.name: {seed: self.figures[key] for seed in wanted if (key := (test, row.name, seed)) in self.figures}
            for row in rows
        }


def _check(tests: Mapping[str, Embeddings], seeds: Sequence[int], kinds: Mapping[str, Sequence[str]]) -> None:
    if not tests or not seeds:
        raise InputError("A comparison needs at least one test set and one seed.")
    if len(set(seeds)) != len(seeds):
        raise InputError(f"The seeds {', '.join(map(str, seeds))} repeat; a spread needs different ones.")
    for name, labels in kinds.items():
        if name not in tests:
            raise InputError(f"kinds are given for '{name}', which is no test set; the test sets: {', '.join(tests)}.")
        if ALL_KINDS in labels:
            raise InputError(f"A kind of '{name}' is called '{ALL_KINDS}', which names all kinds together; rename it.")
        if len(labels) != len(tests[name].owners):
            raise InputError(
                f"kinds of '{name}' has {len(labels)} entries and the set has {len(tests[name].owners)} captions."
            )


def _digest(
    settings: Mapping[str, Any],
    train: Embeddings,
    validation: Embeddings,
    tests: Mapping[str, Embeddings],
    kinds: Mapping[str, Sequence[str]],
) -> str:
    """Changes with anything that the figures depend on."""
    data = {"train": train, "validation": validation, **{f"test {name}": held for name, held in tests.items()}}
    prints = {name: fingerprint({key: getattr(part, key) for key in _FIGURES_NEED}) for name, part in data.items()}
    captions = hashlib.sha256(json.dumps([part.captions for part in data.values()]).encode()).hexdigest()
    code = [version("boresight"), EditorFit(), EditorFit().candidates(), *CHANGES.values()]
    whole = [settings, prints, captions, {name: list(labels) for name, labels in kinds.items()}, code]
    return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _facts(train: Embeddings, validation: Embeddings, settings: Mapping[str, Any], seconds: float) -> dict[str, str]:
    options = {**settings["sae"], **settings["editor"]}
    return {
        "Encoder": str(train.manifest.get("encoder") or "not named"),
        "Fitted on": f"{len(train):,} images, {len(train.owners):,} captions",
        "Chosen on": f"{len(validation):,} images, {len(validation.owners):,} captions",
        "Autoencoder": f"{settings['n_latents']:,} latents, {settings['k']} active",
        **({"Options": ", ".join(f"{name} {value}" for name, value in options.items())} if options else {}),
        "Versions": f"boresight {version('boresight')}, torch {version('torch')}",
        "Time": f"{seconds:,.0f} s of fitting and scoring",
    }
