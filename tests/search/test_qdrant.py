"""An index in Qdrant answers as the local one among its candidates, in Qdrant's engine and through its client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from boresight.errors import ArtefactError, InputError
from boresight.search import Query, SearchIndex
from editing_world import world, world_sae
from engine_world import FILTERS, OF_TABLES, columns, local_index, nearest, pictures, questions, require_same
from search_world import CONFIGS, editor_of

pytest.importorskip("qdrant_edge", reason="needs qdrant-edge-py, Qdrant's engine in the process (extra 'dev')")
qdrant_client = pytest.importorskip("qdrant_client", reason="needs qdrant-client (extra 'qdrant')")

from boresight.search.qdrant import QdrantIndex, QdrantStore  # noqa: E402
from boresight.search.qdrant_client_store import ClientStore  # noqa: E402
from qdrant_edge_store import EdgeStore  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect", "ignore:Local mode performs exact")


def by_client(folder: Path) -> QdrantStore:
    return ClientStore(qdrant_client.QdrantClient(":memory:"), "photos")


@pytest.fixture(params=[EdgeStore, by_client], ids=["engine", "client"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> QdrantStore:
    return request.param(tmp_path / "qdrant")


def without_nan(folder: Path, form: str | None, dtype: str = "float32") -> SearchIndex:
    return local_index(folder, form, dtype, leave_out=("score",))


@pytest.mark.parametrize("form", [None, *CONFIGS])
def test_with_all_candidates_answers_are_those_of_the_local_index(form: str | None, tmp_path: Path) -> None:
    make: list[Callable[[Path], QdrantStore]] = [EdgeStore] if form else [EdgeStore, by_client]
    local = without_nan(tmp_path / "index", form)
    for one in make:
        copied = QdrantIndex.create(one(tmp_path / "qdrant"), "photos", local)
        asked = questions(local, FILTERS if form in (None, "reconstruct") else FILTERS[::7], len(form or ""))
        for found, wanted in zip(copied.search_batch(asked, candidates=None), local.search_batch(asked), strict=True):
            require_same(found, wanted, ranks=False)
            if len(found):
                assert found.reasons(0).score == pytest.approx(found[0].score, abs=1e-4)
        assert (len(copied), copied.columns) == (len(local), local.columns)


def test_changes_are_those_of_the_local_index(store: QdrantStore, tmp_path: Path) -> None:
    local = without_nan(tmp_path / "index", "gated, taught", "float16")
    copied = QdrantIndex.create(store, "photos", local)
    more, again = world(world_sae(), 9, 2), pictures().select(range(5))
    again.images.copy_(again.images.flip(1))
    new: dict[str, Any] = columns(more.ids)
    del new["score"]
    for index in (local, copied):
        index.remove([*pictures().ids[20:30], pictures().ids[0]])
        index.add(more, metadata=new)
        index.update(again, metadata={"id": again.ids, "year": [1] * len(again)})
    opened = QdrantIndex.open(store, editor=local.editor)
    asked = [one for one in questions(local, FILTERS[::3], 3) if not one.like and not one.unlike]
    for found, wanted in zip(opened.search_batch(asked, candidates=None), local.search_batch(asked), strict=True):
        require_same(found, wanted, ranks=False)
    assert len(copied) == len(local)
    with pytest.raises(InputError, match=f"has '{more.ids[0]}' already"):
        copied.add(more)
    with pytest.raises(InputError, match="no image 'nowhere'"):
        copied.remove("nowhere")


def test_few_candidates_have_their_exact_scores(store: QdrantStore, tmp_path: Path) -> None:
    local = without_nan(tmp_path / "index", "gated, both memories")
    copied = QdrantIndex.create(store, "photos", local)
    text = pictures().texts[3]
    every = {one.id: one.score for one in local.search(text, k=60)}
    found = copied.search(text, k=5, candidates=5)
    assert not found.exact
    assert {one.id for one in found} == nearest(local, text, 5)
    assert [one.score for one in found] == pytest.approx([every[one.id] for one in found], abs=1e-5)
    assert [one.score for one in found] == sorted([one.score for one in found], reverse=True)
    assert copied.search(text, candidates=60).exact


def test_what_cannot_be_asked_or_kept_is_one_sentence(store: QdrantStore, tmp_path: Path) -> None:
    local = without_nan(tmp_path / "index", "gated")
    copied = QdrantIndex.create(store, "photos", local)
    for where, said in ((OF_TABLES[0], "by size"), (OF_TABLES[1], "with one another"), ("years > 1", "no column")):
        with pytest.raises(InputError, match=said):
            copied.search(pictures().texts[1], where=where)
    with pytest.raises(InputError, match="of local indexes; pass `candidates` to the search"):
        copied.search_batch([Query(text=pictures().texts[1], candidates=50)])
    with pytest.raises(ArtefactError, match="make it again with this one"):
        QdrantIndex.open(store, editor=editor_of("raw, divided"))
    with pytest.raises(InputError, match="holds nan, which Qdrant does not keep"):
        QdrantIndex.create(store, "photos", local_index(tmp_path / "nan", None))
    with pytest.raises(ArtefactError, match="not copied to its end"):
        QdrantIndex.open(store)
    with pytest.raises(ArtefactError, match="holds something else"):
        QdrantIndex.create(store, "photos", local)
    odd = SearchIndex.create(tmp_path / "odd", pictures(), metadata={"id": pictures().ids, "a b": ["x"] * 60})
    with pytest.raises(InputError, match="cannot be one in Qdrant"):
        QdrantIndex.create(EdgeStore(tmp_path / "more"), "photos", odd)


def test_no_server_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="cannot be reached"):
        QdrantIndex.open("http://127.0.0.1:9", "photos")
