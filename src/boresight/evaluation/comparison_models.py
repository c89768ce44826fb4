"""What each seed of a comparison fits, when it is first asked for, and what of it is finished."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from boresight.editing import CaptionEditor, Scorer
from boresight.embeddings import Embeddings
from boresight.evaluation.comparison_rows import CHANGES, EDITED, RANDOM, SHUFFLED, Row
from boresight.runs import Run
from boresight.sae import SparseAutoencoder
from boresight.seeds import generator
from boresight.storage import MANIFEST

UNSEEDED = "-"
"""The seed of a row that no seed changes."""


class SeedModels:
    """What one seed fits, each when it is first asked for."""

    def __init__(
        self,
        train: Embeddings,
        validation: Embeddings,
        seed: int,
        settings: Mapping[str, Any],
        finished: Finished,
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
        """The autoencoder that all editors of this seed share."""

        def fit() -> SparseAutoencoder:
            options = {"n_latents": self.settings["n_latents"], "k": self.settings["k"], **self.settings["sae"]}
            return SparseAutoencoder.fit(self.train, **{**options, "seed": self.seed, "device": self.device})

        return self.finished.artefact(f"seed-{self.seed}/sae", SparseAutoencoder, fit, self.device)

    @cached_property
    def edited(self) -> CaptionEditor:
        """The row 'edited', which two controls use too."""
        return self.finished.artefact(f"seed-{self.seed}/edited", CaptionEditor, self._editor, self.device)

    def _editor(self, **changes: Any) -> CaptionEditor:
        options = {**self.settings["editor"], **changes, "seed": self.seed, "device": self.device}
        return CaptionEditor.fit(self.sae, self.train, self.validation, **options)


class Finished:
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
