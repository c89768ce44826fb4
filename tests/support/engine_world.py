"""Images with columns of every kind, and questions about them, for tests of the engines."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np

from boresight.embeddings import Embeddings
from boresight.search import Query, Results, SearchIndex
from boresight.search.engines import candidates_by, candidates_from
from editing_world import world, world_sae
from search_world import editor_of, stretched

IMAGES = 60
FILTERS = (
    "year > 2010",
    "not (year > 2010)",
    "year <= 2010.5 and ok",
    "not ok or share < 3",
    "2004 < year <= 2030",
    "place in ['Rome', 'Oslo']",
    "place not in ['Rome']",
    "place in ['Rome', None]",
    "not (place in ['Oslo', None])",
    "place is None or year is None",
    "place is not None",
    "place == 'Rome' or place != 'Oslo'",
    "day >= '2020-02-01' and day != '2020-02-05'",
    "seen < '2024-03-01 12:00:00'",
    "split == 'train' and not (split == 'test')",
    "share == 0.5 or share > 15",
    "year in []",
    "id == 'w1-7'",
    "ok == True and not (ok == False)",
)
"""Filters that every engine reads."""
OF_TABLES = (
    "place < 'P'",
    "year > share",
    "not (score != 0.25)",
    "score > 0.5",
    "not (score > 0.5)",
    "year in [2001, 2002.0, 9.5]",
)
"""Filters that compare what Qdrant does not."""


def pictures(seed: int = 1) -> Embeddings:
    """IMAGES images with captions, of lengths other than one."""
    return stretched(world(world_sae(), IMAGES, seed), seed)


def columns(ids: list[str]) -> dict[str, list[Any]]:
    """A table of columns by id, with values missing."""
    rows = range(len(ids))
    return {
        "id": list(ids),
        "year": [None if row % 7 == 3 else 2000 + row for row in rows],
        "place": [None if row % 5 == 4 else ("Rome", "Oslo", "Bern")[row % 3] for row in rows],
        "ok": [None if row % 11 == 10 else row % 2 == 0 for row in rows],
        "share": [row / 4 for row in rows],
        "score": [float("nan") if row % 6 == 5 else (row % 8) / 8 for row in rows],
        "day": [dt.date(2020, 1, 1) + dt.timedelta(row) for row in rows],
        "seen": [dt.datetime(2024, 1, 1, 12) + dt.timedelta(3 * row) for row in rows],
    }


def local_index(folder: Path, form: str | None, dtype: str = "float32", leave_out: tuple[str, ...] = ()) -> SearchIndex:
    """A local index of `pictures` with `columns`."""
    images = pictures()
    editor = None if form is None else editor_of(form)
    metadata = {name: column for name, column in columns(images.ids).items() if name not in leave_out}
    return SearchIndex.create(folder, images, editor=editor, metadata=metadata, dtype=dtype)


def questions(index: SearchIndex, filters: tuple[str, ...], seed: int) -> list[Query]:
    """One question with each filter and a few without, of every shape."""
    draw, images = np.random.default_rng(seed), pictures()
    some = lambda count: images.texts[draw.integers(0, len(images.texts), count)]  # noqa: E731
    coded = index.editor is not None and index.editor.config.has_latents
    asked = []
    for where in (*filters, None, None, None):
        options: dict[str, Any] = {"text": some(draw.integers(1, 3)), "where": where, "k": int(draw.integers(1, 20))}
        if draw.random() < 0.4:
            options["without"] = some(1)
        if draw.random() < 0.4:
            options["like"] = [images.ids[draw.integers(IMAGES)]]
        if draw.random() < 0.2:
            options |= {"unlike": images.ids[draw.integers(IMAGES)], "offset": 2}
        if draw.random() < 0.3:
            options["min_score"] = float(draw.normal(0, 0.1))
        if coded and draw.random() < 0.5:
            options["latents"] = {int(draw.integers(48)): float(draw.choice([0.0, 2.0]))}
        elif draw.random() < 0.2:
            options["plain"] = True
        asked.append(Query(**options))
    return asked


def require_same(found: Results, wanted: Results, *, ranks: bool = True) -> None:
    """The same answers, but for rounding, which may exchange neighbours of equal score."""
    query = wanted.prepared.query
    assert len(found) == len(wanted), query
    assert (found.matches, found.edited, found.exact) == (wanted.matches, wanted.edited, True), query
    scores = np.array([[one.score for one in each] for each in (found, wanted)])
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5, err_msg=str(query))
    for one, other in zip(found, wanted, strict=True):
        if one.id != other.id:
            assert abs(one.score - other.score) < 1e-5, query
            continue
        assert abs(one.plain_score - other.plain_score) < 1e-5
        assert (one.captions, one.split, one.rank) == (other.captions, other.split, other.rank)
        known = [{name: value for name, value in each.columns.items() if value is not None} for each in (one, other)]
        assert str(known[0]) == str(known[1])
        if ranks:
            assert abs(one.plain_rank - other.plain_rank) <= 1  # type: ignore[operator]


def nearest(index: SearchIndex, text: Any, count: int, where: str | None = None) -> set[str]:
    """The ids of the images that are nearest to the dense part of the edited score of a text."""
    snapshot = index.snapshot()
    name = candidates_from(snapshot.layout, index.editor)
    rows = snapshot.rows[0].dense[snapshot.layout.dense.index(name)].astype(np.float32)
    near = rows @ candidates_by(index.prepare([Query(text=text)])[0], snapshot.layout, index.editor)
    allowed = snapshot.allowed(where)[0]
    near = near if allowed is None else np.where(allowed, near, -np.inf)
    return {snapshot.record(int(row))["id"] for row in np.argsort(-near)[:count]}
