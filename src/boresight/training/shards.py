"""Where training samples come from: tar shards, on disk or over http, and collections."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from boresight.data import Collection, Problem
from boresight.data.columns import listed, texts_in
from boresight.data.files import braced, expand, lines_of
from boresight.data.formats.tar import DAMAGE, DUPLICATE, members, open_stream, picture_in
from boresight.data.images import is_picture, orientation_in
from boresight.data.rows import clean
from boresight.errors import ArtefactError, InputError
from boresight.training.download import is_address, open_shard

NO_CAPTION = "no caption, sample skipped"
NO_PICTURE = "no picture, sample skipped"
APART = "sample in two places of its shard, skipped (write shards in the order of names)"
TRUNCATED = "truncated shard, its rest skipped"
_LOOKED_AT = 1000  # samples, for the names of their members


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture and what was written about it, nothing decoded yet.

    Attributes:
        key: names it in its source: 'shard/key' or a collection's id.
        image: an `image` cell as `boresight.data.images.decode` takes it.
        web: captions as found on the web, one of which is drawn at each showing; empty where there is none.
        synthetic: captions that a model wrote, likewise. Not both are empty.
        left_out: further pictures under its name, and members that it has twice.
    """

    key: str
    image: Mapping[str, Any]
    web: tuple[str, ...]
    synthetic: tuple[str, ...]
    left_out: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Shards:
    """WebDataset tar shards, read from front to back; make them with `open_shards`.

    Attributes:
        shards: paths and http(s) addresses.
        web, synthetic: the member ('txt', 'syn.txt') or else the key of `<key>.json` that holds the captions. A text
            member for `web` holds a caption a line, one for `synthetic` is one caption.
    """

    shards: tuple[str, ...]
    web: str = "txt"
    synthetic: str | None = "syn.txt"

    streamed = True

    @property
    def name(self) -> str:
        """For sentences."""
        return self.shards[0] if len(self.shards) == 1 else f"{self.shards[0]} and {len(self.shards) - 1} more"

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest (16 characters) of the names of shards and members, not of what is in them."""
        return hashlib.sha256("\n".join([*self.labels, repr((self.web, self.synthetic))]).encode()).hexdigest()[:16]

    @cached_property
    def labels(self) -> list[str]:
        """The shards' names below the folder they share, without '.tar': they begin the keys of samples."""
        # The query of an address is a signature, and the next one signs the same shard otherwise.
        names = [shard.partition("?")[0] if is_address(shard) else shard for shard in self.shards]
        above = os.path.commonprefix(names).rfind("/") + 1  # noqa: RUF071  # up to a slash they share
        return [name[above:].removesuffix(".tar") for name in names]

    def __len__(self) -> int:
        return len(self.shards)

    def read(self, unit: int, part: int = 0, parts: int = 1, skip: int = 0) -> Generator[Sample | Problem]:
        """Every `parts`-th sample of shard `unit` from the `part`-th on, but for the first `skip` of these.

        What cannot be used comes as a Problem in its place; a last one, of kind `TRUNCATED`, says that the shard ends
        too early, and the sample it ends in is lost too. What is skipped is passed over by its headers in a file, and
        downloaded from an address. Raises InputError when the shard cannot be opened; ArtefactError when the
        file system fails in the midst of it.
        """
        shard, label = self.shards[unit], self.labels[unit]
        key, current, wanted = "", -1, False
        fields: dict[str, bytes] = {}
        keys: set[str] = set()
        twice: list[Problem] = []

        def sample() -> Sample | Problem:
            item = self._sample(f"{label}/{key}", fields, twice)
            return Problem(APART, item.where) if isinstance(item, Problem) and key in keys else item

        with open_shard(shard) as handle, closing(open_stream(handle, shard)) as tar:
            try:
                for index, next_key, suffix, member in members(tar):
                    if index != current:
                        if wanted:
                            yield sample()
                        keys.add(key)
                        key, current, fields, twice = next_key, index, {}, []
                        wanted = index % parts == part and index // parts >= skip
                    if wanted and suffix in fields:
                        twice.append(Problem(DUPLICATE, f"{label}/{key}.{suffix}"))
                    elif wanted and self._reads(suffix):
                        content = tar.extractfile(member)
                        fields[suffix] = content.read() if content else b""
            except DAMAGE as error:
                if isinstance(error, OSError) and error.errno is not None:  # of the file system, not of the shard
                    raise ArtefactError(
                        f"The shard {shard} cannot be read now ({error.strerror}); bring it back, then resume."
                    ) from error
                yield Problem(TRUNCATED, f"{shard} after {label}/{key} ({error})")
            else:
                if wanted:
                    yield sample()

    def count(self, unit: int) -> int:
        """How many samples `read` gives of shard `unit`, from its headers. Raises InputError like `read`."""
        index = -1
        with open_shard(self.shards[unit]) as handle, closing(open_stream(handle, self.shards[unit])) as tar:
            try:
                for index, *_ in members(tar):  # noqa: B007
                    pass
            except DAMAGE:
                return max(index, 0)
        return index + 1

    def check_synthetic(self, unit: int) -> None:
        """Raises InputError where no sample at the start of shard `unit` has a member or json key for `synthetic`."""
        shard, names = self.shards[unit], set[str]()
        with open_shard(shard) as handle, closing(open_stream(handle, shard)) as tar, suppress(*DAMAGE):
            for index, _, suffix, member in members(tar):
                if index == _LOOKED_AT:
                    break
                names.add(suffix)
                content = tar.extractfile(member) if suffix == "json" else None
                names.update(_info(content.read()) if content else ())
        if self.synthetic not in names:
            raise InputError(
                f"No sample of {shard} has synthetic captions in '{self.synthetic}'; it has {listed(sorted(names))}: "
                "name one of these as synthetic, or none to train on web captions alone."
            )

    def check_batch(self, count: int, workers: int = 0) -> None:
        """Raises InputError where local shards hold fewer than `count` samples, or than that for each of `workers`.

        Their headers tell; otherwise two processes would meet the same sample in one batch. Shards at an address are
        not counted.
        """
        samples, ahead = 0, count * max(workers, 1)
        for unit, shard in enumerate(self.shards):
            if is_address(shard) or samples >= ahead:
                return
            samples += self.count(unit)
        if samples < count:
            raise InputError(
                f"A batch of {count} over all processes is more than the {samples} samples of {self.name}; lower "
                "batch_size."
            )
        if samples < ahead:
            raise InputError(too_many_workers(workers, ahead, samples, self.name))

    def _reads(self, suffix: str) -> bool:
        return suffix in ("json", self.web, self.synthetic) or is_picture(f".{suffix}")

    def _sample(self, key: str, fields: Mapping[str, bytes], twice: Sequence[Problem]) -> Sample | Problem:
        info = _info(fields.get("json", b"{}"))
        web = lines_of(fields[self.web]) if self.web in fields else texts_in(info.get(self.web))
        synthetic: list[Any] = []
        if self.synthetic is not None:
            whole = fields.get(self.synthetic)
            synthetic = texts_in(info.get(self.synthetic)) if whole is None else [whole.decode("utf-8-sig", "replace")]
        picture, others = picture_in(fields, key)
        if picture is None:
            return others[0] if others else Problem(NO_PICTURE, key)
        image = {"bytes": fields[picture], "orientation": orientation_in(info.get("exif"))}
        return _usable(key, image, web, synthetic, (*twice, *others))


def open_shards(
    patterns: str | Path | Sequence[str | Path], web: str = "txt", synthetic: str | None = "syn.txt"
) -> Shards:
    """Shards from paths, globs, brace patterns ('train-{00000..00012}.tar') and http(s) addresses with braces.

    Raises InputError when nothing matches, a local file is missing, or an address is neither.
    """
    shards: list[str] = []
    for pattern in [patterns] if isinstance(patterns, (str, Path)) else patterns:
        scheme, mark, rest = str(pattern).partition("://")
        if mark and scheme not in ("http", "https"):
            raise InputError(f"{pattern} is neither a file nor an http address; mount it or pass a signed address.")
        paths = braced(rest) if mark else [str(path) for path in expand(str(pattern))]
        if not paths:
            raise InputError(f"No shard matches {pattern}; check the pattern.")
        missing = next((path for path in paths if not mark and not Path(path).is_file()), None)
        if missing is not None:
            raise InputError(f"The shard {missing} cannot be opened (no such file); check the pattern.")
        shards += [f"{scheme}://{path}" for path in paths] if mark else paths
    if not shards:
        raise InputError("There are no shards to read; pass a path, a pattern or an address.")
    return Shards(tuple(shards), web, synthetic)


def too_many_workers(workers: int, ahead: int, there: int, name: str) -> str:
    """Why several processes cannot read with so many workers.

    Each of these takes its batch from its own part of a pass, and where the data has fewer samples, from several
    passes, so that a picture meets itself as a negative.
    """
    return (
        f"With {workers} workers the processes read {ahead} samples for a batch of each worker, and {name} has "
        f"{there}, so that a batch would hold a picture several times; lower workers or batch_size."
    )


@dataclass(frozen=True, eq=False)
class CollectionRows:
    """The rows of a collection that have a caption; make them with `open_rows`."""

    collection: Collection
    rows: np.ndarray
    web: str
    synthetic: str | None
    fingerprint: str

    streamed = False

    @property
    def name(self) -> str:
        """For sentences."""
        return self.collection.name or "the collection"

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, unit: int, part: int = 0, parts: int = 1, skip: int = 0) -> Generator[Sample | Problem]:
        """The one sample of row `unit`, if none is skipped."""
        if skip:
            return
        cells = self.collection.dataset[int(self.rows[unit])]
        synthetic = [] if self.synthetic is None else texts_in(cells[self.synthetic])
        yield _usable(cells["id"], cells["image"], texts_in(cells[self.web]), synthetic)

    def count(self, unit: int) -> int:
        """A row is one sample."""
        return 1


PairSource = Shards | CollectionRows


def open_rows(collection: Collection, web: str = "captions", synthetic: str | None = None) -> CollectionRows:
    """A collection for training; `web` and `synthetic` name columns of its dataset with a caption or a list of them.

    Every caption is read once, to leave out rows that have none and to tell this data from other data. Raises
    InputError when a column is not there or no row has a caption.
    """
    dataset, names = collection.dataset, [web] if synthetic is None else [web, synthetic]
    for column in names:
        if column not in dataset.column_names:
            others = listed(one for one in dataset.column_names if one not in ("id", "image", "split"))
            raise InputError(f"{collection.name or 'The collection'} has no column '{column}'; it has {others}.")
    slim = Collection(dataset.select_columns(["id", "image", *names]), collection.name, collection.problems)
    texts = dataset.select_columns(["id", *names])
    rows, digest = [], hashlib.sha256(repr((web, synthetic)).encode())
    for start in range(0, len(texts), 4096):
        block = texts[start : start + 4096]
        digest.update("\n".join(block["id"]).encode())
        cells = list(zip(*(block[column] for column in names), strict=True))
        digest.update(repr(cells).encode())
        rows += [row for row, both in enumerate(cells, start) if any(clean(texts_in(cell), "")[0] for cell in both)]
    if not rows:
        raise InputError(
            f"No image of {collection.name or 'the collection'} has a caption in {listed(names)}; name other columns."
        )
    return CollectionRows(slim, np.array(rows, dtype=np.int64), web, synthetic, digest.hexdigest()[:16])


def _usable(
    key: str, image: Mapping[str, Any], web: Sequence[Any], synthetic: Sequence[Any], left_out: Sequence[Problem] = ()
) -> Sample | Problem:
    sample = Sample(key, image, tuple(clean(web, key)[0]), tuple(clean(synthetic, key)[0]), tuple(left_out))
    return sample if sample.web or sample.synthetic else Problem(NO_CAPTION, key)


def _info(content: bytes) -> dict[str, Any]:
    try:
        info = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return info if isinstance(info, dict) else {}
