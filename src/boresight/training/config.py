"""The settings of a training, each in one place: what is trained, on what, with which captioner.

`boresight pretrain` reads its options from these classes and their docstrings.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, get_args

import tyro

from boresight.errors import InputError, require_at_least, require_choice

Captions = Literal["both", "web", "synthetic"]
Loss = Literal["softmax", "multi-positive", "sigmoid"]
Strategy = Literal["none", "truncate", "random", "block", "sub-caption"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stretch of a training at one resolution: train short, finish full (CLIPA)."""

    until: float = 1.0
    """Share of all steps at which it ends; 1 for the last."""
    image_size: int | None = None
    """Pixels of a side; None is the model's own."""
    text_length: int | None = None
    """Tokens of a caption with its special ones; None is the model's own."""

    def __post_init__(self) -> None:
        for what, size in (("pixels", self.image_size), ("tokens", self.text_length)):
            if size is not None and size < 1:
                raise InputError(f"A stage of {size} {what} shows nothing; give 1 or more.")

    @classmethod
    def parse(cls, text: str) -> Stage:
        """A stage from 'share of steps:pixels:tokens'. Raises InputError for anything else."""
        try:
            share, pixels, tokens = text.split(":")
            until, image_size, text_length = float(share), int(pixels), int(tokens)
        except ValueError as error:
            quoted = "" if ":" in text else ", in quotes in a yaml file"
            raise InputError(
                f"The stage '{text}' is not 'share:pixels:tokens', such as 0.9:112:32; mend it{quoted}."
            ) from error
        return cls(until=until, image_size=image_size, text_length=text_length)


_AS_TEXT = tyro.constructors.PrimitiveConstructorSpec[Any](
    nargs=1,
    metavar="SHARE:PIXELS:TOKENS",
    instance_from_str=lambda words: words[0],  # parsed by the configuration, whose errors are one sentence
    is_instance=lambda stage: isinstance(stage, (Stage, str)),
    str_from_instance=lambda stage: [str(stage)],
)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Settings of a training; with the data and the weights at its start they decide its outcome.

    `micro_batch`, `loss_chunk`, `gradient_checkpointing`, `shard` and `every` decide no more than the rounding, so a
    training may go on with others.

    Raises InputError for a setting that makes no sense.

    Example:
        >>> PretrainConfig(steps=500, batch_size=128, learning_rate=1e-5, stages=("0.9:112:32", "1:224:77"))
    """

    steps: int = 1000
    """Batches to train on."""
    batch_size: int = 256
    """Images per step, over all processes together."""
    micro_batch: int | None = None
    """Images at once in a process; the gradient stays that of the whole batch. Left out: the whole batch."""
    loss_chunk: int | None = None
    """Columns of the score matrix at once; left out: all."""
    captions: Captions = "both"
    """Captions that images are contrasted with."""
    loss: Loss = "softmax"
    """A softmax each for web and synthetic captions (CLIPS); one for all captions of an image; or SigLIP's, pair by
    pair."""
    equal_negatives: bool = False
    """Count a caption against a picture that has, word for word, the same one, as the published losses do; else such
    pairs count neither for nor against."""
    captioning_weight: float = 2.0
    """Weight of the captioner's loss; the contrastive loss has weight 1."""
    learning_rate: float = 5e-4
    """Learning rate of AdamW after a linear warm-up; then it falls to zero as a cosine."""
    warmup: int = 100
    """Steps over which the learning rate rises."""
    weight_decay: float = 0.2
    """Weight decay of AdamW, for matrices."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Betas of AdamW."""
    gradient_norm: float = 1.0
    """Largest norm of the gradient; longer gradients are scaled down to it."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each layer to the one below."""
    lock: tuple[Literal["image", "text"], ...] = ()
    """Towers that are not trained; left out: both are trained."""
    precision: Literal["no", "bf16"] = "no"
    """'bf16' computes under autocast; weights stay float32."""
    gradient_checkpointing: bool = False
    """Compute activations of towers and captioner again in the backward pass, to save memory."""
    average: float = 0.0
    """Decay of a moving average of the weights, which is then saved; 0 for none."""
    stages: Annotated[
        tuple[Annotated[Stage, _AS_TEXT], ...], tyro.conf.arg(help_behavior_hint="(default: no stages)")
    ] = (Stage(),)
    """Train short, finish full: 'share of steps:pixels:tokens', such as 0.9:112:32 1:224:77."""
    shard: bool = False
    """Spread weights, gradients and moments over processes (FSDP2)."""
    every: int = 100
    """Steps between checkpoints, evaluations and lines of the log."""
    seed: int = 0
    """Seed of all random draws: order, crops, captions, new weights."""

    def __post_init__(self) -> None:
        stages = tuple(Stage.parse(stage) if isinstance(stage, str) else stage for stage in self.stages)
        object.__setattr__(self, "stages", stages)
        if self.steps < 1 or self.batch_size < 2 or self.every < 1:
            raise InputError(
                f"{self.steps} steps of {self.batch_size} images, saved every {self.every}, train nothing; ask for "
                "1 step, 2 images and 1 or more."
            )
        ends = [stage.until for stage in stages]
        if not ends or ends[-1] != 1 or sorted(set(ends)) != ends or ends[0] <= 0:
            raise InputError(f"Stages end at {ends}; their ends must rise from above 0 to 1.")
        if self.average and not 0 < self.average < 1:
            raise InputError(f"The average's decay is {self.average}; give a number between 0 and 1, such as 0.999.")
        for name in ("learning_rate", "gradient_norm"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}={getattr(self, name)} learns nothing; give a number above 0.")
        for name in ("weight_decay", "warmup", "captioning_weight"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}={getattr(self, name)} makes no sense; give 0 or more.")
        for name in ("micro_batch", "loss_chunk"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} is too small; give 1 or more, or leave it out for all.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas={self.betas} are no decays of AdamW; give two numbers from 0 to below 1.")
        if not 0 < self.layer_decay <= 1:
            raise InputError(f"layer_decay={self.layer_decay} is no share of a rate; give a number above 0, at most 1.")

    @property
    def of_outcome(self) -> dict[str, Any]:
        """The settings that a training must keep to go on, as json gives them back."""
        return _as_json(self, without=("micro_batch", "loss_chunk", "gradient_checkpointing", "shard", "every"))

    @property
    def ends(self) -> list[int]:
        """The number of steps after which each stage ends."""
        return [round(stage.until * self.steps) for stage in self.stages]


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """What of a `StreamConfig` is a matter of choice, and not the model's or the training's."""

    strategy: Strategy = "sub-caption"
    """What is kept of a long synthetic caption."""
    budget: int = 32
    """Number of tokens that are kept."""
    n_sentences: int = 1
    """Number of sentences in a sub-caption."""
    minimum_area: float = 0.4
    """Smallest share of a picture that a random crop keeps."""
    flip: bool = True
    """Mirror half of the pictures; use --no-flip if captions say left and right."""
    jitter: float = 0.0
    """Change of brightness, contrast and colour."""
    grey: float = 0.0
    """Share of the pictures that are turned grey."""
    workers: int = 0
    """Loader processes; 0 reads in the training process."""


@dataclass(frozen=True, kw_only=True)
class StreamConfig(StreamOptions):
    """What a batch is made of; the seed decides every draw. Raises InputError for a setting that makes no sense.

    Example:
        >>> StreamConfig(strategy="block", budget=16, **pixel_statistics(encoder.image_processor))
    """

    batch_size: int = 128
    """Pictures in the batch of one rank."""
    image_size: int = 96
    """Pixels of each side."""
    text_length: int = 77
    """Tokens of the captions for the text tower."""
    captions: Captions = "both"
    """Which of them the text tower is to read."""
    output_length: int = 128
    """Tokens of the captioner's target; 0 without a captioner."""
    fill: bool = False
    """Take sentences for a sub-caption until the budget is full."""
    lower_case: bool = False
    """Of what the text tower reads; the captioner's target keeps its capitals."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Of the model's pixels, a channel."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    buffer: int = 1000
    """Samples that a loader worker holds, undecoded, to shuffle those of a shard."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "image_size", "buffer", "budget", "n_sentences"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} is too small; pass 1 or more.")
        require_choice("strategy", self.strategy, get_args(Strategy))
        if self.workers < 0:
            raise InputError(f"workers={self.workers} is no number of processes; pass 0 or more.")
        if not 0 < self.minimum_area <= 1:
            raise InputError(f"minimum_area={self.minimum_area} is no share of a picture; pass one in (0, 1].")
        if not 0 <= self.jitter < 1:
            raise InputError(f"jitter={self.jitter} must be at least 0 and below 1.")
        if not 0 <= self.grey <= 1:
            raise InputError(f"grey={self.grey} is no share of the pictures; pass one from 0 to 1.")

    @property
    def of_outcome(self) -> dict[str, Any]:
        """The settings as json gives them back, without those that stages and processes decide."""
        return _as_json(self, without=("batch_size", "image_size", "text_length", "workers"))


@dataclass(frozen=True, kw_only=True)
class CaptionerShape:
    """What of a captioner the model does not decide; the defaults are those of the published S size.

    Raises InputError for a setting that makes no sense.
    """

    width: int = 384
    layers: int = 12
    heads: int = 6
    queries: int = 128
    """N, the longest caption in tokens, its end token included."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if type(value) is int:
                require_at_least(name, value, 1)
        if self.width % self.heads:
            raise InputError(f"width {self.width} is no multiple of heads {self.heads}; choose another of the two.")


def _as_json(config: Any, without: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in json.loads(json.dumps(asdict(config))).items() if name not in without}
