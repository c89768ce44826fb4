"""An index on disk: segments of images that are written once, and the manifest that says which of them count.

INDEX/manifest.json              put in place last, at one stroke: until then the index is as it was before
INDEX/editor/, INDEX/names/      the caption editor and the names of its latents, where there are any
INDEX/segment-000001/*.npy       matrices of its N images, memory-mapped
INDEX/segment-000001/*.arrow     ids, splits, captions and columns of the images; thumbnails
INDEX/segment-000001/removed-*   rows that count no more
INDEX/segment-000001/graph-*     links for approximate search, where a graph was built
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from boresight.brief import brief
from boresight.embeddings.rowfile import RowFile, map_rows, verify_rows
from boresight.errors import ArtefactError, first_line
from boresight.search.graph import Graph, GraphOptions, open_graph, verify_graph, write_graph
from boresight.search.scan import Rows
from boresight.storage import sync, writing

if TYPE_CHECKING:
    import pyarrow as pa

KIND = "index"
AGAIN = "make the index again."
META, THUMBNAILS = "meta.arrow", "thumbnails.arrow"
THUMBNAIL = "thumbnail"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which matrices every segment of an index has.

    Attributes:
        width: d.
        dtype: 'float16' or 'float32', of embeddings and codes.
        based: 'base.npy' (N, d), the caption-free side of the edit over |x|, where it is not the unit embedding itself.
        n_latents: of the editor's autoencoder; 0 without codes. With codes `indices.npy` (N, k) and `activations.npy`
            (N, k), z over |x|, k as each segment needs.
        levelled: 'values.npy' (N, k), the activations as the edit counts them, where that is not in proportion.
        biased: 'bias.npy' (N,) float32, the hubness of the images.
        texts: 'texts.npy' (M, d), the unit embeddings of the captions, those of each image behind one another.
    """

    width: int
    dtype: str
    based: bool = False
    n_latents: int = 0
    levelled: bool = False
    biased: bool = False
    texts: bool = False

    @property
    def index_dtype(self) -> str:
        """Of `indices.npy`."""
        return "uint16" if self.n_latents <= 2**16 else "int32"

    @property
    def dense(self) -> tuple[str, ...]:
        """Names of the matrices of width d."""
        return ("plain", "base") if self.based else ("plain",)

    @property
    def values(self) -> tuple[str, ...]:
        """Names of the matrices of activations."""
        if not self.n_latents:
            return ()
        return ("activations", "values") if self.levelled else ("activations",)

    def dtype_of(self, name: str) -> str:
        """Of one matrix."""
        return {"indices": self.index_dtype, "norms": "float32", "bias": "float32"}.get(name, self.dtype)


@dataclass(frozen=True)
class Segment:
    """N images of an index, memory-mapped.

    Attributes:
        name: of its folder.
        rows: what is scanned.
        norms: (N,) float32, lengths of the embeddings.
        meta: columns `id`, `split`, `captions` and those of the user.
        thumbnails: one column of WebP files, null where there is no picture; None where it was made without pictures.
        removed: (R,) int64, rows that count no more, ascending.
        texts: (M, d) unit embeddings of the captions in `meta`; None where the index was made without.
        said: what the manifest says of it.
        stamp: of the file of `meta`, which tells it from a segment of an index that was made in its place.
    """

    folder: Path
    name: str
    rows: Rows
    norms: np.ndarray
    meta: pa.Table
    thumbnails: pa.Table | None
    removed: np.ndarray
    texts: np.ndarray | None
    said: dict[str, Any] = field(repr=False)
    stamp: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.norms)

    @cached_property
    def live(self) -> np.ndarray | None:
        """(N,) bool, rows that count; None where all do."""
        if not len(self.removed):
            return None
        live = np.ones(len(self), dtype=bool)
        live[self.removed] = False
        return live

    @cached_property
    def graph(self) -> Graph | None:
        """Along which candidates are found; None where none was built. Raises as `open_graph`."""
        said = self.said.get("graph")
        if said is None:
            return None
        return open_graph(self.folder / self.name / said["file"], self.rows.dense[said["matrix"]], said)

    @cached_property
    def caption_owners(self) -> np.ndarray:
        """(M,) int64, the row here of the image of each caption."""
        return np.repeat(np.arange(len(self)), caption_counts(self.meta))


def write_segment(
    folder: Path,
    name: str,
    layout: Layout,
    blocks: Iterable[Mapping[str, Tensor]],
    meta: pa.Table,
    thumbnails: Iterable[bytes | None] | None,
) -> dict[str, Any]:
    """Write `folder`/`name` and force it to the disk; returns what the manifest is to say of it.

    blocks: of rows, matrix name -> (B, width), all of them of the names of the layout, codes with the same k; rows of
        'texts' are captions.
    """
    target = folder / name
    shutil.rmtree(target, ignore_errors=True)  # left by a writer that was killed
    target.mkdir()
    files: dict[str, RowFile] = {}
    try:
        for block in blocks:
            for key, rows in block.items():
                if key not in files:
                    files[key] = RowFile(target / f"{key}.npy", rows.shape[1], layout.dtype_of(key))
                files[key].append(rows)
        for file in files.values():
            file.seal()
        said = {f"{key}.npy": file.finish() for key, file in files.items()}
    finally:
        for file in files.values():
            file.__exit__(None, None, None)
    _write_arrow(target / META, meta.to_batches(max_chunksize=2**16), meta.schema)
    if thumbnails is not None:
        _write_thumbnails(target / THUMBNAILS, thumbnails)
    sync(target)
    return {"name": name, "rows": meta.num_rows, "files": said, "thumbnails": thumbnails is not None, "removed": ""}


def open_segment(folder: Path, layout: Layout, said: dict[str, Any]) -> Segment:
    """Map a segment. Raises ArtefactError where a file is missing, torn or of another shape than the manifest says."""
    try:
        files, place = said["files"], folder / said["name"]
        arrays = {
            name.removesuffix(".npy"): map_rows(place / name, each, AGAIN).numpy() for name, each in files.items()
        }
        stamp, meta = _stamp(place / META), read_arrow(place / META)
        expected = dict.fromkeys(files, said["rows"])
        if layout.texts:
            expected["texts.npy"] = int(caption_counts(meta).sum())
        if any(each["rows"] != expected[name] for name, each in files.items()) or meta.num_rows != said["rows"]:
            raise ArtefactError(f"The files of {place} do not belong together; {AGAIN}")
        removed = np.load(place / said["removed"]) if said["removed"] else np.empty(0, dtype=np.int64)
        if removed.dtype != np.int64 or removed.ndim != 1 or ((removed < 0) | (removed >= len(meta))).any():
            raise ArtefactError(f"{place / said['removed']} has rows that are not there; {AGAIN}")
        rows = Rows(
            tuple(arrays[name] for name in layout.dense),
            arrays["indices"] if layout.n_latents else None,
            tuple(arrays[name] for name in layout.values),
            arrays["bias"][:, 0] if layout.biased else None,
        )
        small = read_arrow(place / THUMBNAILS) if said["thumbnails"] else None
        return Segment(
            folder, said["name"], rows, arrays["norms"][:, 0], meta, small, removed, arrays.get("texts"), said, stamp
        )
    except (KeyError, TypeError, ValueError, OSError, EOFError) as error:
        raise ArtefactError(f"A segment of {folder} is missing or torn ({first_line(error)}); {AGAIN}") from error


def require_sound(file: Path, manifest: Mapping[str, Any]) -> None:
    """Raises ArtefactError for a manifest of an index that lacks what is read of it, or has it of another kind."""

    def require(there: Any, wanted: Mapping[str, Any], at: str) -> None:
        for key, kind in wanted.items():
            value = there.get(key) if isinstance(there, dict) else None
            if type(value) is not kind or (isinstance(value, int) and value < 0):
                raise ArtefactError(f"{file} has {brief(value)} as '{at}{key}'; {AGAIN}")

    require(manifest, {"layout": dict, "segments": list, "generation": int, "last": int}, "")
    kinds = {name: {"str": str, "int": int, "bool": bool}[kind] for name, kind in Layout.__annotations__.items()}
    require(manifest["layout"], kinds, "layout.")
    if manifest["layout"]["dtype"] not in ("float16", "float32") or manifest["layout"].keys() != kinds.keys():
        raise ArtefactError(f"{file} has a layout that no index has; {AGAIN}")
    layout = Layout(**manifest["layout"])
    codes = ("indices", *layout.values) if layout.n_latents else ()
    others = [name for name in ("bias", "texts") if getattr(layout, {"bias": "biased"}.get(name, name))]
    matrices = {f"{name}.npy" for name in (*layout.dense, "norms", *codes, *others)}
    for number, said in enumerate(manifest["segments"]):
        at = f"segments.{number}."
        require(said, {"name": str, "rows": int, "files": dict, "removed": str, "thumbnails": bool}, at)
        if not re.fullmatch(r"segment-\d+", said["name"]) or not re.fullmatch(r"(removed-\d+\.npy)?", said["removed"]):
            raise ArtefactError(f"{file} has names of files that no index has; {AGAIN}")
        if said["files"].keys() != matrices:
            raise ArtefactError(f"{file} names other matrices than its layout has; {AGAIN}")
        for name, matrix in said["files"].items():
            require(matrix, {"rows": int, "width": int, "dtype": str, "parts": list}, f"{at}files.{name}.")
            parts = [part if isinstance(part, list) and len(part) == 2 else [None, ""] for part in matrix["parts"]]
            ends = [end if type(end) is int else -1 for end, _ in parts]
            if [0, *ends] != sorted([0, *ends]) or ends[-1:] != [matrix["rows"]]:
                raise ArtefactError(f"{file} has {brief(matrix['parts'])} as '{at}files.{name}.parts'; {AGAIN}")
            wanted = layout.dtype_of(name.removesuffix(".npy"))
            if matrix["dtype"] != wanted or (name[:-4] in (*layout.dense, "texts") and matrix["width"] != layout.width):
                raise ArtefactError(f"{file} has a matrix {name} of another kind than its layout; {AGAIN}")


def is_still(segment: Segment, folder: Path, said: dict[str, Any]) -> bool:
    """Whether the segment is the one that a manifest speaks of."""
    try:
        return segment.said == said and segment.stamp == _stamp(folder / said["name"] / META)
    except OSError:
        return False


def _stamp(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_mtime_ns, stat.st_ino


def verify_segment(segment: Segment) -> None:
    """Read its matrices once and compare hashes. Raises ArtefactError naming the file and rows that were altered."""
    for name, said in segment.said["files"].items():
        verify_rows(segment.folder / segment.name / name, said, AGAIN)
    if (graph := segment.said.get("graph")) is not None:
        verify_graph(segment.folder / segment.name / graph["file"], graph)


def write_removed(segment: Segment, removed: np.ndarray, generation: int) -> dict[str, Any]:
    """Put down which rows count no more; returns what the manifest is to say of the segment."""
    name = f"removed-{generation:06d}.npy"
    file = segment.folder / segment.name / name
    np.save(file, np.unique(removed))
    sync(file)
    return {**segment.said, "removed": name}


def has_graph(segment: Segment, matrix: int, options: GraphOptions) -> bool:
    """Whether there is a graph over this matrix, built so, and whole."""
    said = segment.said.get("graph", {})
    if not {"matrix": matrix, **asdict(options)}.items() <= said.items():
        return False
    try:
        verify_graph(segment.folder / segment.name / said["file"], said)
    except ArtefactError:
        return False
    return True


def write_segment_graph(
    segment: Segment, matrix: int, options: GraphOptions, generation: int, bar: Any
) -> dict[str, Any]:
    """Build the graph over one of its dense matrices; returns what the manifest is to say of the segment."""
    name = f"graph-{generation:06d}.faiss"
    said = write_graph(segment.folder / segment.name / name, segment.rows.dense[matrix], options, bar)
    return {**segment.said, "graph": {"file": name, "matrix": matrix, **asdict(options), **said}}


def drop_unused(folder: Path, said: Sequence[dict[str, Any]]) -> None:
    """Delete what the manifest names no more, or a killed writer never came to name."""
    kept = {each["name"]: {each["removed"], each.get("graph", {}).get("file")} for each in said}
    for place in folder.glob("segment-*"):
        if place.name not in kept:
            shutil.rmtree(place, ignore_errors=True)
            continue
        for file in (*place.glob("removed-*.npy"), *place.glob("graph-*.faiss")):
            if file.name not in kept[place.name]:
                file.unlink(missing_ok=True)


def caption_counts(meta: pa.Table) -> np.ndarray:
    """(N,) int64, how many captions each image has."""
    import pyarrow.compute as pc

    return pc.fill_null(pc.list_value_length(meta["captions"]), 0).to_numpy().astype(np.int64)


def read_arrow(file: Path) -> pa.Table:
    """A table, memory-mapped. Raises ArtefactError where the file is missing or torn."""
    import pyarrow as pa

    try:
        return pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    except (OSError, pa.ArrowException) as error:
        raise ArtefactError(f"{file} is missing or torn ({first_line(error)}); {AGAIN}") from error


def _write_arrow(file: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
    import pyarrow as pa

    with writing(file), pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as out:
        for batch in batches:
            out.write_batch(batch)
    sync(file)


def _write_thumbnails(file: Path, thumbnails: Iterable[bytes | None]) -> None:
    import pyarrow as pa

    schema = pa.schema([(THUMBNAIL, pa.binary())])

    def batches() -> Iterable[pa.RecordBatch]:
        block: list[bytes | None] = []
        for each in thumbnails:
            block.append(each)
            if len(block) == 1024:
                yield pa.record_batch([pa.array(block, pa.binary())], schema=schema)
                block = []
        yield pa.record_batch([pa.array(block, pa.binary())], schema=schema)

    _write_arrow(file, batches(), schema)
