"""The command `boresight pretrain`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from boresight.errors import InputError
from boresight.training.config import CaptionerShape, PretrainConfig, StreamConfig, StreamOptions

if TYPE_CHECKING:
    from boresight.encoders.hf import TransformersEncoder
    from boresight.training.captioner import Captioner
    from boresight.training.shards import PairSource


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Train or fine-tune a CLIP or SigLIP model on web and synthetic captions (CLIPS), with or without a captioner.

    After a stop, the same command continues. On several GPUs or hosts:
    torchrun --nproc-per-node N -m boresight pretrain ...; OUT is then a folder that all hosts share.
    """

    data: Annotated[str, tyro.conf.Positional]
    """Tar shards ('shards/{0000..0099}.tar', local or http), or what 'boresight embed' takes."""
    out: Path
    """Folder for OUT/model (any tool loads it), OUT/captioner, OUT/checkpoint and OUT/logs (TensorBoard)."""
    model: str | None = None
    """Hub name or folder of a CLIP or SigLIP model; left out: the one that ships with boresight."""
    scratch: bool = False
    """Keep only the model's shape and tokenizer, and start from new random weights."""
    web: str | None = None
    """Web captions: a column (captions), or in shards a member or json key (txt); left out: those in brackets."""
    synthetic: str | None = None
    """Long synthetic captions, named in the same way; a missing one is replaced by the web caption. Left out: none."""
    split: str | None = None
    """Split of a collection to train on; left out: 'train'."""
    validation: Annotated[str | None, tyro.conf.arg(metavar="STR")] = "auto"
    """Split of a collection to measure retrieval on during training, at most 5,000 pictures; 'auto' is 'validation' if
    there is one, 'None' measures nothing."""
    captioner: Literal["none", "queries"] = "none"
    """Train a captioner too: 'queries', as published."""
    captioner_from: Path | None = None
    """Folder of a captioner to train further; --model must be the one beside it. Left out: a new one, if --captioner
    asks for one."""
    captioner_size: tuple[int, int, int] | None = None
    """Its width, layers and heads; left out: 384 12 6."""
    caption_length: int | None = None
    """Tokens of the captions it writes; left out: 128."""
    tensorboard: bool = True
    """Write OUT/logs."""
    training: Annotated[PretrainConfig, tyro.conf.arg(name="")] = field(default_factory=PretrainConfig)
    stream: Annotated[StreamOptions, tyro.conf.arg(name="")] = field(default_factory=partial(StreamOptions, workers=2))

    def run(self) -> None:
        """Train, and say where the model is and what it came to."""
        try:
            from boresight.training.recipe import check_places, train_on
        except ImportError as error:
            raise InputError(f"Training needs the extra 'train' ({error}); pip install 'boresight[train]'.") from error
        from boresight.cli.sources import open_encoder
        from boresight.encoders.hf import TransformersEncoder
        from boresight.training.checkpoints import CAPTIONER, MODEL
        from boresight.training.collectives import join_processes, rank
        from boresight.training.model_folder import pixel_statistics

        self._check_options()
        join_processes()
        for given, written in ((self.model, self.out / MODEL), (self.captioner_from, self.out / CAPTIONER)):
            if given is not None and Path(given).resolve() == written.resolve():
                raise InputError(f"{given} is what this training would write over; choose another --out.")
        encoder = open_encoder(self.model, device="cpu", dtype="float32", of=self.data, option="--model")
        if not isinstance(encoder, TransformersEncoder):
            raise InputError(f"{self.model} is no transformers model; pass a Hugging Face CLIP or SigLIP checkpoint.")
        if rank() == 0:
            check_places(self.out)
        captioner = self._captioner()
        stream = StreamConfig(**vars(self.stream), **pixel_statistics(encoder.image_processor))
        source, evaluate = self._source(encoder)
        trained = train_on(
            source,
            encoder,
            self.out,
            self.training,
            stream,
            captioner=captioner,
            scratch=self.scratch,
            evaluate=evaluate,
            tensorboard=self.tensorboard,
        )
        if rank() == 0:
            outcome = f"loss {trained.loss:.4f}, {trained.images_per_second:.1f} images/s"
            print(f"{'finished already' if math.isnan(trained.loss) else outcome}: {self.out / MODEL}")

    def _check_options(self) -> None:
        """Raises InputError for an option that nothing reads."""
        alone = self.captioner == "none" and self.captioner_from is None
        without = "without a captioner; leave it out or add --captioner"
        strategy, defaults = self.stream.strategy, StreamOptions()
        so_kept = f"with --strategy {strategy}; leave out one of the two"
        weighed = self.training.captioning_weight != PretrainConfig().captioning_weight
        counted = self.stream.n_sentences != defaults.n_sentences
        unread = (
            ("--captioner-size", alone and self.captioner_size is not None, without),
            ("--caption-length", alone and self.caption_length is not None, without),
            ("--captioning-weight", alone and weighed, without),
            ("--budget", strategy == "none" and self.stream.budget != defaults.budget, so_kept),
            ("--n-sentences", strategy != "sub-caption" and counted, so_kept),
        )
        for option, given, why in unread:
            if given:
                raise InputError(f"{option} changes nothing {why}.")

    def _source(self, encoder: TransformersEncoder) -> tuple[PairSource, Callable[[Any], dict[str, float]] | None]:
        """What is trained on and, on the first process, what measures retrieval as it goes on."""
        from boresight.cli.sources import open_collection
        from boresight.evaluation.watch import retrieval_watch
        from boresight.progress import say
        from boresight.training.collectives import rank
        from boresight.training.shards import open_rows, open_shards

        if "://" in self.data or (".tar" in self.data and not Path(self.data).expanduser().is_dir()):
            if self.split is not None or self.validation not in ("auto", None):
                raise InputError(
                    "Shards have no splits; name those to train on, leave out --split and --validation, and evaluate "
                    "what comes out with 'boresight evaluate'."
                )
            return open_shards(self.data, self.web or "txt", self.synthetic), None
        collection = open_collection(self.data)
        named = self.validation
        if named == "auto":
            named = "validation" if "validation" in collection.splits else None
        watched = None if named is None else collection.split(named)
        trained = self.split or "train"
        if named == trained and rank() == 0:
            say(
                f"The split '{named}' is trained on and measured too, so retrieval as training goes on tells what was "
                "learnt by heart; name another --split or --validation."
            )
        source = open_rows(collection.split(trained), self.web or "captions", self.synthetic)
        return source, None if watched is None or rank() else retrieval_watch(
            watched, encoder, workers=self.stream.workers
        )

    def _captioner(self) -> CaptionerShape | Captioner | None:
        from boresight.training.captioner import Captioner

        shape: dict[str, Any] = {}
        if self.captioner_size is not None:
            shape |= dict(zip(("width", "layers", "heads"), self.captioner_size, strict=True))
        if self.caption_length is not None:
            shape["queries"] = self.caption_length
        if self.captioner_from is None:
            return None if self.captioner == "none" else CaptionerShape(**shape)
        captioner = Captioner.load(self.captioner_from)
        for what, value in shape.items():
            if (own := getattr(captioner.config, what)) != value:
                raise InputError(
                    f"The captioner in {self.captioner_from} has {what} {own}, not {value}; "
                    "leave out --captioner-size and --caption-length beside --captioner-from."
                )
        return captioner
