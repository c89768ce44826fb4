"""The whole of CLIPS in one call: a checkpoint, a source of captioned pictures, and a trained model in a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from boresight.encoders.hf import TransformersEncoder
from boresight.encoders.model_files import file_fingerprint
from boresight.encoders.tokens import padded_ids, special_ids
from boresight.errors import InputError
from boresight.storage import check_place, put_back
from boresight.training.captioner import FAMILIES, Captioner, CaptionerConfig
from boresight.training.captioner import KIND as CAPTIONER_KIND
from boresight.training.checkpoints import CAPTIONER, CHECKPOINT, MODEL, check_is_folder
from boresight.training.checkpoints import KIND as CHECKPOINT_KIND
from boresight.training.collectives import gather_objects, join_processes, rank, say_once, world_size
from boresight.training.config import CaptionerShape, PretrainConfig, Stage, StreamConfig
from boresight.training.loop import Trained, pretrain
from boresight.training.model_folder import KIND as MODEL_KIND
from boresight.training.model_folder import from_scratch, save_model
from boresight.training.shards import PairSource, Shards
from boresight.training.stream import PairStream
from boresight.training.trainee import Trainee


class Feed:
    """The batches of a training: one stream, at the sizes of the model, through all stages and stops."""

    def __init__(self, stream: PairStream) -> None:
        self.stream, self._own = stream, stream.config

    def __call__(self, stage: Stage, start: int) -> Iterator[Mapping[str, Any]]:
        """The batches of a stage from batch `start` on, without end."""
        pixels, length = stage.image_size or self._own.image_size, stage.text_length or self._own.text_length
        self.stream.config = replace(self._own, image_size=pixels, text_length=length)
        if self.stream.batches != start:
            self.stream.seek(start)
        yield from self.stream

    def state_dict(self) -> dict[str, Any]:
        """Where the batches stand."""
        return self.stream.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there, if the data are then read by the same processes and loaders."""
        with suppress(InputError):  # else `seek` finds the batch
            self.stream.load_state_dict(state_dict)


def train_on(
    source: PairSource,
    encoder: TransformersEncoder,
    out: str | Path,
    config: PretrainConfig,
    stream: StreamConfig,
    *,
    captioner: CaptionerShape | Captioner | None = None,
    scratch: bool = False,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    tensorboard: bool = True,
) -> Trained:
    """Train the encoder's model on `source`: `out`/model is then an ordinary folder, `out`/captioner an artefact.

    Both are written with every checkpoint, whole or not at all. The sizes, captions, case and seed of `stream` are
    those of `config`, the model and the captioner. Stopped at any moment, the same call goes on from
    `out`/checkpoint; under torchrun every process calls it.

    Args:
        encoder: a CLIP or SigLIP model in float32; it is left as it is.
        captioner: for training with one: its shape, or one that was trained with this model before, to go on with.
        scratch: start from weights drawn anew, keeping only the model's shape and its tokenizer.

    Raises:
        InputError, ArtefactError: as `pretrain`, `PairStream` and `Trainee` do; where `out` holds something else; for
            weights that are not float32, a captioner without room for a word, a stage that the model cannot
            read, and local shards with fewer samples than a batch of several processes has, or than all their workers
            read for one batch each.
    """
    join_processes()
    if encoder.family not in FAMILIES:
        raise InputError(f"{encoder.name} is a '{encoder.family}' model; pass a CLIP or SigLIP checkpoint to train.")
    if rank() == 0:
        check_places(Path(out))
    tokenizer = encoder.tokenizer
    _check_stages(config, encoder)
    if isinstance(source, Shards) and world_size() > 1:
        source.check_batch(config.batch_size, stream.workers)
    model = from_scratch(encoder.model, config.seed) if scratch else encoder.model
    other = next((value.dtype for value in model.parameters() if value.dtype != torch.float32), None)
    if other is not None:
        raise InputError(
            f"The weights of {encoder.name} are {other} and only float32 is trained; load it with dtype='float32', and "
            "let precision='bf16' compute in half precision."
        )
    writer = _captioner(captioner, model, tokenizer, config.seed)
    if writer is not None and source.synthetic is None:
        say_once(
            "There are no synthetic captions, so the captioner learns to write the web captions that it reads; name "
            "long ones with --synthetic."
        )
    trainee = Trainee(model, tokenizer, captions=config.captions, captioner=writer)
    stream = replace(
        stream,
        batch_size=config.batch_size // world_size(),
        image_size=int(model.config.vision_config.image_size),
        text_length=encoder.token_limit,
        captions=config.captions,
        output_length=0 if writer is None else writer.config.queries + 1,
        lower_case=encoder.lower_case,
        seed=config.seed,
    )
    pairs = PairStream(source, tokenizer, stream, rank=rank(), world=world_size())
    data = {
        "web": source.web,
        "synthetic": source.synthetic,
        "stream": stream.of_outcome,
        "fingerprint": source.fingerprint,
    }
    made_by = {"settings": asdict(config), "data": data, "from": "scratch" if scratch else encoder.name}

    def keep(model: Any, captioner: Captioner | None) -> None:
        save_model(Path(out) / MODEL, model, tokenizer, encoder.image_processor, made_by=made_by)
        if captioner is not None:
            captioner.save(Path(out) / CAPTIONER, {**made_by, "model": file_fingerprint(Path(out) / MODEL)})

    try:
        trained = pretrain(
            trainee, Feed(pairs), config, out, data=data, evaluate=evaluate, keep=keep, tensorboard=tensorboard
        )
    except BaseException:
        _tell(pairs.problems)
        raise
    _tell(sum(gather_objects(pairs.problems), Counter()))
    if rank() == 0:
        keep(trained.model, trained.captioner)
    return trained


def check_places(out: Path) -> None:
    """Put back what a kill left in `out`, and raise ArtefactError where what a training writes there has no place."""
    check_is_folder(out)
    for name, kind in ((MODEL, MODEL_KIND), (CAPTIONER, CAPTIONER_KIND), (CHECKPOINT, CHECKPOINT_KIND)):
        put_back(out / name)
        check_place(out / name, kind)


def _captioner(given: CaptionerShape | Captioner | None, model: Any, tokenizer: Any, seed: int) -> Captioner | None:
    """The one given, or a new one of its shape. Raises InputError or ArtefactError for one that does not fit."""
    if given is None:
        return None
    if isinstance(given, Captioner):
        given.check_fits(model, tokenizer)
        captioner = given
    else:
        captioner = Captioner(CaptionerConfig.fitting(model, tokenizer, **asdict(given)), seed)
    if captioner.config.queries + 1 <= sum(map(len, special_ids(tokenizer))):
        raise InputError(
            f"A captioner of {captioner.config.queries} tokens has no room for a word beside the end token; give it "
            "more (--caption-length)."
        )
    return captioner


def _check_stages(config: PretrainConfig, encoder: TransformersEncoder) -> None:
    """Raises InputError for a stage that would stop the training where it begins."""
    patch = int(encoder.model.config.vision_config.patch_size)
    for stage in config.stages:
        if stage.image_size is not None and stage.image_size < patch:
            raise InputError(
                f"A stage of {stage.image_size} pixels is less than a patch of {encoder.name}, {patch} pixels; give "
                "more."
            )
        if stage.text_length is not None and stage.text_length > encoder.token_limit:
            raise InputError(
                f"A stage of {stage.text_length} tokens is more than the {encoder.token_limit} that {encoder.name} "
                "reads; give fewer."
            )
        if stage.text_length is not None:
            padded_ids((), encoder.tokenizer, stage.text_length)


def _tell(problems: Mapping[str, int]) -> None:
    if problems:
        say_once("In all: " + "; ".join(f"{count} x {what}" for what, count in problems.items()) + ".")
