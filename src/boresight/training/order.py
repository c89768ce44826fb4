"""The order of an endless, seeded stream of samples, in which any reader can be put back to its place.

The units of a source (shards, or rows of a collection) are shuffled anew for each pass, and the passes laid end to end
make one chain. Every loader worker of every rank is a reader, and reader c of C takes the chain's places c, c + C,
c + 2C, ... So each pass shows each sample once over all readers, and no reader ever runs out. Within shards, a reader
fills a buffer, shuffles it, empties it and fills it again.

The position of a reader is three numbers: where its buffer began (place in the chain, samples into the shard) and how
many it has given from it. With it, resuming costs one buffer and the way to it in its shard, whatever the length of
the training. From the number of samples alone, a reader counts those of the shards it had before, each once, by their
headers (one or two seconds for 10,000 samples in a file); those at an address are downloaded for it.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor

from boresight.data import Problem
from boresight.errors import InputError
from boresight.seeds import generator
from boresight.training.shards import TRUNCATED, PairSource, Sample, Shards

Position = tuple[int, int, int]

Items = Generator[tuple[Sample | Problem | None, tuple[int, int]]]


class Slot(NamedTuple):
    """One sample in the order of a reader, or what was wrong with it; its pass; the reader's position behind it."""

    item: Sample | Problem
    epoch: int
    position: Position


class Chain:
    """What one reader reads: its places on the passes over all units, each in its own order, laid end to end.

    With fewer shards than readers, a unit is a part of a shard, so that no two readers have the same samples.

    Attributes:
        patience: so many places of the chain without a full batch mean that there is none: after them, a reader has
            met a given unit but for a chance of 1 to 20,000.
        problems: with whole shards.
    """

    def __init__(self, source: PairSource, *, buffer: int, seed: int, reader: int, readers: int) -> None:
        self.source, self.seed, self.reader, self.readers = source, seed, reader, readers
        self.size = buffer if source.streamed else 1
        self.parts = math.ceil(readers / len(source)) if source.streamed else 1
        self.length = len(source) * self.parts
        self.patience = 10 * readers * self.length
        self.problems: list[Problem] = []
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    def slots(self, position: Position) -> Generator[Slot]:
        """All samples from `position` on.

        Raises InputError when there are none, and when a shard's have no synthetic caption where one is asked for.
        """
        chain, into, given = position
        empty_since = chain
        with closing(self._items(chain, into)) as items:
            while True:
                buffer, end = self._fill(items, chain, into)
                if (chain, into) == position[:2]:
                    self._check_synthetic(chain, buffer)
                order = torch.randperm(len(buffer), generator=generator(self.seed, f"buffer {chain} {into}")).tolist()
                for count, number in enumerate(order[given:], given + 1):
                    item, epoch = buffer[number]
                    yield Slot(item, epoch, (chain, into, count))
                empty_since = end[0] if buffer else empty_since
                self._check(end[0] - empty_since)
                (chain, into), given = end, 0

    def seek(self, samples: int) -> Position:
        """The position behind the first `samples`, by the count of each unit. Raises InputError like `slots`."""
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

    def _check_synthetic(self, chain: int, buffer: list[tuple[Sample | Problem, int]]) -> None:
        """A misspelt name would else go unnoticed, since the web captions stand in."""
        if isinstance(self.source, Shards) and self.source.synthetic is not None:
            samples = [item for item, _ in buffer if isinstance(item, Sample)]
            if samples and not any(sample.synthetic for sample in samples):
                self.source.check_synthetic(self._unit(chain)[0])

    def _items(self, chain: int, into: int) -> Items:
        """All samples from a place on without end, each with the place behind it; None where a unit is read to its end.

        A unit that fills several buffers is read on where the last one stopped, and skipped into after a resume alone.
        """
        while True:
            unit, part = self._unit(chain)
            with closing(self.source.read(unit, part, self.parts, into)) as samples:
                for item in samples:
                    if isinstance(item, Problem) and item.what == TRUNCATED:
                        self.problems.append(item)
                    else:
                        into += 1
                        yield item, (chain, into)
            chain, into = chain + self.readers, 0
            yield None, (chain, into)

    def _fill(self, items: Items, chain: int, into: int) -> tuple[list[tuple[Sample | Problem, int]], tuple[int, int]]:
        """The next of `items` with their pass, as many as the buffer holds or one pass has, and where to go on."""
        buffer: list[tuple[Sample | Problem, int]] = []
        while True:
            item, end = next(items)
            if item is not None:
                buffer.append((item, end[0] // self.length))
            if len(buffer) == self.size or end[0] - chain >= self.length:
                return buffer, end

    def _unit(self, chain: int) -> tuple[int, int]:
        """The shard or row at a place of the chain, and the part of it."""
        epoch, within = divmod(chain, self.length)
        if self._order[0] != epoch:
            self._order = (epoch, torch.randperm(self.length, generator=generator(self.seed, f"pass {epoch}")))
        unit, part = divmod(int(self._order[1][within]), self.parts)
        return unit, part
