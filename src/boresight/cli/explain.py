"""The command `boresight explain`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Explain:
    """Show why an image matches a sentence: a heat map over the image and weights of the words.

    With --csv, a batch: arrays and a figure for every row. After a stop, the same command continues.
    """

    pair: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """IMAGE "CAPTION"; left out with --csv."""
    csv: Path | None = None
    """Table with the columns 'image' (paths, relative to the table's folder) and 'caption'; left out: one pair."""
    out: Path = Path("explanation.png")
    """The figure; with --csv a folder for the arrays and figures."""
    method: str = "m2ib"
    """One of m2ib, bottleneck-path, gradient-x-input, integrated-gradients, grad-cam, chefer, legrad and rollout, which
    need the layers of the model; occlusion, rise and kernelshap, which need only its scores; random and uniform, for
    comparison."""
    encoder: str | None = None
    """Hub name or folder of a CLIP or SigLIP model, 'open_clip:...'; left out: the one that ships with boresight."""
    editor: Path | None = None
    """Folder of a caption editor of that encoder: its score is printed beside the plain one, part by part, and the
    figure shows which concepts it keeps and drops; left out: only the plain score."""
    shown: bool = False
    """Explain the editor's form that shows, which keeps what the caption says and drops the rest, instead of the form
    that scores."""
    names: Path | None = None
    """Folder of names for the editor's latents, written by 'boresight names'; left out: numbers instead of names."""
    remembered: Path | None = None
    """Folder of the embeddings that the editor was fitted on, to show the captions of the pairs it remembers;
    left out: the ids of their images are shown."""
    target: Literal["both", "image", "text"] = "both"
    """What gets weights: the patches of the image, the words, or both."""
    layer: int | None = None
    """Hidden states to work on, for methods that have a layer; left out: the method's own choice."""
    batch_size: int = 8
    """Pairs per batch."""
    seed: int = 0
    """Seed of methods that use random draws."""
    device: str | None = None
    """Device to compute on, such as 'cpu' or 'cuda:1'; left out: the best device of this machine."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """Precision of the model; 'auto' is half precision on a GPU and float32 elsewhere."""
    figures: bool = True
    """With --csv, draw a figure for every row, beside the arrays."""

    def run(self) -> None:
        """Draw, or go on drawing."""
        from boresight.attribution.batch import explain_csv
        from boresight.attribution.explain import explain
        from boresight.attribution.plots import save_figure
        from boresight.cli.sources import open_encoder
        from boresight.editing import CaptionEditor
        from boresight.embeddings import Embeddings
        from boresight.errors import InputError
        from boresight.sae import LatentNames

        if (self.csv is None) != (len(self.pair) == 2) or (self.csv is not None and self.pair):
            raise InputError('Pass an image and a caption in quotes (boresight explain photo.jpg "a dog"), or --csv.')
        editor = None if self.editor is None else CaptionEditor.load(self.editor)
        if self.shown:
            if editor is None:
                raise InputError("--shown is a form of an editor; pass --editor too.")
            editor = editor.shown
        options = {} if self.layer is None else {"layer": self.layer}
        # An editor of another encoder refuses it, so with one nothing is silent.
        of = str(self.csv or self.pair[0]) if editor is None else None
        encoder = open_encoder(self.encoder, device=self.device, dtype=self.dtype, of=of)
        settings: dict[str, Any] = {
            "method": self.method,
            "target": self.target,
            "editor": editor,
            "names": None if self.names is None else LatentNames.load(self.names),
            "batch_size": self.batch_size,
            "seed": self.seed,
            **options,
        }
        if self.csv is not None:
            count = explain_csv(encoder, self.csv, self.out, figures=self.figures, **settings)
            print(f"{count} pairs: {self.out}")
            return
        remembered = None if self.remembered is None else Embeddings.load(self.remembered)
        answer = explain(encoder, *self.pair, remembered=remembered, **settings)
        save_figure(answer.plot(), self.out)
        strongest = sorted(answer.words[0], key=lambda word: -word.weight)[:3] if answer.words else []
        words = ", ".join(f"'{word.text}'" for word in strongest)
        print(f"score {float(answer.score[0]):.3f}{f', strongest words {words}' if words else ''}: {self.out}")
        if answer.concepts:
            names = settings["names"]
            print(f"\n{answer.concepts[0]}\n")
            print("Latents go by their numbers; 'boresight names' names them, for --names." if names is None else names)
