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
from typing import NamedTuple

import torch
from torch import Tensor

from boresight.data import Problem
from boresight.errors import InputError
from boresight.seeds import generator
from boresight.training.shards import TRUNCATED, PairSource, Sample, Shards

Position = tuple[int, int, int]


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
        self._reading: Generator[Sample | Problem] | None = None  # of the unit that the last buffer stopped in
        self._stands = (-1, -1)
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    def slots(self, position: Position) -> Generator[Slot]:
        """All samples from `position` on.

        Raises InputError when there are none, and when a shard's have no synthetic caption where one is asked for.
        """
        chain, into, given = position
        empty_since = chain
        try:
            while True:
                buffer, end = self._fill(chain, into)
                if (chain, into) == position[:2]:
                    self._check_synthetic(chain, buffer)
                order = torch.randperm(len(buffer), generator=generator(self.seed, f"buffer {chain} {into}")).tolist()
                for count, number in enumerate(order[given:], given + 1):
                    item, epoch = buffer[number]
                    yield Slot(item, epoch, (chain, into, count))
                empty_since = end[0] if buffer else empty_since
                self._check(end[0] - empty_since)
                (chain, into), given = end, 0
        finally:
            self._stop_reading()

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

    def _fill(self, chain: int, into: int) -> tuple[list[tuple[Sample | Problem, int]], tuple[int, int]]:
        """The next samples with their pass, as many as the buffer holds or one pass has, and where to go on.

        A unit that fills several buffers is read on where the last one stopped, and skipped into after a resume alone.
        """
        buffer: list[tuple[Sample | Problem, int]] = []
        start = chain
        while len(buffer) < self.size and chain - start < self.length:
            if self._reading is None or self._stands != (chain, into):
                self._stop_reading()
                unit, part = self._unit(chain)
                self._reading = self.source.read(unit, part, self.parts, into)
            for item in self._reading:
                if isinstance(item, Problem) and item.what == TRUNCATED:
                    self.problems.append(item)
                    continue
                into += 1
                buffer.append((item, chain // self.length))
                if len(buffer) == self.size:
                    self._stands = chain, into
                    break
            else:
                self._reading = None
                chain, into = chain + self.readers, 0
        return buffer, (chain, into)

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    def _unit(self, chain: int) -> tuple[int, int]:
        """The shard or row at a place of the chain, and the part of it."""
        epoch, within = divmod(chain, self.length)
        if self._order[0] != epoch:
            self._order = (epoch, torch.randperm(self.length, generator=generator(self.seed, f"pass {epoch}")))
        unit, part = divmod(int(self._order[1][within]), self.parts)
        return unit, part
