"""What indexes in engines of other makes share: they are asked with the same queries and give the same answers.

An engine keeps of each image what a local index keeps (`Block`). It finds rows; their scores, reasons and records are
then made by the code of the local index, from those rows alone.
"""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from boresight.brief import Brief, brief, spelled
from boresight.data import Collection
from boresight.editing import CaptionEditor
from boresight.embeddings import Embeddings
from boresight.encoders import Encoder
from boresight.errors import ArtefactError, InputError, first_line, one_of
from boresight.progress import progress
from boresight.sae import LatentNames
from boresight.search.belonging import latent_number, named_encoder, require_same_editor, require_same_encoder
from boresight.search.contents import Metadata, meta_table
from boresight.search.filters import matching
from boresight.search.index import SearchIndex
from boresight.search.query import PreparedQuery, Query, prepare
from boresight.search.results import Results
from boresight.search.scan import Rows
from boresight.search.segments import KIND, Layout, Segment
from boresight.search.sides import MOST_AT_ONCE, graph_matrix, image_rows
from boresight.search.snapshot import Snapshot
from boresight.search.writing import old_blocks
from boresight.storage import FORMAT

if TYPE_CHECKING:
    import pyarrow as pa


class Engine(Protocol):
    """An index of images, wherever it is kept: `SearchIndex`, `PostgresIndex` and `QdrantIndex` are engines."""

    editor: CaptionEditor | None
    names: LatentNames | None

    def __len__(self) -> int: ...

    @property
    def columns(self) -> list[str]:
        """Names of the columns that a filter may use."""
        ...

    def add(
        self, embeddings: Embeddings, *, collection: Collection | None = None, metadata: Metadata | None = None
    ) -> None:
        """Add images."""
        ...

    def update(
        self, embeddings: Embeddings, *, collection: Collection | None = None, metadata: Metadata | None = None
    ) -> None:
        """Add images in place of those of the same ids."""
        ...

    def remove(self, ids: str | Sequence[str]) -> None:
        """Remove images by id."""
        ...

    def search(self, text: Any = (), **options: Any) -> Results:
        """The images that match best. Options are the fields of `Query`, and those of the engine."""
        ...


@dataclass(frozen=True, repr=False)
class Block(Brief):
    """B images as an engine keeps them.

    Attributes:
        meta: columns `id`, `split`, `captions` and those of the user.
        matrices: name as in `Layout` -> (B, width of it); `indices`, `activations` and `values` are (B, k), 0 behind
            the last active latent.
    """

    meta: pa.Table
    matrices: dict[str, np.ndarray]

    def __len__(self) -> int:
        return self.meta.num_rows

    def snapshot(self, layout: Layout) -> Snapshot:
        """These images as an index of their own."""
        import pyarrow as pa

        rows = Rows(
            tuple(np.ascontiguousarray(self.matrices[name]) for name in layout.dense),
            self.matrices["indices"].astype(layout.index_dtype) if layout.n_latents else None,
            tuple(np.ascontiguousarray(self.matrices[name]) for name in layout.values),
            self.matrices["bias"][:, 0].astype(np.float32) if layout.biased else None,
        )
        meta = self.meta.append_column("picture", pa.nulls(len(self)))
        norms, removed = self.matrices["norms"][:, 0], np.empty(0, dtype=np.int64)
        segment = Segment(
            folder=Path(),
            name="",
            rows=rows,
            norms=norms,
            meta=meta,
            thumbnails=None,
            removed=removed,
            texts=None,
            said={},
        )
        return Snapshot({}, layout, (segment,), (0, 0))


class EngineIndex(ABC):
    """Base of the indexes in other engines.

    Attributes:
        place: where it is, in words.
        manifest: what is known of it; the engine keeps it beside the images.
        layout: what is kept of each image.
        schema: of the columns of the images.
        editor: whose score orders the answers; None searches by the cosine.
        names: of the editor's latents; None where there are none.
    """

    def __init__(
        self,
        place: str,
        manifest: dict[str, Any],
        editor: CaptionEditor | None,
        names: LatentNames | None,
        encoder: Encoder | None,
    ) -> None:
        """Raises ArtefactError for a manifest of another format, or another editor or encoder than it names."""
        if manifest.get("kind") != KIND or manifest.get("format") != FORMAT:
            raise ArtefactError(
                f"{place} was written in format {manifest.get('format')} and this version reads {FORMAT}; copy the "
                "index again."
            )
        require_same_editor(place, manifest, editor)
        if names is not None and editor is not None:
            names.require_same_autoencoder(editor.sae)
        self.place, self.manifest, self.editor, self.names = place, manifest, editor, names
        self.layout, self.schema = Layout(**manifest["layout"]), _schema(manifest["schema"])
        self._encoder: Encoder | None = None
        if encoder is not None:
            self.use(encoder)

    def __repr__(self) -> str:
        edited = {} if self.editor is None else {"editor": repr(self.editor.config.form)}
        parts = {"place": repr(self.place), "width": str(self.layout.width)}
        return spelled(self, {**parts, "encoder": brief(self.manifest.get("encoder", "")), **edited})

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def columns(self) -> list[str]:
        """Names of the columns that a filter may use."""
        return [name for name in self.schema.names if name != "captions"]

    @property
    def encoder(self) -> Encoder:
        """That made the embeddings. Raises InputError or ArtefactError where it cannot be loaded by its name."""
        if self._encoder is None:
            self.use(named_encoder(self.place, self.manifest))
        assert self._encoder is not None
        return self._encoder

    def use(self, encoder: Encoder) -> None:
        """Read queries with this encoder. Raises ArtefactError where the embeddings are of another."""
        require_same_encoder(self.place, self.manifest, self.layout.width, encoder)
        self._encoder = encoder

    def add(
        self, embeddings: Embeddings, *, collection: Collection | None = None, metadata: Metadata | None = None
    ) -> None:
        """Add images; the arguments are as for `SearchIndex.add`.

        Raises InputError for ids that are there already and columns that the index lacks, ArtefactError for embeddings
        of another encoder and where the engine fails.
        """
        blocks = self._blocks(embeddings, collection, metadata)
        if there := self._present(embeddings.ids):
            raise InputError(
                f"The index has '{there[0]}' already ({len(there)} of {len(embeddings)} are there); use update, which "
                "replaces them."
            )
        self._write(blocks, [])

    def update(
        self, embeddings: Embeddings, *, collection: Collection | None = None, metadata: Metadata | None = None
    ) -> None:
        """Add images in place of those of the same ids. Raises as `add`."""
        self._write(self._blocks(embeddings, collection, metadata), self._present(embeddings.ids))

    def remove(self, ids: str | Sequence[str]) -> None:
        """Remove images by id. Raises InputError where one is not there."""
        wanted = list(dict.fromkeys([ids] if isinstance(ids, str) else ids))
        self._require_present(wanted, self._present(wanted))
        self._write(iter(()), wanted)

    def search(self, text: Any = (), **options: Any) -> Results:
        """The images that match best. Options are the fields of `Query`, and those of `search_batch`.

        Raises InputError as `SearchIndex.search` does.
        """
        of_engine = {name: options.pop(name) for name in ("ranks", "candidates") if name in options}
        return self.search_batch([Query(text=text, **options)], **of_engine)[0]

    @abstractmethod
    def search_batch(
        self, queries: Sequence[Query], *, ranks: bool = True, candidates: int | None = None
    ) -> list[Results]:
        """The answers to several queries."""

    @abstractmethod
    def _write(self, blocks: Iterator[Block], removed: Sequence[str]) -> None:
        """Take out images and put in others."""

    @abstractmethod
    def _present(self, ids: Sequence[str]) -> list[str]:
        """Those of the ids that the index has."""

    @abstractmethod
    def _vectors(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Those of the ids that the index has -> their unit embeddings."""

    def _prepare(self, queries: Sequence[Query]) -> list[PreparedQuery]:
        """Queries, embedded. Their filters are tried, so that what a local index refuses is refused here too."""
        for query in queries:
            if query.candidates is not None:
                raise InputError("The candidates of a `Query` are of local indexes; pass `candidates` to the search.")
            if query.where is None:
                continue
            if not isinstance(query.where, str):
                raise InputError("An expression of pyarrow filters local indexes alone; write the filter as text.")
            matching(self.schema.empty_table().drop_columns(["captions"]), query.where)
        return prepare(
            queries,
            self.layout,
            editor=self.editor,
            embed_texts=lambda texts: self.encoder.embed_texts(texts),
            embed_images=lambda images: self.encoder.embed_images(images),
            vectors=self._found_vectors,
            latent=lambda name: latent_number(name, self.editor, self.names),
        )

    def _found_vectors(self, ids: Sequence[str]) -> Tensor:
        found = self._vectors(ids)
        self._require_present(ids, found)
        return torch.from_numpy(np.stack([found[one] for one in ids]).astype(np.float32))

    def _require_present(self, ids: Sequence[str], found: Any) -> None:
        there = set(found)
        if missing := [one for one in ids if one not in there]:
            raise InputError(f"The index has no image '{missing[0]}' ({len(missing)} of {len(ids)} are not there).")

    def _blocks(
        self, embeddings: Embeddings, collection: Collection | None, metadata: Metadata | None
    ) -> Iterator[Block]:
        require_same_encoder(self.place, self.manifest, self.layout.width, embeddings)
        meta = conformed(meta_table(embeddings, collection, metadata).drop_columns(["picture"]), self.schema)
        return self._made(embeddings, meta)

    def _made(self, embeddings: Embeddings, meta: pa.Table) -> Iterator[Block]:
        with progress(total=len(embeddings), what="indexing", unit=" images", delay=1.0) as bar:
            for start in range(0, len(embeddings), MOST_AT_ONCE):
                images = embeddings.images[start : start + MOST_AT_ONCE]
                stored = image_rows(images, self.layout, self.editor)
                matrices = {name: _as_stored(name, rows.cpu().numpy(), self.layout) for name, rows in stored.items()}
                yield Block(meta.slice(start, len(images)), matrices)
                bar.update(len(images))


def candidates_from(layout: Layout, editor: CaptionEditor | None) -> str:
    """The name of the vectors among which candidates are found: those that the dense part of the score is of."""
    return layout.dense[graph_matrix(layout, editor)]


def candidates_by(prepared: PreparedQuery, layout: Layout, editor: CaptionEditor | None) -> np.ndarray:
    """(d,) float32: candidates have the largest inner products with it, the dense part of the score undivided."""
    edited = editor is not None and editor.config.form != "reconstruct"
    columns = prepared.columns if edited else prepared.plain_columns
    return np.stack([column.dense for column in columns]).sum(0, dtype=np.float32)


def manifest_of(index: SearchIndex) -> dict[str, Any]:
    """What an engine keeps beside the images of a local index."""
    snapshot = index.snapshot()
    layout, schema = replace(snapshot.layout, texts=False), snapshot.meta.drop_columns(["picture"]).schema
    facts = {name: snapshot.manifest.get(name) for name in ("encoder", "encoder_fingerprint", "name", "editor")}
    kept = {"layout": asdict(layout), "schema": base64.b64encode(schema.serialize().to_pybytes()).decode()}
    return {**facts, **kept, "kind": KIND, "format": FORMAT, "boresight": version("boresight")}


def blocks_of(index: SearchIndex) -> Iterator[Block]:
    """The images of a local index, as it stands now."""
    import pyarrow as pa

    snapshot = index.snapshot()
    layout = replace(snapshot.layout, texts=False)
    with progress(total=len(snapshot), what="copying", unit=" images", delay=1.0) as bar:
        for segment, start in zip(snapshot.segments, snapshot.starts, strict=False):
            meta = snapshot.meta.slice(int(start), len(segment)).drop_columns(["picture"])
            rows = np.arange(len(segment)) if segment.live is None else np.flatnonzero(segment.live)
            slots = 0 if segment.rows.indices is None else segment.rows.indices.shape[1]
            places = (rows[first : first + MOST_AT_ONCE] for first in range(0, len(rows), MOST_AT_ONCE))
            for own, block in zip(places, old_blocks([(segment, rows)], layout, slots, bar), strict=True):
                yield Block(meta.take(pa.array(own)), {name: part.numpy() for name, part in block.items()})


def conformed(meta: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the columns of an index. Raises InputError for a column that it lacks, or of another type."""
    import pyarrow as pa

    if unknown := [name for name in meta.column_names if name not in schema.names]:
        raise InputError(
            f"The index has no column '{unknown[0]}'; {one_of(unknown[0], schema.names)}, leave it out, or copy the "
            "index again with it."
        )
    columns = []
    for field in schema:
        if field.name not in meta.column_names:
            columns.append(pa.nulls(meta.num_rows, field.type))
            continue
        try:
            columns.append(meta[field.name].cast(field.type))
        except (pa.ArrowException, ValueError) as error:
            raise InputError(
                f"The column '{field.name}' of the index holds {field.type}, and the new one does not fit "
                f"({first_line(error)}); change it."
            ) from error
    return pa.table(columns, schema=schema)


def _as_stored(name: str, rows: np.ndarray, layout: Layout) -> np.ndarray:
    return rows.astype(layout.dtype_of(name))


def _schema(said: str) -> pa.Schema:
    import pyarrow as pa

    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(said)))
