"""An index in Qdrant: candidates by its graph, in the order of the exact edited score.

Qdrant gives no answer that shares no index with a sparse query, and the best image of an edited query may share none.
So it is asked for the nearest to the dense part of the score, and what it keeps of them is scored here.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from boresight.editing import CaptionEditor
from boresight.encoders import Encoder
from boresight.errors import ArtefactError, InputError, require_at_least
from boresight.sae import LatentNames
from boresight.search.answers import answer
from boresight.search.engines import Block, EngineIndex, blocks_of, candidates_by, candidates_from, manifest_of
from boresight.search.index import SearchIndex
from boresight.search.qdrant_filters import from_payload, payload_kind, qdrant_filter, to_payload
from boresight.search.query import Query
from boresight.search.results import Results

CANDIDATES = 1000
_MANIFEST = str(uuid.uuid5(uuid.NAMESPACE_URL, "boresight.manifest"))
_OF_MANIFEST = "_manifest"
_AT_ONCE = 256  # points of a request


class QdrantStore(Protocol):
    """What is asked of Qdrant: `ClientStore` asks a server. Points are (id, vectors by name, payload)."""

    place: str

    def exists(self) -> bool:
        """Whether there is a collection of this name."""
        ...

    def create(self, vectors: dict[str, int], searched: str, half: bool, columns: dict[str, str]) -> None:
        """Make the collection, in place of one that is there.

        Args:
            vectors: name -> width.
            searched: the name of those that get a graph; the others are only kept.
            half: keep them in float16.
            columns: name -> 'keyword', 'integer', 'float', 'bool' or 'datetime', to filter by.
        """
        ...

    def upsert(self, points: Sequence[tuple[str, dict[str, list[float]], dict[str, Any]]]) -> None:
        """Put points in, in place of those of the same ids."""
        ...

    def delete(self, ids: Sequence[str]) -> None:
        """Take points out."""
        ...

    def count(self, where: dict[str, Any]) -> int:
        """How many points a filter lets through."""
        ...

    def nearest(self, using: str, vector: list[float], limit: int, where: dict[str, Any], exact: bool) -> list[Any]:
        """Points with `id`, `vector` and `payload`, by the inner product with their vectors of the name `using`."""
        ...

    def retrieve(self, ids: Sequence[str]) -> list[Any]:
        """Points by id, those that are there."""
        ...


class QdrantIndex(EngineIndex):
    """The images of an index as points of a Qdrant collection.

    What a search finds is exact among the candidates, the images nearest to the dense part of the score. With as many
    of them as the filter lets images through, it is what the local index finds.

    Attributes:
        store: how Qdrant is asked.

    Example:
        index = QdrantIndex.create("http://localhost:6333", "photos", SearchIndex.open("photos.index"))
        index = QdrantIndex.open("http://localhost:6333", "photos", editor=editor, encoder=encoder)
        print(index.search("a dog leaping over a hurdle", where="year > 2020", candidates=2000))

    Relations: `PostgresIndex` scores every image inside the engine; `rerank` does the same for any other store.
    """

    def __init__(self, store: QdrantStore, manifest: dict[str, Any], *belonging: Any) -> None:
        super().__init__(store.place, manifest, *belonging)
        self.store = store

    @classmethod
    def create(
        cls, url: str | QdrantStore, collection: str, index: SearchIndex, *, encoder: Encoder | None = None
    ) -> QdrantIndex:
        """Copy an index into a collection; one that is there is replaced if it is an index of this kind.

        Args:
            url: of the server, such as 'http://localhost:6333', or a store of your own.
            collection: its name.
            index: its vectors, codes and columns are copied, of pictures nothing.
            encoder: for queries in words and pictures; left out, it is loaded by its name when it is needed.

        Raises InputError for columns that Qdrant does not keep, ArtefactError where the server is not reached, refuses,
        or has another collection of this name.
        """
        store = _store(url, collection)
        one = cls(store, manifest_of(index), index.editor, index.names, encoder)
        one._require_fit()
        if store.exists() and not store.retrieve([_MANIFEST]):
            raise ArtefactError(f"{one.place} holds something else; choose another name for the collection.")
        columns = {name: kind for name in one.columns if (kind := payload_kind(one.schema.field(name).type))}
        vectors, searched = dict.fromkeys(one.layout.dense, one.layout.width), candidates_from(one.layout, one.editor)
        store.create(vectors, searched, one.layout.dtype == "float16", columns)
        one._write(blocks_of(index), [])
        unit = [1.0, *[0.0] * (one.layout.width - 1)]
        said = {_OF_MANIFEST: json.dumps(one.manifest)}
        store.upsert([(_MANIFEST, dict.fromkeys(one.layout.dense, unit), said)])
        return one

    @classmethod
    def open(
        cls,
        url: str | QdrantStore,
        collection: str = "",
        *,
        editor: CaptionEditor | None = None,
        names: LatentNames | None = None,
        encoder: Encoder | None = None,
    ) -> QdrantIndex:
        """An index that `create` made; the arguments are as for `PostgresIndex.open`.

        Raises ArtefactError where the server is not reached, the collection is no index or was not copied to its end,
        or editor or encoder are others.
        """
        store = _store(url, collection)
        found = store.retrieve([_MANIFEST]) if store.exists() else []
        if not found:
            raise ArtefactError(
                f"{store.place} is no boresight index, or was not copied to its end; check the name, or make it with "
                "QdrantIndex.create."
            )
        return cls(store, json.loads(found[0].payload[_OF_MANIFEST]), editor, names, encoder)

    def __len__(self) -> int:
        return self.store.count(_images(None))

    def search_batch(
        self, queries: Sequence[Query], *, ranks: bool = True, candidates: int | None = CANDIDATES
    ) -> list[Results]:
        """The answers to several queries, each by one request.

        Args:
            ranks: taken so that all engines are called alike; ranks by the cosine are not known here.
            candidates: how many images, the nearest to the dense part of the score, are scored; None scores all that
                the filter lets through. `Results.exact` says whether those were all.

        Raises InputError as `SearchIndex.search_batch` does, and for filters that Qdrant does not express.
        """
        if candidates is not None:
            require_at_least("candidates", candidates, 1)
        answers = []
        for prepared in self._prepare(queries):
            where = _images(qdrant_filter(prepared.query.where, self.schema))
            matches = self.store.count(where)
            asked = matches if candidates is None else max(candidates, prepared.query.k + prepared.query.offset)
            exact = asked >= matches
            vector = candidates_by(prepared, self.layout, self.editor).tolist()
            using = candidates_from(self.layout, self.editor)
            points = self.store.nearest(using, vector, min(asked, matches), where, exact) if matches else []
            snapshot = self._block(points).snapshot(self.layout)
            found = answer([prepared], snapshot, [None], self.editor, self.names, False)[0]
            answers.append(replace(found, matches=matches, exact=exact))
        return answers

    def _block(self, points: Sequence[Any]) -> Block:
        """Points as they were put in."""
        import pyarrow as pa

        dtype, width = self.layout.dtype, self.layout.width
        payloads = [point.payload for point in points]
        matrices = {
            name: np.array([point.vector[name] for point in points], dtype=dtype).reshape(-1, width)
            for name in self.layout.dense
        }
        for name in ("norms", *(["bias"] if self.layout.biased else [])):
            matrices[name] = np.array([[one[f"_{name}"]] for one in payloads], dtype=np.float32).reshape(-1, 1)
        if self.layout.n_latents:
            slots = max((len(one["_indices"]) for one in payloads), default=0) or 1
            for name in ("indices", *self.layout.values):
                rows = np.zeros((len(points), slots), dtype=np.int64 if name == "indices" else np.float32)
                for row, one in zip(rows, payloads, strict=True):
                    row[: len(one[f"_{name}"])] = one[f"_{name}"]
                matrices[name] = rows
        columns = [
            pa.array([from_payload(one.get(field.name), field.type) for one in payloads]).cast(field.type)
            for field in self.schema
        ]
        return Block(pa.table(columns, schema=self.schema), matrices)

    def _write(self, blocks: Iterator[Block], removed: Sequence[str]) -> None:
        made: dict[str, None] = {}
        for block in blocks:  # each request is a change of its own: points are replaced one by one, none goes before
            points = list(self._points(block))
            made |= dict.fromkeys(point[0] for point in points)
            for start in range(0, len(points), _AT_ONCE):
                self.store.upsert(points[start : start + _AT_ONCE])
        gone = [point for point in map(point_id, removed) if point not in made]
        for start in range(0, len(gone), _AT_ONCE):
            self.store.delete(gone[start : start + _AT_ONCE])

    def _points(self, block: Block) -> Iterator[tuple[str, dict[str, list[float]], dict[str, Any]]]:
        kept = [name for name in block.matrices if name not in (*self.layout.dense, "texts")]
        for row, record in enumerate(block.meta.to_pylist()):
            payload = {name: to_payload(value, name) for name, value in record.items() if value is not None}
            used = block.matrices["activations"][row] != 0 if self.layout.n_latents else slice(None)
            if self.layout.levelled:
                used = used | (block.matrices["values"][row] != 0)
            for name in kept:
                value = block.matrices[name][row]
                payload[f"_{name}"] = value[0].item() if name in ("norms", "bias") else value[used].tolist()
            vectors = {name: block.matrices[name][row].tolist() for name in self.layout.dense}
            yield point_id(record["id"]), vectors, payload

    def _present(self, ids: Sequence[str]) -> list[str]:
        return list(self._vectors(ids))

    def _vectors(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        found = {}
        for start in range(0, len(ids), _AT_ONCE):
            for point in self.store.retrieve([point_id(one) for one in ids[start : start + _AT_ONCE]]):
                found[point.payload["id"]] = np.array(point.vector["plain"], dtype=np.float32)
        return found

    def _require_fit(self) -> None:
        for name in self.schema.names:
            if name.startswith("_") or not name.isidentifier():
                raise InputError(
                    f"The column '{name}' cannot be one in Qdrant: names there are words that do not begin with '_'; "
                    "rename it."
                )


def point_id(image: str) -> str:
    """The id of an image's point, since Qdrant's are numbers or UUIDs."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"boresight:{image}"))


def _images(where: dict[str, Any] | None) -> dict[str, Any]:
    """A filter that leaves the manifest out."""
    own: dict[str, Any] = {"must_not": [{"has_id": [_MANIFEST]}]}
    return own if where is None else {**own, "must": [where]}


def _store(url: str | QdrantStore, collection: str) -> QdrantStore:
    if not isinstance(url, str):
        return url
    from boresight.search.qdrant_client_store import ClientStore

    return ClientStore(url, collection)
