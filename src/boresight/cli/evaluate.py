"""boresight evaluate"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Text-to-image and image-to-text retrieval on one split, plain and, given an editor, edited."""

    embeddings: Annotated[Path, tyro.conf.Positional]
    """Folder written by 'boresight embed'."""
    editor: Path | None = None
    """Folder written by 'boresight editor'."""
    split: str = "test"
    out: Path | None = None
    """File for the figures, as json."""

    def run(self) -> None:
        from boresight.editing import CaptionEditor
        from boresight.embeddings import Embeddings
        from boresight.evaluation import evaluate_retrieval
        from boresight.evaluation.results import replace_json

        test = Embeddings.load(self.embeddings).split(self.split)
        results = {"plain": evaluate_retrieval(test)}
        if self.editor is not None:
            results["edited"] = evaluate_retrieval(test, CaptionEditor.load(self.editor))
        for name, result in results.items():
            print(f"{name}, split '{self.split}'\n{result}")
        if self.out is not None:
            figures = {name: result.to_dict() for name, result in results.items()}
            replace_json(self.out, figures)
