"""An endless, seeded stream of training batches that resumes at the very next one.

A batch takes the next B samples of its reader (`boresight.training.order`). Where one of them cannot be used, or is
in the batch already, the next one that can stands in for it, without losing its own turn: so the order is a function of
seed, reader and number of the batch, and no corrupt picture shifts it. What stands in is cropped otherwise than at its
own turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from boresight.brief import brief, spelled
from boresight.data import Problem
from boresight.data.images import decode
from boresight.encoders.tokens import content_ids, padded_ids
from boresight.errors import BoresightError, InputError
from boresight.progress import say
from boresight.seeds import generator
from boresight.training.config import StreamConfig
from boresight.training.crops import augment
from boresight.training.order import Chain, Position, Slot
from boresight.training.shards import PairSource, Sample, too_many_workers
from boresight.training.subcaptions import reduce

CORRUPT = "corrupt image skipped"
NO_WEB = "no web caption, the synthetic one stands in"
NO_SYNTHETIC = "no synthetic caption, the web caption stands in"
_NAMED = 10  # problems of one kind that are printed; all are counted
_FRUITLESS = 100_000  # samples in a row of which none can be used, before it is an error
_Example = dict[str, Any]


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
    drawn from (seed, pass, key), and for a stand-in from how early it comes, so they do not depend on the number of
    processes; the order of samples does.

    Attributes:
        problems: how often each kind of trouble was met since this object was made.
        batches: how many were handed out.
        positions: of each reader, None before its first batch.
    """

    def __init__(
        self,
        source: PairSource,
        tokenizer: Any,
        config: StreamConfig,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """The stream of one rank of `world`.

        Raises InputError when a batch over all ranks needs more pictures than a collection has, when several ranks
        with their workers read ahead by more than that, and for lengths that leave no room for a caption.
        """
        if not 0 <= rank < world:
            raise InputError(f"rank={rank} is none of {world}; pass one from 0 to {world - 1}.")
        if not source.streamed and config.batch_size * world > len(source):
            shared = f" on each of {world} ranks" if world > 1 else ""
            raise InputError(
                f"A batch of {config.batch_size}{shared} is more than the {len(source)} captioned images of "
                f"{source.name}; lower batch_size."
            )
        ahead = config.batch_size * world * config.workers
        if not source.streamed and world > 1 and ahead > len(source):
            raise InputError(too_many_workers(config.workers, ahead, len(source), source.name))
        self.source, self.config = source, config
        self.problems: Counter[str] = Counter()
        self._tokenizer = tokenizer
        for length in filter(None, (config.text_length, config.output_length)):
            padded_ids((), tokenizer, length)
        self._rank, self._world = rank, world
        self.batches = 0
        self.positions: list[Position | None] = [None] * max(1, config.workers)

    def __repr__(self) -> str:
        rank = {"rank": f"{self._rank} of {self._world}"} if self._world > 1 else {}
        return spelled(self, {"source": brief(self.source.name), **rank, "batches": f"{self.batches:,}"})

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Raises InputError when a shard cannot be opened or there are fewer usable samples than a batch needs."""
        loader = DataLoader(
            _Deliveries(self),
            batch_size=None,
            num_workers=self.config.workers,
            generator=generator(self.config.seed, "loader"),  # else it would draw from the global state
        )
        for delivery in loader:
            self._report(delivery.problems)
            if delivery.error:
                raise InputError(delivery.error)
            self.positions[delivery.worker] = delivery.position
            self.batches += 1
            yield delivery.batch

    def seek(self, batches: int) -> None:
        """Go on behind so many batches from the very start; shards are counted for it, so a saved state is faster."""
        self.batches, self.positions = batches, [None] * len(self.positions)

    def state_dict(self) -> dict[str, Any]:
        """Where this rank stands, in json's types; the places are this rank's own, so every rank saves its state."""
        return {"batches": self.batches, "places": list(self.positions), "of": self._origin()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind the last batch handed out when `state` was taken. Raises InputError where it does not fit."""
        saved = state.get("of", {})
        for what, value in self._origin().items():
            if saved.get(what) != value:
                raise InputError(
                    f"The state of the data was saved with {what}={saved.get(what)} and here it is {value}; "
                    "set it as it was, or start the data anew."
                )
        self.batches = int(state["batches"])
        self.positions = [at and (at[0], at[1], at[2]) for at in state["places"]]

    def _origin(self) -> dict[str, Any]:
        config = self.config
        return {
            "data": self.source.fingerprint,
            "seed": config.seed,
            "batch_size": config.batch_size,
            "buffer": config.buffer if self.source.streamed else 1,
            "workers": len(self.positions),
            "world": self._world,
            "rank": self._rank,
        }

    def deliveries(self, worker: int) -> Iterator[_Delivery]:
        """What the reader of this number hands over from now on, without end."""
        config, workers = self.config, len(self.positions)
        chain = Chain(
            self.source,
            buffer=config.buffer,
            seed=config.seed,
            reader=worker * self._world + self._rank,
            readers=workers * self._world,
        )
        earlier = (self.batches + workers - 1 - worker) // workers  # batches of this worker
        slots = chain.slots(self.positions[worker] or chain.seek(earlier * config.batch_size))
        queue: list[Slot] = []
        while True:
            rows: dict[str, _Example] = {}
            problems: list[Problem] = []
            looked = 0
            while len(rows) < config.batch_size:
                if looked == len(queue):
                    queue.append(next(slots))
                slot = queue[looked]
                looked += 1
                if slot.position[0] - queue[0].position[0] > chain.patience or (not rows and looked > _FRUITLESS):
                    raise InputError(self._too_few(len(rows), queue))
                sample = slot.item
                if isinstance(sample, Problem):
                    if looked <= config.batch_size:  # those ahead are told of at their turn
                        problems.append(sample)
                elif sample.key not in rows:
                    try:
                        picture = decode(sample.image, f"image '{sample.key}'")
                    except InputError as error:
                        looked -= 1  # to be met again as what it is
                        queue[looked] = slot._replace(item=Problem(CORRUPT, str(error)))
                        continue
                    ahead = (looked - 1) // config.batch_size  # batches before its turn, where it stands in
                    showing = f"{slot.epoch} {sample.key}" + (f" {ahead}" if ahead else "")
                    rows[sample.key] = _example(sample, picture, showing, self._tokenizer, config)
                    problems += sample.left_out
                    if not sample.web and "web_ids" in rows[sample.key]:
                        problems.append(Problem(NO_WEB, sample.key))
                    if not sample.synthetic and self.source.synthetic is not None:
                        problems.append(Problem(NO_SYNTHETIC, sample.key))
            problems += chain.problems
            chain.problems.clear()
            yield _Delivery(worker, problems, _collate(rows), queue[config.batch_size - 1].position)
            del queue[: config.batch_size]

    def _too_few(self, usable: int, queue: list[Slot]) -> str:
        problems = [slot.item for slot in queue if isinstance(slot.item, Problem)]
        wrong = Counter(problem.what for problem in problems)
        why = ""
        if problems:
            kinds = ", ".join(f"{count} x {what}" for what, count in wrong.items())
            why = f" ({kinds}; the first: {problems[0].where.rstrip('.')})"
        check = "pictures" if CORRUPT in wrong else "captions' names"
        return (
            f"A batch of {self.config.batch_size} needs more than the {usable} usable samples found in "
            f"{self.source.name}{why}; lower batch_size or check the {check}."
        )

    def _report(self, problems: list[Problem]) -> None:
        for problem in problems:
            self.problems[problem.what] += 1
            if self.problems[problem.what] <= _NAMED:
                say(f"{problem.what}: {problem.where}")
                if self.problems[problem.what] == _NAMED:
                    say(f"{problem.what}: from here on only counted")


@dataclass(frozen=True)
class _Delivery:
    """What a loader worker hands over: a batch and the position behind it, or an error in one sentence."""

    worker: int
    problems: list[Problem]
    batch: dict[str, Any] = field(default_factory=dict)
    position: Position = (0, 0, 0)
    error: str = ""


class _Deliveries(IterableDataset):
    """The deliveries of one worker of the loader, which wants a dataset of its own kind.

    The loader asks its workers in turn, from the first on; so after a resume each worker process takes the reader whose
    turn it is.
    """

    def __init__(self, stream: PairStream) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[_Delivery]:
        info = get_worker_info()
        worker = ((info.id if info else 0) + self.stream.batches) % len(self.stream.positions)
        try:
            yield from self.stream.deliveries(worker)
        except BoresightError as error:
            yield _Delivery(worker, [], error=str(error))


def _example(sample: Sample, picture: Image.Image, showing: str, tokenizer: Any, config: StreamConfig) -> _Example:
    """`showing` decides, with the seed, the crop and the captions that are drawn."""
    pixels = augment(picture, generator(config.seed, f"crop {showing}"), config)
    random = generator(config.seed, f"caption {showing}")
    web, synthetic = (
        texts[int(torch.randint(len(texts), (1,), generator=random))]
        for texts in (sample.web or sample.synthetic, sample.synthetic or sample.web)
    )
    row: _Example = {"pixel_values": pixels}
    plain = content_ids(web, tokenizer, config.lower_case)
    if config.captions != "synthetic":
        row["web_ids"] = padded_ids(plain, tokenizer, config.text_length)
    if config.captions != "web":
        reduced = reduce(
            synthetic,
            config.strategy,
            config.budget,
            tokenizer,
            random,
            n_sentences=config.n_sentences,
            fill=config.fill,
            lower_case=config.lower_case,
        )
        row["syn_ids"] = padded_ids(reduced or plain, tokenizer, config.text_length)
    if config.output_length:
        whole = content_ids(synthetic, tokenizer) or content_ids(web, tokenizer)
        row["syn_full_ids"] = padded_ids(whole, tokenizer, config.output_length)
    return row


def _collate(rows: Mapping[str, _Example]) -> dict[str, Any]:
    names = next(iter(rows.values()))
    columns = {name: [row[name] for row in rows.values()] for name in names}
    pixels = torch.stack(columns.pop("pixel_values"))
    return {"pixel_values": pixels, **{name: torch.tensor(ids) for name, ids in columns.items()}, "keys": list(rows)}
