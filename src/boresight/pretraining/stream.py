"""An endless, seeded stream of training batches that resumes at the very next one.

The order. The units of a source (shards, or rows of a collection) are shuffled anew for each pass, and the passes laid
end to end make one chain. Every loader worker of every rank is a reader, and reader c of C takes the chain's places c,
c + C, c + 2C, ... So each pass shows each sample once over all readers, and no reader ever runs out. Within shards,
a reader fills a buffer, shuffles it, empties it and fills it again.

A batch takes the next B samples of its reader. Where one of them cannot be used, or is in the batch already, the next
one that can stands in for it, without losing its own turn: so the order is a function of seed, reader and number of
the batch, and no corrupt picture shifts it.

The place of a reader is three numbers: where its buffer began (place in the chain, samples into the shard) and how
many it has given from it. With it, resuming costs one buffer and the way to it in its shard, whatever the length of
the training. From the number of batches alone, a reader counts the samples of the shards it had before, each once, by
their headers (one or two seconds for 10,000 samples in a file); those at an address are downloaded for it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Generator, Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from boresight.collections import Problem
from boresight.collections.pictures import decode
from boresight.errors import InputError
from boresight.pretraining.shards import TRUNCATED, Rows, Sample, Shards
from boresight.pretraining.subcaptions import Captions, Strategy, content_ids, encode, reduce
from boresight.progress import say
from boresight.seeds import generator

CORRUPT = "corrupt image skipped"
NO_WEB = "no web caption, the synthetic one stands in"
NO_SYNTHETIC = "no synthetic caption, the web caption stands in"
_NAMED = 10  # problems of one kind that are printed; all are counted
_FRUITLESS = 100_000  # samples in a row of which none can be used, before it is an error
Place = tuple[int, int, int]
_Example = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """What a batch is made of; the seed decides every draw.

    Attributes:
        batch_size: pictures in the batch of one rank.
        image_size: pixels of each side.
        text_length: tokens of the captions for the text tower.
        captions: which of them the text tower is to read.
        output_length: tokens of the captioner's target; 0 without a captioner.
        strategy, budget, n_sentences, fill: how the synthetic caption is reduced, `boresight.pretraining.subcaptions`.
        minimum_area: least share of the picture that a crop keeps; 1 keeps the whole picture.
        flip: mirror every other picture. Turn it off where captions say left and right.
        jitter: brightness, contrast and colour change by a factor from 1 - jitter to 1 + jitter.
        mean, std: of the model's pixels, in [0, 1].
        buffer: samples that a loader worker holds, undecoded, to shuffle those of a shard.
        workers: loader processes; 0 reads in the training process.
    """

    batch_size: int = 128
    image_size: int = 96
    text_length: int = 77
    captions: Captions = "both"
    output_length: int = 128
    strategy: Strategy = "sub-caption"
    budget: int = 32
    n_sentences: int = 1
    fill: bool = False
    minimum_area: float = 0.4
    flip: bool = True
    jitter: float = 0.0
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    buffer: int = 1000
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "image_size", "buffer"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} is too small; pass 1 or more.")
        if not 0 < self.minimum_area <= 1:
            raise InputError(f"minimum_area={self.minimum_area} is no share of a picture; pass one in (0, 1].")
        if not 0 <= self.jitter < 1:
            raise InputError(f"jitter={self.jitter} must be at least 0 and below 1.")


class PairStream:
    """Batches of pictures, web captions and reduced synthetic captions, without end.

    No rank runs out, so all of them can take as many batches as each other. Iterating goes on where the last iteration
    stopped: only a batch that was handed out counts, whatever the loader workers have read ahead. A batch is a dict of

        pixel_values  (B, 3, S, S) float32, augmented and normalised
        web_ids       (B, text_length) int64, for the captioner too
        syn_ids       (B, text_length) int64, of the reduced synthetic caption
        syn_full_ids  (B, output_length) int64, of the whole synthetic caption, for the captioner
        keys          list of B strings, all different

    of which those are left out that `captions` and `output_length` do not ask for.

    Where a sample has no synthetic caption its web caption stands in, and the other way round. Crops and captions are
    drawn from (seed, pass, key), so they do not depend on the number of processes; the order of samples does.

    Attributes:
        problems: how often each kind of trouble was met since this object was made.
    """

    def __init__(
        self,
        source: Shards | Rows,
        tokenizer: Any,
        config: StreamConfig,
        *,
        output_tokenizer: Any = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """`output_tokenizer` writes `syn_full_ids` where the captioner has its own.

        Raises InputError when a batch over all ranks needs more pictures than a collection has.
        """
        if not 0 <= rank < world:
            raise InputError(f"rank={rank} is none of {world}; pass one from 0 to {world - 1}.")
        if not source.streamed and config.batch_size * world > len(source):
            shared = f" on each of {world} ranks" if world > 1 else ""
            raise InputError(
                f"A batch of {config.batch_size}{shared} is more than the {len(source)} captioned images of "
                f"{source.name}; lower batch_size."
            )
        self.source, self.config = source, config
        self.problems: Counter[str] = Counter()
        self._tokenizers = (tokenizer, output_tokenizer or tokenizer)
        self._rank, self._world = rank, world
        self._batches = 0
        self._places: list[Place | None] = [None] * max(1, config.workers)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Raises InputError when a shard cannot be opened or there are fewer usable samples than a batch needs."""
        loader = DataLoader(
            _Readers(self),
            batch_size=None,
            num_workers=self.config.workers,
            collate_fn=_unchanged,
            generator=generator(self.config.seed, "loader"),  # else it would draw from the global state
        )
        for delivery in loader:
            self._report(delivery.problems)
            if delivery.error:
                raise InputError(delivery.error)
            self._places[delivery.worker] = delivery.place
            self._batches += 1
            yield delivery.batch

    def seek(self, batches: int) -> None:
        """Go on behind so many batches from the very start; shards are counted for it, so a saved state is faster."""
        self._batches, self._places = batches, [None] * len(self._places)

    def state_dict(self) -> dict[str, Any]:
        """Where this rank stands, in json's types; the places are this rank's own, so every rank saves its state."""
        return {"batches": self._batches, "places": list(self._places), "of": self._origin()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind the last batch handed out when `state` was taken.

        Raises InputError when it was taken of other data, ranks or workers, or with another seed, batch or buffer.
        """
        for what, value in self._origin().items():
            saved = state.get("of", {}).get(what)
            if saved != value:
                raise InputError(
                    f"The state of the data was saved with {what}={saved} and here it is {value}; "
                    "set it as it was, or start the data anew."
                )
        self._batches = int(state["batches"])
        self._places = [place and (place[0], place[1], place[2]) for place in state["places"]]

    def _origin(self) -> dict[str, Any]:
        config = self.config
        buffer = config.buffer if self.source.streamed else 1
        return {
            "data": self.source.fingerprint,
            "seed": config.seed,
            "batch_size": config.batch_size,
            "buffer": buffer,
            "workers": len(self._places),
            "world": self._world,
            "rank": self._rank,
        }

    def _report(self, problems: list[Problem]) -> None:
        for problem in problems:
            self.problems[problem.what] += 1
            if self.problems[problem.what] <= _NAMED:
                say(f"{problem.what}: {problem.where}")
                if self.problems[problem.what] == _NAMED:
                    say(f"{problem.what}: from here on only counted")


@dataclass(frozen=True)
class _Delivery:
    """What a loader worker hands over: a batch and the place behind it, or an error in one sentence."""

    worker: int
    problems: list[Problem]
    batch: dict[str, Any] = field(default_factory=dict)
    place: Place = (0, 0, 0)
    error: str = ""


def _unchanged(delivery: Any) -> Any:
    return delivery


class _Readers(IterableDataset):
    """The readers of one rank. The loader asks its workers in turn, from the first on; so after a resume each worker
    process takes the reader whose turn it is.
    """

    def __init__(self, stream: PairStream) -> None:
        self.source, self.config, self.tokenizers = stream.source, stream.config, stream._tokenizers
        self.places, self.done = list(stream._places), stream._batches
        self.rank, self.world = stream._rank, stream._world

    def __iter__(self) -> Iterator[_Delivery]:
        info = get_worker_info()
        worker = ((info.id if info else 0) + self.done) % len(self.places)
        try:
            yield from self._deliveries(worker)
        except InputError as error:
            yield _Delivery(worker, [], error=str(error))

    def _deliveries(self, worker: int) -> Iterator[_Delivery]:
        config, workers = self.config, len(self.places)
        chain = _Chain(self.source, config, worker * self.world + self.rank, workers * self.world)
        earlier = (self.done + workers - 1 - worker) // workers  # batches of this worker
        slots = chain.slots(self.places[worker] or chain.seek(earlier * config.batch_size))
        queue: list[_Slot] = []
        while True:
            rows: dict[str, _Example] = {}
            problems: list[Problem] = []
            looked = 0
            while len(rows) < config.batch_size:
                if looked == len(queue):
                    queue.append(next(slots))
                slot = queue[looked]
                looked += 1
                if slot.place[0] - queue[0].place[0] > chain.patience or (not rows and looked > _FRUITLESS):
                    raise InputError(self._too_few(len(rows), queue))
                sample = slot.item
                if isinstance(sample, Problem):
                    if looked <= config.batch_size:  # those ahead are told of at their turn
                        problems.append(sample)
                elif sample.key not in rows:
                    try:
                        rows[sample.key] = _example(sample, slot.epoch, self.tokenizers, config)
                    except InputError as error:
                        looked -= 1  # to be met again as what it is
                        queue[looked] = slot._replace(item=Problem(CORRUPT, str(error)))
                        continue
                    if not sample.web and "web_ids" in rows[sample.key]:
                        problems.append(Problem(NO_WEB, sample.key))
                    if not sample.synthetic and self.source.synthetic is not None:
                        problems.append(Problem(NO_SYNTHETIC, sample.key))
            problems += chain.problems
            chain.problems.clear()
            yield _Delivery(worker, problems, _collate(rows), queue[config.batch_size - 1].place)
            del queue[: config.batch_size]

    def _too_few(self, found: int, queue: list[_Slot]) -> str:
        wrong = Counter(slot.item.what for slot in queue if isinstance(slot.item, Problem))
        kinds = ", ".join(f"{count} x {what}" for what, count in wrong.items())
        return (
            f"A batch of {self.config.batch_size} needs more than the {found} usable samples found in "
            f"{self.source.name}{f' ({kinds})' if kinds else ''}; lower batch_size or check the captions' names."
        )


class _Slot(NamedTuple):
    """One sample in the order of a reader, or what was wrong with it; its pass; the reader's place behind it."""

    item: Sample | Problem
    epoch: int
    place: Place


class _Chain:
    """What one reader reads: its places on the passes over all units, each in its own order, laid end to end.

    With fewer shards than readers, a unit is a part of a shard, so that no two readers have the same samples.

    Attributes:
        patience: so many places of the chain without a full batch mean that there is none: after them, a reader has
            met a given unit but for a chance of 1 to 20,000.
        problems: with whole shards.
    """

    def __init__(self, source: Shards | Rows, config: StreamConfig, reader: int, readers: int) -> None:
        self.source, self.seed, self.reader, self.readers = source, config.seed, reader, readers
        self.size = config.buffer if source.streamed else 1
        self.parts = math.ceil(readers / len(source)) if source.streamed else 1
        self.length = len(source) * self.parts
        self.patience = 10 * readers * self.length
        self.problems: list[Problem] = []
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    def slots(self, place: Place) -> Iterator[_Slot]:
        """All samples from `place` on. Raises InputError when there are none."""
        chain, into, given = place
        empty_since = chain
        while True:
            buffer, end = self._fill(chain, into)
            order = torch.randperm(len(buffer), generator=generator(self.seed, f"buffer {chain} {into}")).tolist()
            for count, number in enumerate(order[given:], given + 1):
                item, epoch = buffer[number]
                yield _Slot(item, epoch, (chain, into, count))
            empty_since = end[0] if buffer else empty_since
            self._check(end[0] - empty_since)
            (chain, into), given = end, 0

    def seek(self, samples: int) -> Place:
        """The place behind the first `samples`, by the count of each unit. Raises InputError like `slots`."""
        if not self.source.streamed or not samples:
            return self.reader + samples * self.readers, 0, 0
        counts: dict[int, int] = {}
        chain, into = self.reader, 0
        while True:
            start, got = (chain, into), 0
            while got < self.size and chain - start[0] < self.length:
                unit, part = self._unit(chain)
                if unit not in counts:
                    counts[unit] = self.source.count(unit)
                left = (counts[unit] - part + self.parts - 1) // self.parts - into
                if left > self.size - got or (left == self.size - got and left):
                    into, got = into + self.size - got, self.size
                else:
                    chain, into, got = chain + self.readers, 0, got + max(left, 0)
            if samples < got:
                return *start, samples
            if not any(counts.values()):
                self._check(chain)
            samples -= got

    def _check(self, empty: int) -> None:
        if empty > self.patience:
            raise InputError(f"There are no samples in {self.source.name}; check that it is the right data.")

    def _fill(self, chain: int, into: int) -> tuple[list[tuple[Sample | Problem, int]], tuple[int, int]]:
        """The next samples with their pass, as many as the buffer holds or one pass has, and where to go on."""
        buffer: list[tuple[Sample | Problem, int]] = []
        start = chain
        while len(buffer) < self.size and chain - start < self.length:
            unit, part = self._unit(chain)
            for item in self.source.read(unit, part, self.parts, into):
                if isinstance(item, Problem) and item.what == TRUNCATED:
                    self.problems.append(item)
                    continue
                into += 1
                buffer.append((item, chain // self.length))
                if len(buffer) == self.size:
                    break
            else:
                chain, into = chain + self.readers, 0
        return buffer, (chain, into)

    def _unit(self, chain: int) -> tuple[int, int]:
        """The shard or row at a place of the chain, and the part of it."""
        epoch, within = divmod(chain, self.length)
        if self._order[0] != epoch:
            self._order = (epoch, torch.randperm(self.length, generator=generator(self.seed, f"pass {epoch}")))
        unit, part = divmod(int(self._order[1][within]), self.parts)
        return unit, part


def _example(sample: Sample, epoch: int, tokenizers: tuple[Any, Any], config: StreamConfig) -> _Example:
    picture = decode(sample.image, f"image '{sample.key}'")
    pixels = augment(picture, generator(config.seed, f"crop {epoch} {sample.key}"), config)
    random = generator(config.seed, f"caption {epoch} {sample.key}")
    web, synthetic = (
        texts[int(torch.randint(len(texts), (1,), generator=random))]
        for texts in (sample.web or sample.synthetic, sample.synthetic or sample.web)
    )
    inner, outer = tokenizers
    row: _Example = {"pixel_values": pixels}
    if config.captions != "synthetic":
        row["web_ids"] = encode(content_ids(web, inner), inner, config.text_length)
    if config.captions != "web":
        reduced = reduce(
            synthetic, config.strategy, config.budget, inner, random, n_sentences=config.n_sentences, fill=config.fill
        )
        row["syn_ids"] = encode(reduced or content_ids(web, inner), inner, config.text_length)
    if config.output_length:
        whole = content_ids(synthetic, outer) or content_ids(web, outer)
        row["syn_full_ids"] = encode(whole, outer, config.output_length)
    return row


def _collate(rows: Mapping[str, _Example]) -> dict[str, Any]:
    names = next(iter(rows.values()))
    columns = {name: [row[name] for row in rows.values()] for name in names}
    pixels = torch.stack(columns.pop("pixel_values"))
    return {"pixel_values": pixels, **{name: torch.tensor(ids) for name, ids in columns.items()}, "keys": list(rows)}


def augment(picture: Image.Image, random: Generator, config: StreamConfig) -> Tensor:
    """(3, S, S) float32: a random crop resized, mirrored and coloured as `config` says, normalised."""
    size = config.image_size
    box = crop_box(picture.width, picture.height, config.minimum_area, random)
    picture = picture.resize((size, size), Image.Resampling.BILINEAR, box=box)
    mirror, *factors = torch.rand(4, generator=random).tolist()
    if config.flip and mirror < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if config.jitter:
        for change, draw in zip(
            (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
        ):
            picture = change(picture).enhance(1 + config.jitter * (2 * draw - 1))
    pixels = torch.from_numpy(np.array(picture, dtype=np.float32) / 255)
    return ((pixels - torch.tensor(config.mean)) / torch.tensor(config.std)).permute(2, 0, 1).contiguous()


def crop_box(width: int, height: int, minimum_area: float, random: Generator) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) in pixels: an area from `minimum_area` to 1 of the picture, sides from 3:4 to 4:3.

    The whole picture where ten draws give no crop that fits into it, as for narrow ones.
    """
    for area, ratio, left, top in torch.rand(10, 4, generator=random, dtype=torch.float64).tolist():
        pixels = width * height * (minimum_area + (1 - minimum_area) * area)
        aspect = (3 / 4) ** (1 - 2 * ratio)
        wide, high = math.sqrt(pixels * aspect), math.sqrt(pixels / aspect)
        if wide <= width and high <= height:
            left, top = left * (width - wide), top * (height - high)
            return left, top, left + wide, top + high
    return 0, 0, width, height
