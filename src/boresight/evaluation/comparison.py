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
from dataclasses import fields, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from boresight.editing import Scorer
from boresight.editing.config import EditorFit
from boresight.editing.training import require_apart
from boresight.embeddings import Embeddings
from boresight.embeddings.embeddings import left_out_words, require_embeddings
from boresight.errors import InputError
from boresight.evaluation.comparison_figures import ALL_KINDS, Comparison, HeldOut
from boresight.evaluation.comparison_models import SCORERS, Finished, SeedModels
from boresight.evaluation.comparison_rows import (
    ALTERNATIVES,
    CHANCE,
    CHANGES,
    EDITED,
    EDITED_SHOWN,
    PLAIN,
    ROWS,
    SHUFFLED,
    Row,
)
from boresight.evaluation.retrieval import RetrievalScores, chance, evaluate_retrieval
from boresight.evaluation.verdict import Verdict, hits_by_image, verdict, warn_of_known, warn_of_missing
from boresight.progress import progress
from boresight.runs import open_run
from boresight.sae import measure_sae
from boresight.sae.config import SaeFit
from boresight.seeds import generator
from boresight.storage import fingerprint

UNSEEDED = "-"
"""The seed of a row that no seed changes."""
_FIGURES_NEED = ("images", "texts", "owners")


def compare(
    train: Embeddings,
    validation: Embeddings,
    tests: Mapping[str, Embeddings],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    n_latents: int | None = None,
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
        n_latents, k: of the autoencoder, see `SaeFit`.
        kinds: for a test set, a kind for each of its captions, e.g. 'short', 'medium', 'long'.
        sae_options, editor_options: passed on to `SparseAutoencoder.fit` and `CaptionEditor.fit`.
        folder: where to keep what is finished: `seed-<s>/sae` and `seed-<s>/edited` (artefacts), and the figures. A
            comparison of the same data and settings that was interrupted goes on from there. `hits/` holds what the
            verdicts are made of.
        rows: some of ROWS, where not all are wanted; 'plain' and 'chance' are always there, and 'edited, as shown' is
            where the editor has that form.

    Raises:
        InputError: no seed or test set, a repeated seed, a row that is none, kinds of an unknown test set or of another
            length, or a test set that shares an image with training or validation.
    """
    require_embeddings(train=train, validation=validation, **tests)
    kinds = dict(kinds or {})
    _check(tests, seeds, kinds)
    for name, held in tests.items():
        require_apart(train, held, "training", f"'{name}'")
        require_apart(validation, held, "validation", f"'{name}'")
    latents = SaeFit(n_latents=n_latents).latents_for(len(train))
    settings = {"n_latents": latents, "k": k, "sae": dict(sae_options or {}), "editor": dict(editor_options or {})}
    if unknown := [row.name for row in rows if row not in ROWS]:
        raise InputError(f"There is no row '{unknown[0]}'; choose from {', '.join(row.name for row in ROWS)}.")
    possible = set(ROWS) if _shows(editor_options or {}) else set(ROWS) - {EDITED_SHOWN}
    rows = [row for row in ROWS if (row in rows and row in possible) or row in (PLAIN, CHANCE)]
    judged = {EDITED, *ALTERNATIVES} if EDITED in rows else set()
    started = time.monotonic()
    made_from = {"digest": _digest(settings, train, validation, tests, kinds)}
    keep = nullcontext(None) if folder is None else open_run(folder, made_from, start_over=True)
    with keep as run, progress(total=len(seeds) * (len(rows) - 2) + 2, what="comparing", unit="row") as bar:
        finished = Finished(run)

        def measure(row: Row, seed: str, score: Callable[[str, Embeddings], RetrievalScores]) -> None:
            bar.set_postfix_str(row.name if seed == UNSEEDED else f"{row.name}, seed {seed}")
            for name, held in tests.items():
                figure = (name, row.name, seed)
                if figure not in finished.figures or (row in judged and finished.hits(figure) is None):
                    scores = score(name, held)
                    if row in judged:
                        finished.keep_hits(figure, hits_by_image(scores, held.owners))
                    finished.add(figure=figure, result=scores.to_dict())
            bar.update()

        def retrieval(name: str, held: Embeddings, scorer: Scorer | None = None) -> RetrievalScores:
            return evaluate_retrieval(held, scorer, kinds=kinds.get(name), device=device)

        def measure_seeded(models: SeedModels, row: Row) -> None:
            scorer = cache(partial(SCORERS[row], models))

            def score(name: str, held: Embeddings) -> RetrievalScores:
                if row == SHUFFLED:
                    order = torch.randperm(len(held), generator=generator(models.seed, "shuffled images"))
                    held = replace(held, images=held.images[order])
                return retrieval(name, held, scorer())

            measure(row, str(models.seed), score)

        measure(PLAIN, UNSEEDED, retrieval)
        measure(CHANCE, UNSEEDED, lambda name, held: chance(held, kinds.get(name)))
        for seed in seeds:
            models = SeedModels(train, validation, seed, settings, finished, device)
            for row in rows:
                if row not in (PLAIN, CHANCE):
                    measure_seeded(models, row)
            if str(seed) not in finished.measures:
                finished.add(seed=str(seed), measures=measure_sae(models.sae, next(iter(tests.values()))).to_dict())
        verdicts = {}
        if judged:
            for name, held in tests.items():
                notes = [*warn_of_missing([held]), *warn_of_known([held], [train, validation])]
                verdicts[name] = _judge(name, held, rows, seeds, finished, notes)
    of, wanted = finished.figures, (UNSEEDED, *map(str, seeds))
    return Comparison(
        rows=rows,
        tests=[
            HeldOut(name, len(held), len(held.owners), dict(Counter(kinds.get(name, ()))), left_out_words(held))
            for name, held in tests.items()
        ],
        seeds=list(seeds),
        figures={
            name: {
                row.name: {seed: of[key] for seed in wanted if (key := (name, row.name, seed)) in of} for row in rows
            }
            for name in tests
        },
        measures={str(seed): finished.measures[str(seed)] for seed in seeds},
        facts=_facts(train, validation, settings, time.monotonic() - started),
        verdicts=verdicts,
    )


def _judge(
    name: str, held: Embeddings, rows: Sequence[Row], seeds: Sequence[int], finished: Finished, notes: Sequence[str]
) -> Verdict:
    """'edited' against the alternatives that were run, by what was kept of their hits."""
    run = [row for row in (EDITED, *ALTERNATIVES) if row in rows]
    hits: dict[str, list[Any]] = {
        row.name: [finished.hits((name, row.name, str(seed))) for seed in ([UNSEEDED] if row == PLAIN else seeds)]
        for row in run
    }
    missing = [f"'{row.name}'" for row in ALTERNATIVES if row not in rows]
    warnings = [f"Not among the alternatives: {', '.join(missing)}."] if missing else []
    return verdict(held, hits.pop(EDITED.name), hits, notes=[*notes, *warnings])


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


def _shows(options: Mapping[str, Any]) -> bool:
    """Whether the editors have a form that shows; options that there are not are left for their fit to refuse."""
    fit = {each.name: options[each.name] for each in fields(EditorFit) if each.name in options}
    return replace(options.get("config") or EditorFit(), **fit).shows


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
