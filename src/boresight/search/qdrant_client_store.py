"""A Qdrant server, asked by qdrant-client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from boresight.errors import ArtefactError, InputError, first_line

try:
    from qdrant_client import QdrantClient, models
    from qdrant_client.http.exceptions import ApiException
except ImportError as error:
    raise InputError("An index in Qdrant needs qdrant-client; pip install 'boresight[qdrant]'.") from error


class ClientStore:
    """One collection of a server; a `QdrantStore`.

    Args:
        url: of the server, or a client that is set up in another way, with a key or a time limit.
        collection: its name.
    """

    def __init__(self, url: str | QdrantClient, collection: str) -> None:
        self.place = f"collection '{collection}' of {url if isinstance(url, str) else 'Qdrant'}"
        self.collection = collection
        with self._said():
            self.client = QdrantClient(url=url, check_compatibility=False) if isinstance(url, str) else url

    def exists(self) -> bool:
        """Whether there is a collection of this name."""
        with self._said():
            return self.client.collection_exists(self.collection)

    def create(self, vectors: dict[str, int], searched: str, half: bool, columns: dict[str, str]) -> None:
        """Make the collection, in place of one that is there."""
        kind = models.Datatype.FLOAT16 if half else models.Datatype.FLOAT32
        unsearched = models.HnswConfigDiff(m=0)
        configs = {
            name: models.VectorParams(
                size=width,
                distance=models.Distance.DOT,
                datatype=kind,
                hnsw_config=None if name == searched else unsearched,
                on_disk=name != searched,
            )
            for name, width in vectors.items()
        }
        with self._said():
            if self.client.collection_exists(self.collection):
                self.client.delete_collection(self.collection)
            self.client.create_collection(self.collection, vectors_config=configs)
            for name, schema in columns.items():
                self.client.create_payload_index(self.collection, name, models.PayloadSchemaType(schema), wait=True)

    def upsert(self, points: Sequence[tuple[str, dict[str, list[float]], dict[str, Any]]]) -> None:
        """Put points in, in place of those of the same ids."""
        given = [models.PointStruct(id=one, vector=vectors, payload=payload) for one, vectors, payload in points]
        with self._said():
            self.client.upsert(self.collection, given, wait=True)

    def delete(self, ids: Sequence[str]) -> None:
        """Take points out."""
        with self._said():
            self.client.delete(self.collection, models.PointIdsList(points=list(ids)), wait=True)

    def count(self, where: dict[str, Any]) -> int:
        """How many points a filter lets through."""
        with self._said():
            return self.client.count(self.collection, count_filter=models.Filter(**where), exact=True).count

    def nearest(self, using: str, vector: list[float], limit: int, where: dict[str, Any], exact: bool) -> list[Any]:
        """Points by the inner product with their vectors of the name `using`."""
        with self._said():
            return self.client.query_points(
                self.collection,
                query=vector,
                using=using,
                limit=limit,
                query_filter=models.Filter(**where),
                search_params=models.SearchParams(exact=exact),
                with_payload=True,
                with_vectors=True,
            ).points

    def retrieve(self, ids: Sequence[str]) -> list[Any]:
        """Points by id, those that are there."""
        with self._said():
            return self.client.retrieve(self.collection, list(ids), with_payload=True, with_vectors=True)

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except (ApiException, OSError) as error:
            raise ArtefactError(
                f"{self.place} cannot be reached or refuses ({first_line(error)}); check that the server runs, and the "
                "url."
            ) from error
