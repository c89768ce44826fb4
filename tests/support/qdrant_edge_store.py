"""Qdrant's engine inside the process, behind the same seam as a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge


class EdgeStore:
    """A `QdrantStore` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.place, self.made = folder, "a shard", 0
        self.shard: Any = None

    def exists(self) -> bool:
        return self.shard is not None

    def create(self, vectors: dict[str, int], searched: str, half: bool, columns: dict[str, str]) -> None:
        kind = edge.VectorStorageDatatype.Float16 if half else edge.VectorStorageDatatype.Float32
        params = {
            name: edge.EdgeVectorParams(width, edge.Distance.Dot, datatype=kind) for name, width in vectors.items()
        }
        self.made += 1
        (self.folder / str(self.made)).mkdir(parents=True)
        self.shard = edge.EdgeShard.create(str(self.folder / str(self.made)), edge.EdgeConfig(vectors=params))

    def upsert(self, points: Sequence[tuple[str, dict[str, list[float]], dict[str, Any]]]) -> None:
        given: list[Any] = [edge.Point(one, dict(vectors), payload) for one, vectors, payload in points]
        self.shard.update(edge.UpdateOperation.upsert_points(given))

    def delete(self, ids: Sequence[str]) -> None:
        self.shard.update(edge.UpdateOperation.delete_points(list(ids)))

    def count(self, where: dict[str, Any]) -> int:
        return self.shard.count(edge.CountRequest(exact=True, filter=_filter(where)))

    def nearest(self, using: str, vector: list[float], limit: int, where: dict[str, Any], exact: bool) -> list[Any]:
        return self.shard.query(
            edge.QueryRequest(
                limit=limit,
                query=edge.Query.Nearest(vector, using=using),
                filter=_filter(where),
                params=edge.SearchParams(exact=exact),
                with_payload=True,
                with_vector=True,
            )
        )

    def retrieve(self, ids: Sequence[str]) -> list[Any]:
        return self.shard.retrieve(list(ids), with_payload=True, with_vector=True)


def _filter(where: dict[str, Any]) -> Any:
    return edge.Filter(**{name: [_condition(each) for each in parts] for name, parts in where.items()})


def _condition(said: dict[str, Any]) -> Any:
    if "key" in said and "match" in said:
        value = said["match"]["value"]
        value = np.bool_(value) if isinstance(value, bool) else value  # edge 0.9.0 takes True for 1, not np.True_
        return edge.FieldCondition(said["key"], match=edge.MatchValue(value))
    if "key" in said:
        ends = said["range"]
        kind = edge.RangeDateTime if any(isinstance(end, str) for end in ends.values()) else edge.RangeFloat
        return edge.FieldCondition(said["key"], range=kind(**ends))
    if "is_empty" in said:
        return edge.IsEmptyCondition(said["is_empty"]["key"])
    if "has_id" in said:
        return edge.HasIdCondition(set(said["has_id"]))
    return _filter(said)
