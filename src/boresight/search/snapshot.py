"""An index as it stands at one moment: searches go on in it while another process writes the next."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from boresight.errors import ArtefactError, InputError, first_line
from boresight.search.contents import own_columns
from boresight.search.filters import matching
from boresight.search.scan import Rows
from boresight.search.segments import KIND, THUMBNAIL, Layout, Segment, is_still, open_segment, require_sound
from boresight.storage import MANIFEST, read_manifest

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

OF_ITS_MAKING = ("encoder", "encoder_fingerprint", "editor", "layout")
LOOKED_UP = 100_000


@dataclass(frozen=True)
class Snapshot:
    """Segments of an index, rows numbered through.

    Attributes:
        manifest: as it was read.
        stamp: of the file that it was read from, which changes with any change of the index.
    """

    manifest: dict[str, Any]
    layout: Layout
    segments: tuple[Segment, ...]
    stamp: tuple[int, int]

    @classmethod
    def read(cls, folder: Path, before: Snapshot | None = None) -> Snapshot:
        """The index in a folder; what `before` has mapped already is not opened again.

        Raises ArtefactError where it is none, torn, of another format, or made anew for another editor or encoder.
        """
        while True:
            stamp = stamp_of(folder)
            manifest = read_manifest(folder, KIND)
            if before is not None and any(manifest.get(key) != before.manifest.get(key) for key in OF_ITS_MAKING):
                raise ArtefactError(f"{folder} was made anew with another editor or encoder; open it again.")
            require_sound(folder / MANIFEST, manifest)
            try:
                layout, said = Layout(**manifest["layout"]), manifest["segments"]
                known = {} if before is None else {each.name: each for each in before.segments}
                segments = tuple(
                    known[one["name"]]
                    if one["name"] in known and is_still(known[one["name"]], folder, one)
                    else open_segment(folder, layout, one)
                    for one in said
                )
                return cls(manifest, layout, segments, stamp)
            except (KeyError, TypeError) as error:
                raise ArtefactError(f"{folder / MANIFEST} lacks {error}; make the index again.") from error
            except ArtefactError:
                if stamp_of(folder) == stamp:  # else a writer replaced segments between the two
                    raise

    def __len__(self) -> int:
        return sum(len(each) - len(each.removed) for each in self.segments)

    @property
    def rows(self) -> tuple[Rows, ...]:
        """What is scanned."""
        return tuple(each.rows for each in self.segments)

    @cached_property
    def starts(self) -> np.ndarray:
        """(S + 1,) int64, the first row of each segment, and the end."""
        return np.concatenate([[0], np.cumsum([len(each) for each in self.segments])]).astype(np.int64)

    @cached_property
    def meta(self) -> pa.Table:
        """The columns of all rows, removed ones too, without a copy."""
        import pyarrow as pa

        tables = [each.meta for each in self.segments]
        return pa.concat_tables(tables, promote_options="default") if tables else own_columns().empty_table()

    @property
    def columns(self) -> list[str]:
        """Names that a filter may use."""
        return [name for name in self.meta.column_names if name not in ("captions", "picture")]

    def place(self, row: int) -> tuple[Segment, int]:
        """The segment of a row, and the row in it."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.segments[number], row - int(self.starts[number])

    def record(self, row: int) -> dict[str, Any]:
        """The columns of one row; None where the images were added without a column."""
        segment, at = self.place(row)
        record = segment.meta.slice(at, 1).to_pylist()[0]
        if segment.live is None or segment.live[at]:
            if len(self._looked_up) >= LOOKED_UP:
                self._looked_up.clear()
            self._looked_up[record["id"]] = row
        return {name: record.get(name) for name in self.meta.column_names}

    @cached_property
    def _looked_up(self) -> dict[str, int]:
        """Rows of images that were read lately: their thumbnails and reasons are asked for next."""
        return {}

    def thumbnail(self, row: int) -> bytes | None:
        """The small picture of one row, as the bytes of a WebP file; None where there is none."""
        segment, at = self.place(row)
        return None if segment.thumbnails is None else segment.thumbnails[THUMBNAIL][at].as_py()

    def find(self, ids: Sequence[str]) -> np.ndarray:
        """(n,) int64, the rows of images by id. Raises InputError naming the first that the index lacks."""
        found = self.present(ids)
        if missing := [one for one in ids if one not in found]:
            raise InputError(f"The index has no image '{missing[0]}' ({len(missing)} of {len(ids)} are not there).")
        return np.array([found[one] for one in ids], dtype=np.int64)

    def present(self, ids: Sequence[str]) -> dict[str, int]:
        """Those of the ids that the index has -> their rows."""
        import pyarrow as pa
        import pyarrow.compute as pc

        try:
            wanted = pa.array(list(ids), pa.string())
        except (pa.ArrowException, TypeError, UnicodeEncodeError) as error:
            raise InputError(f"Ids are strings, and one of these is not ({first_line(error)}).") from error
        lately = self._looked_up
        found = {one: row for one in ids if (row := lately.get(one)) is not None}  # another thread may clear it
        if len(found) == len(set(ids)):
            return found
        for segment, start in zip(self.segments, self.starts, strict=False):
            mask = pc.is_in(segment.meta["id"], value_set=wanted).to_numpy()
            rows = np.flatnonzero(mask if segment.live is None else mask & segment.live)
            names = segment.meta["id"].take(pa.array(rows)).to_pylist()
            found.update(zip(names, (rows + int(start)).tolist(), strict=True))
        return found

    def plain(self, rows: np.ndarray) -> Tensor:
        """(n, d) float32 unit embeddings of rows."""
        parts = [np.asarray(segment.rows.dense[0][at]) for segment, at in map(self.place, rows.tolist())]
        return torch.from_numpy(np.stack(parts).astype(np.float32))

    def allowed(self, where: str | pc.Expression | None) -> list[np.ndarray | None]:
        """For each segment (N,) bool, the rows that may be answers; None where all may."""
        if where is None:
            return [each.live for each in self.segments]
        chosen = matching(self.meta.drop_columns(["captions", "picture"]), where)
        parts = [chosen[start:stop] for start, stop in zip(self.starts, self.starts[1:], strict=False)]
        return [
            part if each.live is None else part & each.live for part, each in zip(parts, self.segments, strict=True)
        ]


def current(folder: Path, before: Snapshot) -> Snapshot:
    """`before`, where the index is as it was then, else what it is now.

    Raises as `Snapshot.read`.
    """
    for patience in reversed(range(50)):
        there = (folder / MANIFEST).exists()
        try:
            return before if stamp_of(folder) == before.stamp else Snapshot.read(folder, before)
        except ArtefactError:  # while an index is replaced, there is none for a moment
            if not patience or (there and (folder / MANIFEST).exists()):
                raise
            time.sleep(0.01)
    raise AssertionError


def stamp_of(folder: Path) -> tuple[int, int]:
    """Changes whenever the manifest is replaced. Raises ArtefactError where there is none."""
    try:
        stat = (folder / MANIFEST).stat()
    except OSError as error:
        raise ArtefactError(f"{folder} is no boresight index: it has no {MANIFEST}; check the path.") from error
    return stat.st_mtime_ns, stat.st_ino
