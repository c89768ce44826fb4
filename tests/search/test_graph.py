"""Approximate search: what it finds is scored exactly, and it says whether every image was scored."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from boresight.embeddings import Embeddings
from boresight.errors import ArtefactError, InputError
from boresight.search import Query, SearchIndex
from boresight.search.approximate import Effort, best
from editing_world import quiet, world, world_sae  # noqa: F401
from search_world import CONFIGS, editor_of, stretched

pytest.importorskip("faiss")
N = 120


@pytest.fixture(scope="module")
def images() -> Embeddings:
    return stretched(world(world_sae(), N, 1))


@pytest.fixture(scope="module")
def texts() -> torch.Tensor:
    return world(world_sae(), 8, 5).texts[:6]


@pytest.fixture(scope="module")
def built(images: Embeddings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Years are those of the rows."""
    folder = tmp_path_factory.mktemp("graph") / "index"
    years = {"id": images.ids, "year": list(range(N))}
    SearchIndex.create(folder, images, editor=editor_of("gated"), metadata=years).build_graph(m=16)
    return folder


@pytest.fixture
def index(built: Path, tmp_path: Path) -> SearchIndex:
    return SearchIndex.open(shutil.copytree(built, tmp_path / "index"))


def ids(results: object) -> list[str]:
    return [one.id for one in results]  # type: ignore[attr-defined]


def found_by_graphs(index: SearchIndex, query: Query, n: int) -> tuple[list[int], bool]:
    """Rows of the n best, and whether all were scored."""
    snapshot = index.snapshot()
    effort = Effort(query.candidates, query.ef_search or query.candidates)
    found = best(index.prepare([query], snapshot), snapshot, snapshot.allowed(query.where), n, effort)
    return found.rows[0].tolist(), found.exact


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_candidates_are_scored_exactly(
    name: str, dtype: str, images: Embeddings, texts: torch.Tensor, tmp_path: Path
) -> None:
    """Of any query: the exact answers without those that are no candidates, and all of them of all candidates."""
    index = SearchIndex.create(tmp_path / "index", images, editor=editor_of(name), dtype=dtype)
    index.build_graph(m=16)
    many = Query(text=texts[:2], without=texts[2:3], like=images.ids[3], k=60)
    for query in (Query(text=texts[0], k=60), many, Query(text=texts[1], plain=True, k=60)):
        exact = index.search_batch([replace(query, k=N)])[0]
        near = index.search_batch([replace(query, candidates=60, ef_search=110)])[0]
        assert not near.exact
        assert near.edited == exact.edited
        wanted = [one for one in exact if one.id in set(ids(near))]
        assert [(one.id, one.score, one.plain_score) for one in near] == [
            (one.id, one.score, one.plain_score) for one in wanted
        ]
        oracle = nearest(index, query)[:60]
        assert len(set(oracle) & {one.row for one in near}) >= 58
        everything = index.search_batch([replace(query, candidates=N)])[0]
        assert everything.exact
        assert ids(everything) == ids(exact)[:60]


def nearest(index: SearchIndex, query: Query) -> list[int]:
    """All rows by the sum of the dense parts, each over its usual length, from the best on."""
    segment = index.snapshot().segments[0]
    dense = [each.astype(np.float32) for each in segment.rows.dense]
    total = np.zeros(N)
    for column in index.prepare([query])[0].columns:
        lengths = np.ones(1) if column.gate is None else np.linalg.norm(dense[column.matrix] * column.gate, axis=1)
        usual = np.median(lengths) ** column.exponent
        total += dense[segment.said["graph"]["matrix"]] @ column.dense / usual
    return np.argsort(-total).tolist()


def test_the_graph_is_over_the_matrix_that_scores_follow(images: Embeddings, tmp_path: Path) -> None:
    for name, matrix in (("gated", 0), ("gated, both memories", 1), ("reconstruct", 0), ("plain", 0)):
        index = SearchIndex.create(tmp_path / "index", images, editor=editor_of(name))
        index.build_graph()
        assert index.snapshot().segments[0].said["graph"]["matrix"] == matrix


def test_plain_ranks_are_found_where_asked_for(index: SearchIndex, texts: torch.Tensor) -> None:
    near = index.search(texts[0], candidates=50, k=5)
    assert [one.plain_rank for one in near] == [None] * 5
    exact = {one.id: one.plain_rank for one in index.search(texts[0], k=N)}
    ranked = index.search(texts[0], candidates=50, k=5, ranks=True)
    assert [one.plain_rank for one in ranked] == [exact[one.id] for one in ranked]
    assert ids(index.search(texts[0], candidates=50, k=3, offset=2)) == ids(index.search(texts[0], candidates=50))[2:5]


def test_filters_never_cost_answers(index: SearchIndex, texts: torch.Tensor) -> None:
    for where, graph in (("year < 110", True), ("year >= 100", False), ("year < 0", False)):
        exact, near = (index.search(texts[0], where=where, k=15, candidates=n) for n in (None, 20))
        assert len(near) == len(exact) == min(15, near.matches)
        assert near.exact == (not graph)
        assert all(one.columns["year"] < 110 or where != "year < 110" for one in near)
        if not graph:
            assert ids(near) == ids(exact)


def test_removed_images_are_not_found_and_new_ones_are(
    index: SearchIndex, images: Embeddings, texts: torch.Tensor
) -> None:
    first = ids(index.search(texts[0], candidates=60))
    index.remove(first[:5])
    near = index.search(texts[0], candidates=60)
    assert not near.exact
    assert not set(ids(near)) & set(first[:5])
    assert len(near) == 10
    index.add(images.select([images.ids.index(one) for one in first[:5]]))
    again = index.search(texts[0], candidates=60)
    assert not again.exact
    assert ids(again) == first
    assert [row >= N for row in found_by_graphs(index, Query(text=texts[0], candidates=60), 10)[0]] == [True] * 5 + [
        False
    ] * 5

    def graphs() -> list[str | None]:
        return [each.said.get("graph", {}).get("file") for each in index.snapshot().segments]

    before = graphs()
    assert before[1:] == [None]
    index.build_graph(m=16)
    assert graphs()[0] == before[0]
    assert graphs()[1]
    index.compact()
    assert len(graphs()) == 1
    assert graphs()[0]
    assert ids(index.search(texts[0], candidates=60)) == first
    assert not index.search(texts[0], candidates=60).exact


def test_several_graphs_share_the_candidates(index: SearchIndex, texts: torch.Tensor) -> None:
    index.add(stretched(world(world_sae(), N, 2), 1))
    index.build_graph(m=16)
    queries = [Query(text=text, k=10, candidates=100, ef_search=110) for text in texts]
    together = index.search_batch(queries)
    for query, near in zip(queries, together, strict=True):
        exact = index.search_batch([replace(query, candidates=None, ef_search=None)])[0]
        assert not near.exact
        assert len(set(ids(near)) & set(ids(exact))) >= 9
        assert ids(near) == ids(index.search_batch([query])[0])


def test_tuning_finds_a_setting_and_keeps_it(
    index: SearchIndex, texts: torch.Tensor, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(InputError, match="was not tuned"):
        index.search(texts[0], candidates="tuned")
    tuning = index.tune(texts, recall=0.6, k=5, keep=True)
    assert tuning.reached
    assert tuning.queries == len(texts)
    assert {one.effort.candidates for one in tuning.tried} <= {50, 100}
    exact = [set(ids(index.search(text, k=5))) for text in texts]
    for one in tuning.tried:
        effort = {"candidates": one.effort.candidates, "ef_search": one.effort.ef_search}
        shares = [
            len(set(ids(index.search(text, k=5, **effort))) & own) / 5 for text, own in zip(texts, exact, strict=True)
        ]
        assert one.recall == pytest.approx(np.mean(shares))
    kept = index.search(texts[0], candidates="tuned", k=5)
    chosen = tuning.chosen.effort
    assert ids(kept) == ids(index.search(texts[0], candidates=chosen.candidates, ef_search=chosen.ef_search, k=5))
    assert str(tuning).count("chosen") == 1
    missed = index.tune([Query(text=texts[0], where="year < 115")], recall=1.0, k=40)
    assert missed.reached or "No setting reaches" in str(missed)


def test_a_small_index_is_searched_exactly(images: Embeddings, texts: torch.Tensor, tmp_path: Path) -> None:
    index = SearchIndex.create(tmp_path / "small", images.select(range(20)))
    index.build_graph()
    tuning = index.tune(texts, recall=1.0, keep=True)
    assert [(one.effort, one.recall) for one in tuning.tried] == [(Effort(20, 20), 1.0)]
    assert index.search(texts[0], candidates="tuned", k=5).exact


def test_what_does_not_fit_is_said(index: SearchIndex, images: Embeddings, texts: torch.Tensor, tmp_path: Path) -> None:
    text = texts[0]
    for options, said in (
        ({"candidates": 5}, "candidates is 5, and k and offset ask for 10"),
        ({"candidates": 50, "ef_search": 9}, "ef_search is 9"),
        ({"ef_search": 50}, "pass candidates too"),
        ({"candidates": "many"}, "pass a number, 'tuned' or None"),
    ):
        with pytest.raises(InputError, match=said):
            index.search(text, **options)
    with pytest.raises(InputError, match="m is 1; choose from 2 to 256"):
        index.build_graph(m=1)
    for queries, said in (([], "no queries"), ("a ring", "one sentence")):
        with pytest.raises(InputError, match=said):
            index.tune(queries)
    with pytest.raises(InputError, match="recall is 95"):
        index.tune(texts, recall=95)
    without = SearchIndex.create(tmp_path / "without", images)
    for ask in (lambda: without.search(text, candidates=50), lambda: without.tune(texts)):
        with pytest.raises(InputError, match=r"has no graph .*boresight index --out INDEX --graph"):
            ask()


def test_a_torn_graph_is_one_sentence_and_is_built_again(index: SearchIndex, texts: torch.Tensor) -> None:
    file = next(index.folder.glob("segment-*/graph-*"))
    whole = file.read_bytes()
    altered = bytes([*whole[:-1], whole[-1] ^ 1])
    for content, said in ((whole[: len(whole) // 2], "torn or was altered"), (altered, "torn or was altered")):
        file.write_bytes(content)
        opened = SearchIndex.open(index.folder)
        assert opened.search(texts[0]).exact
        with pytest.raises(ArtefactError, match=said):
            opened.search(texts[0], candidates=50)
        with pytest.raises(ArtefactError, match=said):
            SearchIndex.open(index.folder, verify=True)
    file.unlink()
    with pytest.raises(ArtefactError, match=r"graph-\d+.faiss is missing .*build the graph"):
        SearchIndex.open(index.folder).search(texts[0], candidates=50)
    index.build_graph(m=16)
    assert not index.search(texts[0], candidates=50).exact
    assert len(list(index.folder.glob("segment-*/graph-*"))) == 1


def test_a_build_that_fails_leaves_the_index(
    index: SearchIndex, texts: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = index.search(texts[0], candidates=50)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(ArtefactError, match="No space left"):
            index.build_graph(m=8)
    assert ids(index.search(texts[0], candidates=50)) == ids(before)
    assert len(list(index.folder.glob("segment-*/graph-*"))) == 1


def test_without_faiss(index: SearchIndex, texts: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert index.search(texts[0]).exact
    for ask in (lambda: index.build_graph(m=8), lambda: index.search(texts[0], candidates=50)):
        with pytest.raises(InputError, match=r'pip install "boresight\[search\]"'):
            ask()


def test_a_graph_stays_mapped_while_others_change(index: SearchIndex, texts: torch.Tensor) -> None:
    index.search(texts[0], candidates=50)
    graph = index.snapshot().segments[0].graph
    index.add(world(world_sae(), 5, 3))
    index.search(texts[0], candidates=50)
    assert len(index.snapshot().segments) == 2
    assert index.snapshot().segments[0].graph is graph
