"""What each seed of a comparison fits, when it is first asked for, what scores its rows, and what of it is finished."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from boresight.device import pick_device
from boresight.editing import CaptionEditor, CorrectedScorer, PlainScorer, Scorer
from boresight.editing.config import CorrectionMethod
from boresight.embeddings import Embeddings
from boresight.errors import ArtefactError
from boresight.evaluation.comparison_rows import (
    CHANGES,
    EDITED,
    EDITED_SHOWN,
    EDITED_UNCORRECTED,
    PLAIN_NNN,
    PLAIN_SINKHORN,
    RANDOM,
    SHUFFLED,
    TUNED,
    TUNED_NNN,
    TUNED_SINKHORN,
    Row,
)
from boresight.runs import Run
from boresight.sae import SparseAutoencoder
from boresight.storage import MANIFEST, replace_file


@dataclass(frozen=True)
class SeedModels:
    """What one seed fits, each when it is first asked for."""

    train: Embeddings
    validation: Embeddings
    seed: int
    settings: Mapping[str, Any]
    finished: Finished
    device: str | torch.device | None

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
        return self.finished.artefact(f"seed-{self.seed}/edited", CaptionEditor, self.editor, self.device)

    def editor(self, **changes: Any) -> CaptionEditor:
        """An editor fitted with other options than 'edited'."""
        options = {**self.settings["editor"], **changes, "seed": self.seed, "device": self.device}
        return CaptionEditor.fit(self.sae, self.train, self.validation, **options)

    @cached_property
    def tuned(self) -> CaptionEditor:
        """The row 'text fine-tuning', which two corrections use too."""
        return self.editor(**CHANGES[TUNED])

    def corrected(self, scorer: Scorer, method: CorrectionMethod) -> CorrectedScorer:
        """A scorer less its hubness, as strongly as is best on validation."""
        return CorrectedScorer.fit(scorer, self.train, self.validation, method, self.seed)


SCORERS: dict[Row, Callable[[SeedModels], Scorer]] = {
    EDITED: lambda models: models.edited,
    RANDOM: lambda models: models.edited.control("random", models.seed),
    SHUFFLED: lambda models: models.edited,  # on other images
    EDITED_UNCORRECTED: lambda models: models.edited.uncorrected(),
    EDITED_SHOWN: lambda models: models.edited.shown,
    PLAIN_NNN: lambda models: models.corrected(PlainScorer(pick_device(models.device)), "nnn"),
    PLAIN_SINKHORN: lambda models: models.corrected(PlainScorer(pick_device(models.device)), "sinkhorn"),
    **{row: partial(SeedModels.editor, **changes) for row, changes in CHANGES.items()},
    TUNED: lambda models: models.tuned,
    TUNED_NNN: lambda models: models.corrected(models.tuned, "nnn"),
    TUNED_SINKHORN: lambda models: models.corrected(models.tuned, "sinkhorn"),
}
"""What scores a row, made of what a seed fits; a rival of another kind is one more entry."""


class Finished:
    """What is finished: figures, measures of the autoencoders, and where there is a folder the artefacts.

    Hits by image, which the verdict is made of, are arrays beside the journal.
    """

    def __init__(self, run: Run | None) -> None:
        self.run = run
        self.parts = list(run.parts) if run else []
        self._hits: dict[tuple[str, ...], np.ndarray] = {}

    def add(self, **part: Any) -> None:
        """figure=(test, row, seed) and result; seed and measures; or artefact."""
        self.parts.append(part)
        if self.run is not None:
            self.run.add(part)

    @property
    def figures(self) -> dict[tuple[str, ...], dict[str, Any]]:
        """By test set, row and seed."""
        return {tuple(part["figure"]): part["result"] for part in self.parts if "figure" in part}

    @property
    def measures(self) -> dict[str, dict[str, float]]:
        """Of the autoencoders, by seed."""
        return {part["seed"]: part["measures"] for part in self.parts if "measures" in part}

    def keep_hits(self, figure: tuple[str, ...], hits: np.ndarray) -> None:
        """hits: (N, 2) of the images of the figure's test set; before the figure itself is added."""
        self._hits[figure] = hits
        if self.run is not None:
            data = BytesIO()
            np.save(data, hits)
            replace_file(self._hits_file(self.run, figure), data.getvalue())

    def hits(self, figure: tuple[str, ...]) -> np.ndarray | None:
        """What was kept of a figure that is finished, or None. Raises ArtefactError where its file is torn."""
        if figure in self._hits:
            return self._hits[figure]
        if self.run is None or figure not in self.figures or not (file := self._hits_file(self.run, figure)).is_file():
            return None
        try:
            return self._hits.setdefault(figure, np.load(file))
        except (ValueError, OSError, EOFError) as error:
            raise ArtefactError(f"{file} cannot be read; delete it and run the same again.") from error

    @staticmethod
    def _hits_file(run: Run, figure: tuple[str, ...]) -> Path:
        return run.path / "hits" / f"{sha256(repr(figure).encode()).hexdigest()[:16]}.npy"

    def artefact(self, name: str, kind: Any, fit: Callable[[], Any], device: str | torch.device | None) -> Any:
        """The artefact kept under `name`, or a fitted one, which is kept."""
        if self.run is None:
            return fit()
        if {"artefact": name} in self.parts and (self.run.path / name / MANIFEST).is_file():
            return kind.load(self.run.path / name, device)
        made = fit()
        made.save(self.run.path / name)
        self.add(artefact=name)
        return made
