"""An index in a real PostgreSQL server answers as the local one that it was copied from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from boresight.errors import ArtefactError, InputError
from boresight.search import Query, SearchIndex
from editing_world import world, world_sae
from engine_world import FILTERS, OF_TABLES, columns, local_index, nearest, pictures, questions, require_same
from postgres_server import server as server
from search_world import CONFIGS, editor_of

psycopg = pytest.importorskip("psycopg", reason="needs psycopg (extra 'postgres')")

from boresight.search import postgres  # noqa: E402
from boresight.search.postgres import PostgresIndex  # noqa: E402


@pytest.fixture
def local(tmp_path: Path) -> SearchIndex:
    return local_index(tmp_path / "index", "gated, taught")


@pytest.fixture
def copied(server: str, local: SearchIndex) -> PostgresIndex:
    return PostgresIndex.create(server, "photos", local)


@pytest.mark.parametrize(
    ("form", "dtype"),
    [
        *((form, "float32") for form in (None, *CONFIGS)),
        ("gated, both memories", "float16"),
        ("raw, divided", "float16"),
    ],
)
def test_answers_are_those_of_the_local_index(form: str | None, dtype: str, server: str, tmp_path: Path) -> None:
    local = local_index(tmp_path / "index", form, dtype)
    copied = PostgresIndex.create(server, "photos", local)
    every = FILTERS + OF_TABLES
    asked = questions(local, every if form in (None, "reconstruct") else every[::7], len(form or "") + len(dtype))
    for found, wanted in zip(copied.search_batch(asked), local.search_batch(asked), strict=True):
        require_same(found, wanted)
        for place in range(min(2, len(found))):
            reasons = found.reasons(place)
            assert reasons.score == pytest.approx(found[place].score, abs=2e-3 if dtype == "float16" else 1e-4)
    assert (len(copied), copied.columns) == (len(local), local.columns)


def test_changes_are_those_of_the_local_index(copied: PostgresIndex, local: SearchIndex) -> None:
    more, again = world(world_sae(), 9, 2), pictures().select(range(5))
    again.images.copy_(again.images.flip(1))
    for index in (local, copied):
        index.remove([*pictures().ids[20:30], pictures().ids[0]])
        index.add(more, metadata=columns(more.ids))
        index.update(again, metadata={"id": again.ids, "year": [1] * len(again)})
    assert len(copied) == len(local)
    asked = questions(local, FILTERS, 3)
    asked = [one for one in asked if not one.like and not one.unlike]
    for found, wanted in zip(copied.search_batch(asked), local.search_batch(asked), strict=True):
        require_same(found, wanted)
    with pytest.raises(InputError, match=f"has '{more.ids[0]}' already"):
        copied.add(more)
    with pytest.raises(InputError, match="no image 'nowhere'"):
        copied.remove("nowhere")
    with pytest.raises(InputError, match="no column 'colour'"):
        copied.update(more, metadata={"id": more.ids, "colour": ["red"] * 9})
    with pytest.raises(InputError, match="'year' of the index holds int64"):
        copied.update(more, metadata={"id": more.ids, "year": ["red"] * 9})
    assert len(copied) == len(local)


def test_candidates_of_the_graph_have_their_exact_scores(copied: PostgresIndex, local: SearchIndex) -> None:
    text = pictures().texts[3]
    with pytest.raises(InputError, match="no graph"):
        copied.search(text, candidates=5)
    copied.build_graph()
    every = {one.id: one.score for one in local.search(text, k=60)}
    found = copied.search(text, k=3, candidates=5, where="year > 2010")
    assert not found.exact
    assert {one.id for one in found} <= nearest(local, text, 5, "year > 2010")
    assert [one.score for one in found] == sorted([one.score for one in found], reverse=True)
    for one in found:
        assert one.score == pytest.approx(every[one.id], abs=1e-5)
    all_of_them = copied.search(text, k=60, candidates=60)
    assert all_of_them.exact
    assert [one.id for one in all_of_them] == [one.id for one in local.search(text, k=60)]


def test_more_weights_than_a_sparse_vector_holds(copied: PostgresIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boresight.search.postgres_types.MOST_NONZERO", 5)
    text = pictures().texts[0]
    wanted = copied.search(text, k=60)
    monkeypatch.undo()
    assert [one.score for one in copied.search(text, k=60)] == pytest.approx([one.score for one in wanted], abs=1e-6)


def test_opened_again(copied: PostgresIndex, local: SearchIndex, server: str) -> None:
    opened = PostgresIndex.open(server, "photos", editor=local.editor)
    require_same(opened.search(pictures().texts[1]), local.search(pictures().texts[1]))
    with pytest.raises(ArtefactError, match="none was passed"):
        PostgresIndex.open(server, "photos")
    with pytest.raises(ArtefactError, match="make it again with this one"):
        PostgresIndex.open(server, "photos", editor=editor_of("raw, divided"))
    with pytest.raises(ArtefactError, match="no boresight index"):
        PostgresIndex.open(server, "nothing")
    with pytest.raises(InputError, match="write the filter as text"):
        opened.search(pictures().texts[1], where=pc.field("year") > 1)
    with pytest.raises(InputError, match="no column 'years'"):
        opened.search(pictures().texts[1], where="years > 1")


def test_a_name_is_a_name_and_a_value_a_value(server: str, tmp_path: Path) -> None:
    """Whatever stands in ids, columns and filters is data."""
    images = pictures()
    odd = {"id": images.ids, 'a "b" %s; --': ["'; DROP TABLE photos; --"] * 60, "word": ["100% 'é' \\"] * 60}
    local = SearchIndex.create(tmp_path / "odd", images, metadata=odd)
    copied = PostgresIndex.create(server, "photos", local)
    for where in ("word == \"100% 'é' \\\\\"", 'word == "\' OR TRUE --"'):
        require_same(copied.search(images.texts[0], where=where), local.search(images.texts[0], where=where))
    assert copied.search(images.texts[0])[0].columns['a "b" %s; --'] == "'; DROP TABLE photos; --"
    for name in ('photos"; DROP TABLE photos; --', "", "a b", "boresight_indexes"):
        with pytest.raises(InputError, match="no name for the table"):
            PostgresIndex.create(server, name, local)


def test_what_cannot_be_kept_is_one_sentence(
    server: str, local: SearchIndex, copied: PostgresIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArtefactError, match="cannot be reached"):
        PostgresIndex.create(f"postgresql://postgres@/postgres?host={tmp_path}", "photos", local)
    with pytest.raises(InputError, match="no url of a PostgreSQL database"):
        PostgresIndex.open("photos.index", "photos")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS mine (id text)")
        connection.execute("DROP DATABASE IF EXISTS bare")
        connection.execute("CREATE DATABASE bare")
    with pytest.raises(ArtefactError, match="holds something else"):
        PostgresIndex.create(server, "mine", local)
    with pytest.raises(ArtefactError, match="has no pgvector"):
        PostgresIndex.open(server.replace("/postgres?", "/bare?"), "photos")
    monkeypatch.setattr("boresight.search.postgres_connection.version_of", lambda connection: (0, 6, 2))
    with pytest.raises(ArtefactError, match=r"pgvector 0\.6\.2 and 0\.8 is needed"):
        PostgresIndex.open(server, "photos", editor=local.editor)
    monkeypatch.undo()
    images = pictures()
    bad: dict[str, Any] = {"_row": [1] * 60}
    for name, values in bad.items():
        odd = SearchIndex.create(tmp_path / "odd", images, metadata={"id": images.ids, name: values})
        with pytest.raises(InputError, match="do not begin with '_'"):
            PostgresIndex.create(server, "odd", odd)
    monkeypatch.setitem(postgres.WIDEST, "float32", ("vector", 16_000, 20))
    with pytest.raises(InputError, match="24 wide and a graph of vector holds 20"):
        copied.build_graph()
    monkeypatch.setitem(postgres.WIDEST, "float32", ("vector", 20, 20))
    with pytest.raises(InputError, match="24 wide and a vector holds 20"):
        PostgresIndex.create(server, "photos", local)


def test_a_failed_copy_leaves_what_was_there(
    server: str, local: SearchIndex, copied: PostgresIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(index: SearchIndex) -> Any:
        yield next(iter(blocks(index)))
        raise OSError("no more")

    blocks = postgres.blocks_of
    before = [one.id for one in copied.search(pictures().texts[0])]
    monkeypatch.setattr(postgres, "blocks_of", torn)
    with pytest.raises(OSError, match="no more"):
        PostgresIndex.create(server, "photos", local)
    assert [
        one.id for one in PostgresIndex.open(server, "photos", editor=local.editor).search(pictures().texts[0])
    ] == (before)


def test_products_too_small_for_a_number(server: str, tmp_path: Path) -> None:
    """pgvector refuses a product that is rounded to 0; such numbers are 0 before."""
    images = pictures()
    images.images[:, 0] = 1e-30
    editor = editor_of("raw, divided")
    local = SearchIndex.create(tmp_path / "index", images, editor=editor, dtype="float32")
    copied = PostgresIndex.create(server, "photos", local)
    column = copied._prepare([Query(text=images.texts[0])])[0].columns[0]
    assert column.gate is not None
    np.copyto(column.gate, np.where(np.arange(len(column.gate)) == 0, np.float32(1e-30), column.gate))
    require_same(copied.search(images.texts[0]), local.search(images.texts[0]))
