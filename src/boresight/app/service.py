"""What the service does for each request, whatever the door: HTTP or an agent's tool."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from functools import cached_property
from importlib.metadata import version
from typing import Any, TypeVar

import numpy as np
import pyarrow.types as types

from boresight.app.batching import Batcher
from boresight.app.concepts import LatentCounts, count_latents, named, positions, told_shares
from boresight.app.config import Limits
from boresight.app.heatmaps import draw_heatmap
from boresight.app.metrics import Metrics
from boresight.app.problems import Refused, log
from boresight.app.schemas import DRAWN
from boresight.app.shown import address_of, columns_of, verdict_of
from boresight.errors import ArtefactError, InputError, one_of
from boresight.evaluation.comparison_figures import Comparison
from boresight.search import Query, Reasons, Results, SearchIndex
from boresight.search.query import MOST
from boresight.search.snapshot import Snapshot

T = TypeVar("T")
SHOWN_SIDE = 2048  # pixels of the longer side of a picture that is shown whole
PICTURES_AT_ONCE = 16  # requests whose pictures are in memory whole
ABSENT = "The index has no image of this id."
MOST_POINTS = 2000  # of the map of directions


class Service:
    """An index, its encoder and what is remembered of both. Its methods are for many threads at once.

    Attributes:
        index: that is served; its encoder is loaded.
        limits: of each request.
        comparison: tables of the editor; None without.

    Raises `Refused` where too much is asked for, by one request or by all of them.
    """

    def __init__(self, index: SearchIndex, limits: Limits | None = None, comparison: Comparison | None = None) -> None:
        self.index, self.limits, self.comparison = index, limits or Limits(), comparison
        self.encoder = index.encoder  # loaded before the first request
        self.metrics = Metrics(lambda: len(index))
        self._batcher = Batcher(index, most=max(self.limits.batch, 64), on_batch=self.metrics.batch.observe)
        self._artist = ThreadPoolExecutor(1, "boresight-heatmap")  # one at a time: each fills the machine
        self._room = threading.BoundedSemaphore(self.limits.at_once)
        self._darkroom = threading.BoundedSemaphore(min(self.limits.at_once, PICTURES_AT_ONCE))
        self._counting = threading.Lock()
        self._counted: tuple[Snapshot, LatentCounts] | None = None

    def close(self) -> None:
        """Finish what was begun."""
        self._batcher.close()
        self._artist.shutdown(cancel_futures=True)

    @contextlib.contextmanager
    def admitted(self, *, pictures: bool = False) -> Iterator[None]:
        """Room for one request, or for one that decodes pictures, which fill the memory.

        Raises Refused where all of it is taken.
        """
        room = self._darkroom if pictures else self._room
        if not room.acquire(blocking=False):
            raise Refused(429, "Too many requests are being worked on; come back in a second.", 1)
        try:
            yield
        finally:
            room.release()

    def search(self, query: Query, ranks: bool = True) -> Results:
        """The answers to one query, computed together with those of other requests."""
        return self.search_many([query], ranks=[ranks])[0]

    def search_many(self, queries: Sequence[Query], ranks: Sequence[bool]) -> list[Results]:
        """The answers to several queries."""
        if len(queries) > self.limits.batch:
            raise Refused(
                422, f"There are {len(queries):,} queries; {self.limits.batch:,} at most are answered at once."
            )
        for query in queries:
            if query.k > self.limits.k:
                raise Refused(
                    422, f"k is {query.k:,}; {self.limits.k:,} answers at most are given at once; use offset."
                )
        futures = [self._batcher.search(query, each) for query, each in zip(queries, ranks, strict=True)]
        return self._in_time(futures)

    def explain(self, query: Query, image: str) -> Reasons:
        """Why an image has its score under a query."""
        self.row(image)
        return self._in_time([self._batcher.call(lambda: self.index.explain(query, image))])[0]

    def heatmap(self, image: str, text: str, method: str) -> dict[str, Any]:
        """A map of one match over its picture."""
        if method not in DRAWN:
            raise InputError(f"There is no method '{method}'; {one_of(method, DRAWN)}.")
        picture = self.picture(image)
        drawn = self._artist.submit(draw_heatmap, self.encoder, picture, text, method)
        return {"id": image, **self._in_time([drawn])[0]}

    def row(self, image: str) -> int:
        """The row of an image by id. Raises Refused where the index lacks it."""
        found = self.index.snapshot().present([image])
        if image not in found:
            raise Refused(404, ABSENT)
        return found[image]

    def record(self, image: str) -> dict[str, Any]:
        """What the index knows of an image."""
        snapshot, row = self.index.snapshot(), self.row(image)
        said = snapshot.record(row)
        pictured = said.pop("picture") is not None
        small = self.index.thumbnail(image) is not None
        return {
            "id": said.pop("id"),
            "split": said.pop("split"),
            "captions": list(said.pop("captions") or ()),
            "columns": columns_of(said),
            "thumbnail": address_of(image, "thumbnail") if small else None,
            "original": address_of(image, "original") if small or pictured else None,
        }

    def thumbnail(self, image: str) -> bytes:
        """The small picture of an image, as WebP. Raises Refused where there is none."""
        try:
            small = self.index.thumbnail(image)
        except InputError as error:
            raise Refused(404, ABSENT) from error
        if small is None:
            raise Refused(404, "The index has no picture of this image; it was made without the collection.")
        return small

    def picture(self, image: str) -> Any:
        """The picture of an image, decoded. Raises Refused where there is none that can be read here."""
        self.row(image)
        try:
            return self.index.image(image, most_pixels=self.limits.pixels)
        except (InputError, ArtefactError) as error:  # which may name files of this machine
            log.warning("%s", error)
            raise Refused(
                404, "The picture of this image cannot be read here; the log of the service says why."
            ) from error

    def original(self, image: str) -> bytes:
        """The whole picture, 2048 pixels each way at most, as WebP: decoded and written anew, never a file's bytes."""
        picture, data = self.picture(image), io.BytesIO()
        picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        picture.save(data, "WEBP", quality=90)
        return data.getvalue()

    @property
    def pictures(self) -> bool:
        """Whether the index has thumbnails."""
        return any(segment.thumbnails is not None for segment in self.index.snapshot().segments)

    def info(self) -> dict[str, Any]:
        """What is served."""
        snapshot, editor, limits = self.index.snapshot(), self.index.editor, self.limits
        schema = snapshot.meta.schema
        allowed = {name: getattr(limits, name) for name in ("k", "batch", "body_bytes", "pixels", "seconds")}
        return {
            "name": str(snapshot.manifest.get("name") or ""),
            "version": version("boresight"),
            "images": len(snapshot),
            "width": snapshot.layout.width,
            "encoder": self.encoder.name,
            "edited": editor is not None,
            "editor": None
            if editor is None
            else {
                "form": editor.config.form,
                "latents": snapshot.layout.n_latents,
                "named": len(named(self._names)),
            },
            "pictures": self.pictures,
            "columns": [{"name": name, "type": _kind(schema.field(name).type)} for name in snapshot.columns],
            "methods": list(DRAWN),
            "comparison": self.comparison is not None,
            "limits": {**allowed, "offset": MOST},
        }

    @property
    def _names(self) -> Sequence[str]:
        return () if self.index.names is None else self.index.names.names

    def label(self, latent: int) -> str:
        """The name of a latent, or 'latent 17'."""
        return (self.index.names[latent] if self.index.names is not None else "") or f"latent {latent}"

    def concepts(self, offset: int, k: int) -> dict[str, Any]:
        """The most frequent latents."""
        snapshot, counts = self._latents()
        frequent = counts.frequent
        return {
            "total": len(frequent),
            "concepts": [
                {
                    **self._latent(latent, counts),
                    "top": [snapshot.record(row)["id"] for row in counts.top[latent].tolist() if row >= 0],
                }
                for latent in frequent[offset : offset + k].tolist()
            ],
        }

    def concept_map(self) -> dict[str, Any]:
        """Where the directions of the named latents point, the most frequent 2,000 of them."""
        _, counts = self._latents()
        names = set(named(self._names))
        chosen = [latent for latent in counts.frequent.tolist() if latent in names][:MOST_POINTS]
        if self.index.editor is None or not chosen:
            return {"share": 0.0, "points": []}
        points, share = positions(self.index.editor.sae.directions[chosen].detach().cpu().numpy())
        placed = zip(chosen, points.tolist(), strict=True)
        return {
            "share": share,
            "points": [{**self._latent(latent, counts), "x": x, "y": y} for latent, (x, y) in placed],
        }

    def verdict(self) -> dict[str, Any] | None:
        """The tables of the editor; None without."""
        return None if self.comparison is None else verdict_of(self.comparison)

    def _latent(self, latent: int, counts: LatentCounts) -> dict[str, Any]:
        names = self.index.names
        certainty = 0.0 if names is None else float(names.certainty[latent])
        own = "" if names is None else names[latent]
        told = None if self._told is None or np.isnan(self._told[latent]) else float(self._told[latent])
        images = int(counts.images[latent])
        return {"latent": latent, "name": own, "certainty": certainty, "images": images, "told": told}

    @cached_property
    def _told(self) -> np.ndarray | None:
        return told_shares(self.index.editor)

    def _latents(self) -> tuple[Snapshot, LatentCounts]:
        """Counted once for each state of the index."""
        with self._counting:
            snapshot = self.index.snapshot()
            if self._counted is None or self._counted[0] is not snapshot:
                self._counted = snapshot, count_latents(snapshot)
            return self._counted

    def _in_time(self, futures: Sequence[Future[T]]) -> list[T]:
        """What all of them give. Raises Refused where that takes too long; what has not begun by then is not done."""
        until = time.monotonic() + self.limits.seconds
        try:
            return [future.result(max(0.0, until - time.monotonic())) for future in futures]
        except NotInTime as error:
            raise Refused(503, f"This took more than {self.limits.seconds:g} seconds; come back later.", 5) from error
        finally:
            for future in futures:
                future.cancel()


def _kind(kind: Any) -> str:
    if types.is_boolean(kind):
        return "boolean"
    if types.is_integer(kind) or types.is_floating(kind):
        return "number"
    return "time" if types.is_temporal(kind) else "text"
