"""`boresight evaluate`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from boresight.benchmarks.job import BenchmarkJob

_OF_EMBEDDINGS = ("what", "editor", "bank", "split", "out", "device")


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Run a benchmark, or retrieval on embeddings; plain and, with an editor, edited.

    In retrieval, an editor is compared with plain scores less their hubness, and a verdict says whether the edit helps
    ('boresight compare' trains the other alternatives too).

    Benchmarks: coco-karpathy-5k, coco-karpathy-1k, coco-val2017, eccv-caption, flickr30k-1k, flickr30k-val,
    flickr30k-all, docci, iiw, iiw-400, iiw-dci, iiw-docci, urban1k, sharegpt4v-1k, sharegpt4v-10k (docci and iiw also
    with -sentences); rococo-danger, rococo-diff-concept, rococo-same-concept, rococo-rand-voca, rococo-mix,
    rococo-patch; sugarcrepe, sugarcrepe-pp, winoground, aro-vg-relation, aro-vg-attribution, aro-coco-order,
    aro-flickr-order; zero-shot (a folder for each class). On any collection: retrieval, swaps, mixes, composition,
    alignment.
    """

    what: Annotated[str, tyro.conf.Positional]
    """Name of a benchmark, or a folder written by 'boresight embed'."""
    data: str | None = None
    """Folder of the benchmark's published files; for retrieval, swaps, mixes, composition and alignment any collection
    that 'boresight embed' takes. It is left out if embeddings are evaluated."""
    model: str | None = None
    """Hub name or folder of a model, 'open_clip:...'; left out: the one that ships with boresight."""
    editor: Path | None = None
    """Folder written by 'boresight editor'; left out: only plain figures."""
    bank: Path | None = None
    """Retrieval with an editor: folder of embeddings with the split 'validation', to choose how much hubness is
    subtracted from plain scores, and 'train', for an editor without a memory. Left out: the editor's memory is used."""
    images: Path | None = None
    """Folder of the pictures; left out: where the benchmark's files say."""
    split: str = "test"
    """Split of the embeddings or the collection; 'all' is every image."""
    long_text: Literal["truncate", "windows"] = "truncate"
    """Captions longer than the model reads: cut, or read in windows whose embeddings are averaged."""
    classes: Path | None = None
    """Zero-shot: a file with the names of the classes, one per line, in the order of their folders; left out: the
    folders' names."""
    templates: Path | None = None
    """Zero-shot: a file with sentences, one per line, {} or {c} in place of the name; left out: seven default
    sentences."""
    labels: tuple[str, ...] = ()
    """Alignment: columns of the collection, the object first, with keys of JSON after dots (class attributes.colour);
    left out: none."""
    out: Path | None = None
    """For a benchmark: folder for its figures and embeddings, for 'boresight report'; left out: runs/NAME. For
    embeddings: json file for the figures; left out: they are only printed."""
    device: str | None = None
    """Device for the model and for plain scores, such as 'cpu' or 'cuda:1'; left out: the best device of this machine.
    An editor scores on the CPU."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the model; 'auto' is half precision on a GPU and float32 elsewhere."""
    workers: int = 2
    """Threads that read pictures."""
    seed: int = 0
    """Seed of all random draws."""

    def run(self) -> None:
        """Print the figures, and keep them."""
        from boresight.benchmarks.registry import BENCHMARKS, OPTIONS, require_options, run_benchmark
        from boresight.errors import InputError, one_of

        if self.bank is not None and self.editor is None:
            raise InputError("--bank is for what could be done instead of an edit; pass --editor too, or leave it out.")
        if self.what in BENCHMARKS:
            options = {option: getattr(self, option) for option in OPTIONS}
            require_options(self.what, options)
            job = self._job(BENCHMARKS[self.what].any_collection, options)
            print(run_benchmark(self.what, job))
            print(job.out)
        elif Path(self.what).exists():
            self._on_embeddings()
        else:
            raise InputError(
                f"'{self.what}' is neither a folder of embeddings nor a benchmark; {one_of(self.what, BENCHMARKS)}."
            )

    def _job(self, any_collection: bool, options: dict[str, Any]) -> BenchmarkJob:
        from boresight.benchmarks.job import BenchmarkJob
        from boresight.cli.sources import open_collection, open_encoder
        from boresight.editing import CaptionEditor
        from boresight.embeddings import Embeddings
        from boresight.errors import InputError

        if self.data is None:
            raise InputError(f"{self.what} needs --data: {'a collection' if any_collection else 'its folder'}.")
        data: Any = Path(self.data)
        if any_collection:
            data = open_collection(self.data, images=self.images).split(self.split)
        elif self.split != "test":
            raise InputError(f"{self.what} has one split, the published one; leave --split out.")
        elif not data.is_dir():
            raise InputError(f"There is no folder {data}; pass the one that holds the files of {self.what}.")
        out = self.out or Path("runs") / self.what
        return BenchmarkJob(
            encoder=open_encoder(self.model, device=self.device, dtype=self.dtype, of=self.data, option="--model"),
            data=data,
            out=out,
            editor=None if self.editor is None else CaptionEditor.load(self.editor),
            device=self.device,
            workers=self.workers,
            **{**options, "bank": None if self.bank is None else Embeddings.load(self.bank)},
        )

    def _on_embeddings(self) -> None:
        from boresight.cli.sources import shipped_warning
        from boresight.editing import CaptionEditor
        from boresight.embeddings import Embeddings
        from boresight.errors import InputError
        from boresight.evaluation import evaluate_editor, evaluate_retrieval
        from boresight.storage import replace_json

        for each in fields(self):
            if each.name not in _OF_EMBEDDINGS and getattr(self, each.name) != each.default:
                option = each.name.replace("_", "-")
                raise InputError(f"{self.what} is a folder of embeddings, which takes no --{option}; leave it out.")
        embeddings, verdict = Embeddings.load(self.what), None
        if len(embeddings.owners) == 0:
            raise InputError(f"{self.what} has pictures without captions, and retrieval asks with captions.")
        bank = None if self.bank is None else Embeddings.load(self.bank)
        if self.editor is None:
            results = {"plain": evaluate_retrieval(embeddings.split(self.split), device=self.device)}
        else:
            editor = CaptionEditor.load(self.editor)
            results, verdict = evaluate_editor(embeddings, editor, self.split, bank=bank, device=self.device)
        for name, result in results.items():
            print(f"{name}, split '{self.split}'\n{result}")
        if warning := shipped_warning(embeddings, self.split):
            print(f"\nWarning: {warning}")
        figures: dict[str, Any] = {name: result.to_dict() for name, result in results.items()}
        if missing := embeddings.split(self.split).left_out:
            figures["left out"] = missing
        if verdict is not None:
            print(f"\n{verdict}")
            figures["verdict"] = asdict(verdict)
        if self.out is not None:
            replace_json(self.out, figures)
