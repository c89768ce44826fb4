"""What changes an index: every change is written beside what is there, and counts from the moment the manifest does."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.progress import progress
from boresight.runs import one_writer
from boresight.search.graph import GraphOptions
from boresight.search.segments import (
    KIND,
    THUMBNAIL,
    Layout,
    drop_unused,
    has_graph,
    open_segment,
    write_removed,
    write_segment,
    write_segment_graph,
)
from boresight.search.sides import MOST_AT_ONCE, image_rows
from boresight.search.snapshot import Snapshot
from boresight.storage import FORMAT, MANIFEST, read_manifest, replacing_file, write_json, writing

if TYPE_CHECKING:
    import pyarrow as pa

LOCK = ".writer.lock"
SEGMENT = 2**18  # images of a segment: its codes are in memory while it is written


@contextmanager
def changing(folder: Path) -> Iterator[Change]:
    """One change of an index; it counts when the block ends without an error, and leaves nothing when it does not.

    Raises ArtefactError where another process is writing the index, or the disk is full.
    """
    with one_writer(folder, folder / LOCK), writing(folder, "the index is as it was; free space and do it again."):
        change = Change(folder, Snapshot.read(folder))
        try:
            yield change
            change.commit()
        finally:
            drop_unused(folder, read_manifest(folder, KIND)["segments"])


class Change:
    """What is to be the next state of an index."""

    def __init__(self, folder: Path, before: Snapshot) -> None:
        self.folder, self.before = folder, before
        self.manifest: dict[str, Any] = copy.deepcopy(before.manifest)
        self.manifest["generation"] += 1

    def append(
        self, embeddings: Embeddings, meta: pa.Table, thumbnails: Iterable[bytes | None] | None, editor: Any
    ) -> None:
        """New images, as one or more segments."""
        layout = self.before.layout
        pictures = None if thumbnails is None else iter(thumbnails)
        with progress(total=len(embeddings), what="indexing", unit=" images", delay=1.0) as bar:
            for start in range(0, len(embeddings), SEGMENT):
                images = embeddings.images[start : start + SEGMENT]
                own = None if pictures is None else (next(pictures) for _ in range(len(images)))
                blocks = _blocks(images, embeddings.ids[start : start + SEGMENT], layout, editor, bar)
                if layout.texts:
                    blocks = chain(blocks, _texts(embeddings, start, start + len(images)))
                self._add(blocks, meta.slice(start, len(images)), own)

    def remove(self, rows: np.ndarray) -> None:
        """Rows of the state before."""
        said = []
        for segment, start in zip(self.before.segments, self.before.starts, strict=False):
            own = rows[(rows >= start) & (rows < start + len(segment))] - start
            everything = np.concatenate([segment.removed, own])
            if len(own) and len(np.unique(everything)) < len(segment):
                said.append(write_removed(segment, everything, self.manifest["generation"]))
            elif not len(own):
                said.append(segment.said)
        added = self.manifest["segments"][len(self.before.segments) :]
        self.manifest["segments"] = said + added

    def compact(self) -> None:
        """Write segments with removed rows, and small ones where there are several, anew and joined."""
        import pyarrow as pa

        layout, everything = self.before.layout, self.before.segments
        several = sum(len(each) < SEGMENT for each in everything) > 1
        segments = [each for each in everything if len(each.removed) or (several and len(each) < SEGMENT)]
        old = {each.name for each in segments}
        self.manifest["segments"] = [each for each in self.manifest["segments"] if each["name"] not in old]
        pictured = any(each.said["thumbnails"] for each in segments)
        rows = [(each, np.arange(len(each)) if each.live is None else np.flatnonzero(each.live)) for each in segments]
        total = sum(len(own) for _, own in rows)
        widest = max((each.rows.indices.shape[1] for each in segments if each.rows.indices is not None), default=0)
        with progress(total=total, what="compacting", unit=" images", delay=1.0) as bar:
            for group in _groups(rows):
                meta = pa.concat_tables(
                    [each.meta.take(pa.array(own)) for each, own in group], promote_options="default"
                )
                small = _old_thumbnails(group) if pictured else None
                self._add(old_blocks(group, layout, widest, bar), meta, small)

    def build_graphs(self, matrix: int, options: GraphOptions) -> None:
        """Over every segment of the next state that has no whole one with these options."""
        self.manifest["graph"] = asdict(options)
        segments = [open_segment(self.folder, self.before.layout, said) for said in self.manifest["segments"]]
        missing = [(n, each) for n, each in enumerate(segments) if not has_graph(each, matrix, options)]
        total = sum(len(segment) for _, segment in missing)
        with progress(total=total, what="building the graph", unit=" images", delay=1.0) as bar:
            for number, segment in missing:
                said = write_segment_graph(segment, matrix, options, self.manifest["generation"], bar)
                self.manifest["segments"][number] = said

    def commit(self) -> None:
        """Put the manifest in place."""
        write_manifest(self.folder, self.manifest)

    def _add(
        self, blocks: Iterable[dict[str, Tensor]], meta: pa.Table, thumbnails: Iterable[bytes | None] | None
    ) -> None:
        self.manifest["last"] += 1
        name = f"segment-{self.manifest['last']:06d}"
        said = write_segment(self.folder, name, self.before.layout, blocks, meta, thumbnails)
        self.manifest["segments"].append(said)


def begin(folder: Path, layout: Layout, facts: dict[str, Any]) -> None:
    """The manifest of an index without images, in an empty folder."""
    write_manifest(folder, {**facts, "layout": asdict(layout), "segments": [], "generation": 0, "last": 0})


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """At one stroke."""
    with replacing_file(folder / MANIFEST) as temporary:
        write_json(temporary, {**manifest, "kind": KIND, "format": FORMAT, "boresight": version("boresight")})


def _blocks(
    images: Tensor, ids: Sequence[str], layout: Layout, editor: CaptionEditor | None, bar: Any
) -> Iterator[dict[str, Tensor]]:
    """Rows as they are stored. Codes come last, in one block, since their number of slots is known at the end."""
    codes: dict[str, list[Tensor]] = {}
    for start, block in zip(range(0, len(images), MOST_AT_ONCE), images.split(MOST_AT_ONCE), strict=True):
        stored = image_rows(block, layout, editor)
        _require_finite(stored, ids[start : start + len(block)], layout)
        for name in ("indices", *layout.values):
            if name in stored:
                codes.setdefault(name, []).append(stored.pop(name).to(getattr(torch, layout.dtype_of(name))))
        yield {name: rows.cpu() for name, rows in stored.items()}
        bar.update(len(block))
    if codes:
        slots = max(1, *(part.shape[1] for parts in codes.values() for part in parts))
        yield {name: torch.cat([_padded(part, slots) for part in parts]).cpu() for name, parts in codes.items()}


def _require_finite(stored: Mapping[str, Tensor], ids: Sequence[str], layout: Layout) -> None:
    """Raises InputError naming an image that `layout.dtype` cannot hold."""
    for name, rows in stored.items():
        bad = (~rows.to(getattr(torch, layout.dtype_of(name))).isfinite().flatten(1).all(1)).nonzero()
        if len(bad):
            at = int(bad[0])
            raise InputError(
                f"The image '{ids[at]}' has the length {float(stored['norms'][at]):.2g}, and what is kept of it "
                f"('{name}') is too large for {layout.dtype_of(name)}; leave it out, or make the index with "
                "dtype='float32'."
            )


def _texts(embeddings: Embeddings, start: int, stop: int) -> Iterator[dict[str, Tensor]]:
    """Captions of some images, in the order of the images; one empty block where they have none."""
    order = torch.argsort(embeddings.owners, stable=True)
    mine = order[(embeddings.owners[order] >= start) & (embeddings.owners[order] < stop)]
    for rows in mine.split(MOST_AT_ONCE):  # of none, one empty piece
        yield {"texts": normalize(embeddings.texts[rows].float(), dim=1)}


def _padded(rows: Tensor, slots: int) -> Tensor:
    """(B, slots), 0 behind what is there. Torch pads no unsigned integers, so numpy does."""
    if rows.shape[1] == slots:
        return rows
    if rows.is_floating_point():
        return pad(rows, (0, slots - rows.shape[1]))
    return torch.from_numpy(np.pad(rows.cpu().numpy(), ((0, 0), (0, slots - rows.shape[1]))))


def _groups(rows: Sequence[tuple[Any, np.ndarray]]) -> Iterator[list[tuple[Any, np.ndarray]]]:
    """The same rows in groups of at most SEGMENT."""
    group: list[tuple[Any, np.ndarray]] = []
    room = SEGMENT
    for segment, own in rows:
        while len(own):
            group.append((segment, own[:room]))
            own, room = own[room:], room - len(group[-1][1])
            if not room:
                yield group
                group, room = [], SEGMENT
    if group:
        yield group


def old_blocks(
    group: Sequence[tuple[Any, np.ndarray]], layout: Layout, slots: int, bar: Any
) -> Iterator[dict[str, Tensor]]:
    """Rows of segments as they are stored, in blocks; codes with so many slots."""
    for segment, own in group:
        for start in range(0, len(own), MOST_AT_ONCE):
            at = own[start : start + MOST_AT_ONCE]
            stored = {name: segment.rows.dense[number][at] for number, name in enumerate(layout.dense)}
            stored["norms"] = segment.norms[at, None]
            if segment.rows.bias is not None:
                stored["bias"] = segment.rows.bias[at, None]
            block = {name: torch.from_numpy(np.ascontiguousarray(rows)) for name, rows in stored.items()}
            if segment.rows.indices is not None:
                codes = {"indices": segment.rows.indices, **dict(zip(layout.values, segment.rows.values, strict=True))}
                block |= {name: _padded(torch.from_numpy(rows[at]), slots) for name, rows in codes.items()}
            if segment.texts is not None:
                of_these = (segment.caption_owners >= at[0]) & (segment.caption_owners <= at[-1])
                captions = np.flatnonzero(of_these)
                captions = captions[np.isin(segment.caption_owners[captions], at)]
                block["texts"] = torch.from_numpy(segment.texts[captions])
            yield block
            bar.update(len(at))


def _old_thumbnails(group: Sequence[tuple[Any, np.ndarray]]) -> Iterator[bytes | None]:
    for segment, own in group:
        if segment.thumbnails is None:
            yield from [None] * len(own)
        else:
            for row in own.tolist():
                yield segment.thumbnails[THUMBNAIL][row].as_py()
