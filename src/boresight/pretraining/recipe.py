"""The whole of CLIPS in one call: a checkpoint, a source of captioned pictures, and a trained model in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from boresight.encoders.hf import TransformersEncoder
from boresight.errors import InputError
from boresight.pretraining.captioner import FAMILIES, Captioner, CaptionerConfig
from boresight.pretraining.collectives import rank, world_size
from boresight.pretraining.model_folder import from_scratch, save_model
from boresight.pretraining.pretrain import PretrainConfig, Stage, Trained, join_processes, pretrain
from boresight.pretraining.shards import Rows, Shards
from boresight.pretraining.stream import PairStream, StreamConfig
from boresight.pretraining.trainee import Trainee

MODEL, CAPTIONER = "model", "captioner"


@dataclass(frozen=True, kw_only=True)
class CaptionerShape:
    """What of a `CaptionerConfig` the model does not decide."""

    variant: str = "queries"
    width: int = 384
    layers: int = 12
    heads: int = 6
    queries: int = 128


def train_on(
    source: Shards | Rows,
    encoder: TransformersEncoder,
    out: str | Path,
    config: PretrainConfig,
    stream: StreamConfig,
    *,
    captioner: CaptionerShape | None = None,
    scratch: bool = False,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    tensorboard: bool = True,
) -> Trained:
    """Train the encoder's model on `source`: `out`/model is then an ordinary folder, `out`/captioner an artefact.

    The sizes, captions and seed of `stream` are those of `config` and the model. Stopped at any moment, the same call
    goes on from `out`/checkpoint; under torchrun every process calls it.

    Args:
        encoder: a CLIP or SigLIP model in float32; it is left as it is.
        captioner: its shape, for training with one.
        scratch: start from weights drawn anew, keeping only the model's shape and its tokenizer.

    Raises:
        InputError, ArtefactError: as `pretrain`, `PairStream` and `Trainee` do.
    """
    join_processes()
    if encoder.family not in FAMILIES:
        raise InputError(f"{encoder.name} is a '{encoder.family}' model; pass a CLIP or SigLIP checkpoint to train.")
    tokenizer = encoder.tokenizer
    model = from_scratch(encoder.model, config.seed) if scratch else encoder.model
    writer = None
    if captioner is not None:
        shape = CaptionerConfig.fitting(model, tokenizer, **asdict(captioner))
        writer = Captioner(shape, config.seed)
    trainee = Trainee(model, tokenizer, captions=config.captions, captioner=writer)
    stream = replace(
        stream,
        batch_size=config.batch_size // world_size(),
        captions=config.captions,
        output_length=0 if writer is None else stream.output_length,
        seed=config.seed,
    )
    limit = encoder.token_limit

    def batches(stage: Stage, start: int) -> Iterator[Mapping[str, Any]]:
        pixels = stage.image_size or int(model.config.vision_config.image_size)
        sized = replace(stream, image_size=pixels, text_length=min(stage.text_length or limit, limit))
        pairs = PairStream(source, tokenizer, sized, rank=rank(), world=world_size())
        pairs.seek(start)
        return iter(pairs)

    data = {"fingerprint": source.fingerprint, "stream": _of_outcome(stream)}
    trained = pretrain(trainee, batches, config, out, data=data, evaluate=evaluate, tensorboard=tensorboard)
    if rank() == 0:
        made_by = {"settings": asdict(config), "data": data, "from": "scratch" if scratch else encoder.name}
        save_model(Path(out) / MODEL, trained.model, tokenizer, encoder.image_processor, made_by=made_by)
        if trained.captioner is not None:
            trained.captioner.save(Path(out) / CAPTIONER, made_by)
    return trained


def _of_outcome(stream: StreamConfig) -> dict[str, Any]:
    """The settings as json, without those that stages and processes decide."""
    told = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(stream).items()}
    return {name: value for name, value in told.items() if name not in ("batch_size", "image_size", "text_length")}
