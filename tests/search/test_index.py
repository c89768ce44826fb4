"""An index answers as the editor scores, whatever its form, and survives what happens to folders."""

from __future__ import annotations

import datetime
import errno
import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from boresight.editing import CaptionEditor, EditorConfig, PlainScorer
from boresight.embeddings import Embeddings
from boresight.embeddings.rowfile import RowFile
from boresight.errors import ArtefactError, InputError
from boresight.runs import one_writer
from boresight.search import Query, SearchIndex
from boresight.search import writing as writing_module
from boresight.search.writing import LOCK
from editing_world import quiet, world, world_sae  # noqa: F401
from search_world import CONFIGS, editor_of, stretched


@pytest.fixture(scope="module")
def images() -> Embeddings:
    return stretched(world(world_sae(), 60, 1))


@pytest.fixture(scope="module")
def more() -> Embeddings:
    return stretched(world(world_sae(), 25, 2), 1)


def state_of(folder: Path) -> dict[str, float]:
    """All answers to one query, by id."""
    text = world(world_sae(), 4, 5).texts[0]
    return {one.id: round(one.score, 4) for one in SearchIndex.open(folder).search(text, k=500)}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_scores_are_the_editors(name: str, dtype: str, images: Embeddings, tmp_path: Path) -> None:
    editor, texts = editor_of(name), world(world_sae(), 4, 5).texts[:3]
    index = SearchIndex.create(tmp_path / "index", images, editor=editor, dtype=dtype)
    wanted, plain = editor.score(images.images, texts), PlainScorer()
    cosine = plain.score_prepared(plain.prepare_images(images.images), plain.prepare_texts(texts))
    tolerance = 2e-5 if dtype == "float32" else 5e-3
    for number, results in enumerate(index.search_batch([Query(text=one, k=60) for one in texts])):
        assert len(results) == 60
        assert results.exact
        scores = [one.score for one in results]
        assert scores == sorted(scores, reverse=True)
        for one in results:
            row = images.ids.index(one.id)
            assert one.score == pytest.approx(float(wanted[row, number]), abs=tolerance)
            assert one.plain_score == pytest.approx(float(cosine[row, number]), abs=tolerance)
            assert one.plain_rank == 1 + sum(other.plain_score > one.plain_score for other in results)
        reasons = results.reasons(3)
        assert reasons.score == pytest.approx(results[3].score, abs=tolerance)
        assert sum(reasons.terms[0].explanation.parts.values()) == pytest.approx(reasons.terms[0].score, abs=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_query_of_many_parts_is_the_sum_of_them(name: str, images: Embeddings, tmp_path: Path) -> None:
    editor, texts = editor_of(name), world(world_sae(), 4, 5).texts[:4]
    index = SearchIndex.create(tmp_path / "index", images, editor=editor, dtype="float32")
    picture = torch.nn.functional.normalize(images.images[7:9], dim=1)
    found = index.search(
        texts[:2], image=picture, without=texts[2:3], unlike=images.ids[11], image_weight=0.3, without_weight=0.4, k=60
    )
    edited = editor.score(images.images, texts)
    unit = torch.nn.functional.normalize(images.images, dim=1)
    wanted = (
        0.7 * edited[:, :2].mean(1) + 0.3 * (unit @ picture.T).mean(1) - 0.4 * edited[:, 2] - 0.4 * (unit @ unit[11])
    )
    for one in found:
        assert one.score == pytest.approx(float(wanted[images.ids.index(one.id)]), abs=3e-5)
    assert found.reasons(0).score == pytest.approx(found[0].score, abs=3e-5)
    assert [term.weight for term in found.reasons(0).terms] == pytest.approx([0.35, 0.35, -0.4, 0.15, 0.15, -0.4])


@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if config.has_latents])
def test_switched_latents_are_in_the_edited_image_as_asked(name: str, images: Embeddings, tmp_path: Path) -> None:
    """Against the edit written down for one pair: the latent's part is replaced by a share of its whole activation."""
    editor, text = editor_of(name), world(world_sae(), 4, 5).texts[:1]
    index = SearchIndex.create(tmp_path / "index", images, editor=editor, dtype="float32")
    before = {one.id: one for one in index.search(text, k=60)}
    latents = editor.explain_edit(images.images[4], text[0]).latents
    for weight in (0.0, 1.0, 1.5):
        found = index.search(text, latents={latents[0].index: weight}, k=60)
        mine = next(one for one in found if one.id == images.ids[4])
        z, mask, whole = latents[0].activation, latents[0].mask, latents[0].kept - latents[0].dropped
        assert z > 0
        assert 0 <= mask <= 1
        wanted = before[mine.id].score - latents[0].kept + weight * whole
        assert mine.score == pytest.approx(wanted, abs=3e-5)
        reasons = found.reasons(list(found).index(mine))
        assert reasons.score == pytest.approx(mine.score, abs=3e-5)
        without = [one for one in found if one.id != mine.id and one.score != before[one.id].score]
        assert without or weight == 1.0  # other images have it too


def test_without_an_editor_it_is_the_cosine(images: Embeddings, tmp_path: Path) -> None:
    index = SearchIndex.create(tmp_path / "index", images)
    text = world(world_sae(), 4, 5).texts[0]
    found = index.search(text, k=5)
    assert not found.edited
    assert [one.rank for one in found] == [one.plain_rank for one in found] == [1, 2, 3, 4, 5]
    assert [one.moved for one in found] == [0] * 5
    assert index.search(like=images.ids[3], k=1)[0].id == images.ids[3]
    with pytest.raises(InputError, match="without an edit that has latents"):
        index.search(text, latents={3: 0.0})


def test_pages_thresholds_and_plain_order(images: Embeddings, tmp_path: Path) -> None:
    index = SearchIndex.create(tmp_path / "index", images, editor=editor_of("gated"))
    text = world(world_sae(), 4, 5).texts[0]
    everything = index.search(text, k=60)
    assert [one.id for one in index.search(text, k=7, offset=5)] == [one.id for one in everything[5:12]]
    assert index.search(text, k=7, offset=5)[0].rank == 6
    least = everything[9].score
    assert len(index.search(text, k=60, min_score=least)) == 10
    plain = index.search(text, k=60, plain=True)
    assert [one.score for one in plain] == [one.plain_score for one in plain]
    assert {one.id: one.rank for one in plain} == {one.id: one.plain_rank for one in everything}
    assert everything[0].plain_rank == 1 + sum(one.plain_score > everything[0].plain_score for one in everything)
    quick = index.search(text, k=3, ranks=False)
    assert [one.plain_rank for one in quick] == [None] * 3
    assert len(index.search(text, offset=100)) == 0


def test_filters_leave_the_others_out(images: Embeddings, tmp_path: Path) -> None:
    years = {"id": images.ids[:50], "year": list(range(2000, 2050))}
    index = SearchIndex.create(tmp_path / "index", images, metadata=years)
    text = world(world_sae(), 4, 5).texts[0]
    assert index.columns == ["id", "split", "year"]
    found = index.search(text, where="year >= 2040 and split == 'test'", k=60)
    assert found.matches == len(found) == sum(row % 3 > 0 for row in range(40, 50))
    assert all(one.columns["year"] >= 2040 for one in found)
    assert {one.plain_rank for one in found} == set(range(1, len(found) + 1))
    both = index.search_batch([Query(text=text, k=60), Query(text=text, where="year < 2003", k=60)])
    assert [len(one) for one in both] == [60, 3]


def test_changes_are_seen_by_open_indexes_and_leave_the_rest_alone(
    images: Embeddings, more: Embeddings, tmp_path: Path
) -> None:
    editor = editor_of("gated, taught")
    index = SearchIndex.create(tmp_path / "index", images, editor=editor)
    reader = SearchIndex.open(tmp_path / "index")
    before = state_of(tmp_path / "index")
    index.add(more)
    after = state_of(tmp_path / "index")
    assert len(reader) == 85
    assert {one: after[one] for one in before} == before
    with pytest.raises(InputError, match=f"'{more.ids[0]}' already"):
        index.add(more)
    index.remove(more.ids[:5])
    index.remove(images.ids[0])
    with pytest.raises(InputError, match="no image"):
        index.remove(more.ids[0])
    assert len(reader) == 79
    changed = replace(more, images=more.images.flip(0))
    index.update(changed)
    assert len(reader) == 84
    expected = SearchIndex.create(tmp_path / "other", images.select(range(1, 60)), editor=editor)
    expected.add(changed)
    assert state_of(tmp_path / "index") == state_of(tmp_path / "other")
    index.compact()
    assert len(list((tmp_path / "index").glob("segment-*"))) == 1
    assert state_of(tmp_path / "index") == state_of(tmp_path / "other")
    assert len(reader) == 84
    index.remove([*more.ids, *images.ids[1:]])
    assert len(reader) == 0
    assert len(index.search(images.texts[0])) == 0
    index.compact()
    index.add(more)
    assert len(index.search(images.texts[0], k=50)) == 25


def test_an_index_made_anew_is_opened_again(images: Embeddings, more: Embeddings, tmp_path: Path) -> None:
    index = SearchIndex.create(tmp_path / "index", images, editor=editor_of("gated"))
    SearchIndex.create(tmp_path / "index", more, editor=index.editor)
    assert len(index) == 25  # made the same way: its images are others
    SearchIndex.create(tmp_path / "index", images, editor=editor_of("gated", seed=1))
    with pytest.raises(ArtefactError, match="made anew with another editor"):
        index.search(images.texts[0])


def test_ids_are_found_after_their_rows_were_read_and_removed(images: Embeddings, tmp_path: Path) -> None:
    index = SearchIndex.create(tmp_path / "index", images)
    first, second = index.search(images.texts[0], k=2)
    assert index.snapshot().find([second.id, first.id, first.id]).tolist() == [second.row, first.row, first.row]
    index.remove(first.id)
    assert index.snapshot().present([first.id, second.id]) == {second.id: second.row}


@pytest.mark.parametrize("name", [None, "gated, both memories", "residual, taught"])
def test_captions_of_an_image(
    name: str | None, images: Embeddings, more: Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing_module, "SEGMENT", 16)
    editor = None if name is None else editor_of(name)
    index = SearchIndex.create(tmp_path / "index", images, editor=editor, texts=True, dtype="float32")
    index.add(more)
    index.remove([images.ids[4], more.ids[1]])
    index.compact()
    kept = dict.fromkeys([*images.ids, *more.ids], True) | {images.ids[4]: False, more.ids[1]: False}
    texts, words = torch.cat([images.texts, more.texts]), [*images.captions, *more.captions]
    owners = [images.ids[row] for row in images.owners] + [more.ids[row] for row in more.owners]
    here = [row for row, owner in enumerate(owners) if kept[owner]]
    scorer = PlainScorer() if editor is None else editor
    image = images.images[9]
    prepared = scorer.prepare_images(image[None]), scorer.prepare_texts(texts[here])
    wanted = scorer.score_prepared(*prepared)[0]
    best = wanted.argsort(descending=True)[:12].tolist()
    found = index.search_captions(like=images.ids[9], k=12, candidates=None)
    assert found.exact
    assert [one.score for one in found] == pytest.approx(wanted[best].tolist(), abs=2e-5)
    assert [(one.caption, one.image_id) for one in found] == [(words[here[row]], owners[here[row]]) for row in best]
    few = index.search_captions(like=images.ids[9], k=2, candidates=2)
    assert few.exact is (editor is None)
    assert {one.plain_rank for one in few} == {1, 2}
    with pytest.raises(InputError, match="texts=True"):
        SearchIndex.create(tmp_path / "without", images).search_captions(images.images[0])


def test_large_additions_become_several_segments(
    images: Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing_module, "SEGMENT", 16)
    editor = editor_of("gated")
    SearchIndex.create(tmp_path / "parts", images, editor=editor)
    monkeypatch.undo()
    SearchIndex.create(tmp_path / "whole", images, editor=editor)
    assert len(list((tmp_path / "parts").glob("segment-*"))) == 4
    assert state_of(tmp_path / "parts") == state_of(tmp_path / "whole")


def test_a_killed_writer_leaves_the_index_as_it_was(images: Embeddings, more: Embeddings, tmp_path: Path) -> None:
    """All that a writer does before the manifest is a new segment, so it is cut at random bytes."""
    index = SearchIndex.create(tmp_path / "index", images, editor=editor_of("gated"))
    before, manifest = state_of(tmp_path / "index"), (tmp_path / "index" / "manifest.json").read_bytes()
    index.add(more)
    new = sorted((tmp_path / "index" / "segment-000002").iterdir())
    draw = random.Random(0)
    for round_ in range(6):
        copy = tmp_path / f"killed-{round_}"
        shutil.copytree(tmp_path / "index", copy)
        (copy / "manifest.json").write_bytes(manifest)
        for file in new[draw.randrange(len(new)) :]:
            cut = copy / "segment-000002" / file.name
            os.truncate(cut, draw.randrange(cut.stat().st_size))
        (copy / LOCK).touch()
        (copy / ".manifest.json.part").write_bytes(manifest[: draw.randrange(len(manifest))])
        assert state_of(copy) == before
        SearchIndex.open(copy).add(more)
        assert state_of(copy) == state_of(tmp_path / "index")


def test_a_full_disk_leaves_the_index_as_it_was(
    images: Embeddings, more: Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = SearchIndex.create(tmp_path / "index", images)
    before = state_of(tmp_path / "index")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for method in ("append", "seal", "finish"):
        with monkeypatch.context() as patch:
            patch.setattr(RowFile, method, full)
            with pytest.raises(ArtefactError, match=r"No space left on device.*the index is as it was"):
                index.add(more)
        assert state_of(tmp_path / "index") == before
        assert len(list((tmp_path / "index").glob("segment-*"))) == 1
    index.add(more)
    assert len(index) == 85


def test_two_writers_are_refused(images: Embeddings, more: Embeddings, tmp_path: Path) -> None:
    index = SearchIndex.create(tmp_path / "index", images)
    with one_writer(index.folder, index.folder / LOCK):
        for change in (lambda: index.add(more), lambda: index.remove(images.ids[0]), index.compact):
            with pytest.raises(ArtefactError, match="Another run is writing"):
                change()
        assert len(index.search(images.texts[0])) == 10


def test_torn_files_are_named(images: Embeddings, tmp_path: Path) -> None:
    editor = editor_of("gated, both memories")
    SearchIndex.create(tmp_path / "index", images, editor=editor)
    for file in sorted((tmp_path / "index" / "segment-000001").iterdir()):
        whole = file.read_bytes()
        for cut in (0, 40, len(whole) - 9):
            file.write_bytes(whole[:cut])
            with pytest.raises(ArtefactError, match="make the index again"):
                SearchIndex.open(tmp_path / "index")
        file.unlink()
        with pytest.raises(ArtefactError, match="make the index again"):
            SearchIndex.open(tmp_path / "index")
        file.write_bytes(whole)
    plain = tmp_path / "index" / "segment-000001" / "plain.npy"
    altered = bytearray(plain.read_bytes())
    altered[-3] ^= 1
    plain.write_bytes(altered)
    SearchIndex.open(tmp_path / "index")
    with pytest.raises(ArtefactError, match="were altered; make the index again"):
        SearchIndex.open(tmp_path / "index", verify=True)


def test_odd_manifests_get_one_sentence(images: Embeddings, tmp_path: Path) -> None:
    file = tmp_path / "index" / "manifest.json"
    index = SearchIndex.create(tmp_path / "index", images, editor=editor_of("gated"))
    index.remove(images.ids[0])
    good = file.read_text()
    matrix = ("segments", 0, "files", "plain.npy")
    for *path, value in (
        ("layout", []),
        ("layout", "width", 23),
        ("layout", "dtype", "object"),
        ("layout", "n_latents", 10**18),
        ("layout", "biased", None),
        ("generation", "x"),
        ("last", -1),
        ("segments", {}),
        ("segments", 0, 3),
        ("segments", 0, "name", "../elsewhere"),
        ("segments", 0, "removed", "../x.npy"),
        ("segments", 0, "files", {}),
        (*matrix, "rows", 10**30),
        (*matrix, "rows", True),
        (*matrix, "width", 1.5),
        (*matrix, "dtype", "float64"),
        (*matrix, "parts", [[10**30, ""]]),
        (*matrix, "parts", "x"),
    ):
        there = manifest = json.loads(good)
        for key in path[:-1]:
            there = there[key]
        there[path[-1]] = value
        file.write_text(json.dumps(manifest))
        with pytest.raises(ArtefactError, match="again") as raised:
            SearchIndex.open(tmp_path / "index", verify=True).search(images.texts[0])
        assert "\n" not in str(raised.value)
    file.write_text(good)
    np.save(next((tmp_path / "index").glob("*/removed-*")), np.array([10**9]))
    with pytest.raises(ArtefactError, match="rows that are not there"):
        SearchIndex.open(tmp_path / "index")


def test_what_does_not_belong_together_is_refused(images: Embeddings, more: Embeddings, tmp_path: Path) -> None:
    editor = editor_of("gated")
    index = SearchIndex.create(tmp_path / "index", images, editor=editor)
    other = replace(more, manifest={"encoder": "another"})
    with pytest.raises(ArtefactError, match="'another'"):
        index.add(other)
    with pytest.raises(ArtefactError, match="another"):
        SearchIndex.create(tmp_path / "new", other, editor=editor)
    with pytest.raises(ArtefactError, match="made with the editor"):
        SearchIndex.open(tmp_path / "index", editor=editor_of("gated", seed=1))
    narrow = Embeddings.from_arrays(torch.randn(3, 8))
    with pytest.raises(ArtefactError, match="wide"):
        index.add(narrow)
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    (tmp_path / "index" / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))
    with pytest.raises(ArtefactError, match="format 1"):
        SearchIndex.open(tmp_path / "index")
    with pytest.raises(ArtefactError, match="no boresight index"):
        SearchIndex.open(tmp_path / "nothing")
    with pytest.raises(InputError, match="stands 2 times"):
        SearchIndex.create(tmp_path / "new", Embeddings.from_arrays(torch.randn(2, 8), ids=["a", "a"]))
    pairs = CaptionEditor(world_sae(), EditorConfig(form="residual", length_exponent=1.0), {"encoder": "world"})
    with pytest.raises(InputError, match="length_exponent=0"):
        SearchIndex.create(tmp_path / "new", images, editor=pairs)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({}, "nothing to search for"),
        ({"text": "  "}, "text is empty"),
        ({"text": "a dog"}, "does not|cannot|no "),
        ({"text": torch.ones(3)}, "24 wide"),
        ({"text": torch.full((1, 24), float("nan"))}, "NaN"),
        ({"like": "nobody"}, "no image 'nobody'"),
        ({"like": "w1-3", "k": 0}, "k is 0"),
        ({"like": "w1-3", "k": 10_001}, "10,000 at most"),
        ({"like": "w1-3", "offset": -1}, "offset is -1"),
        ({"like": "w1-3", "image_weight": 2.0}, "between 0 and 1"),
        ({"like": "w1-3", "where": "year > 3"}, "no column 'year'"),
        ({"like": "w1-3", "latents": {48: 0.0}}, "no latent 48"),
        ({"like": "w1-3", "latents": {"dog": 0.0}}, "no names"),
        ({"like": "w1-3", "latents": {3: 0.0, "3": 1.0}}, "latent 3 is switched twice"),
        ({"like": "w1-3", "latents": {3: float("nan")}}, "weight of the latent 3 is nan"),
        ({"like": "w1-3", "latents": {3.5: 1.0}}, "latent 3.5 is float"),
        ({"like": "w1-3", "k": 2.0}, "k is 2.0; pass a whole number"),
        ({"like": "w1-3", "image_weight": float("nan")}, "image_weight is nan"),
        ({"like": "w1-3", "without_weight": float("inf")}, "without_weight is inf"),
        ({"like": "w1-3", "min_score": float("nan")}, "min_score is nan"),
        ({"like": None}, "like is NoneType"),
        ({"like": [3]}, "Ids are strings"),
        ({"like": "w1-\udcff"}, "Ids are strings"),
        ({"text": 3}, "text is int"),
        ({"text": torch.ones(24, dtype=torch.complex64)}, "complex"),
        ({"text": np.array(["a"])}, "cannot be read as numbers"),
        ({"image": [3]}, "image holds int"),
    ],
)
def test_bad_queries_get_one_sentence(
    asked: dict, sentence: str, images: Embeddings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "bad-queries"
    if not folder.exists():
        SearchIndex.create(folder, images, editor=editor_of("gated"))
    with pytest.raises((InputError, ArtefactError), match=sentence) as raised:
        SearchIndex.open(folder).search(**asked)
    assert "\n" not in str(raised.value)


def test_columns_of_metadata_files(images: Embeddings, tmp_path: Path) -> None:

    table = pa.table({"id": images.ids, "place": ["Rome", "Oslo"] * 30})
    pa.parquet.write_table(table, tmp_path / "m.parquet")
    (tmp_path / "m.csv").write_text("id,place\n" + "".join(f"{one},Rome\n" for one in images.ids))
    (tmp_path / "m.jsonl").write_text("".join(json.dumps({"id": one, "place": "Rome"}) + "\n" for one in images.ids))
    for name, count in (("m.parquet", 30), ("m.csv", 60), ("m.jsonl", 60)):
        index = SearchIndex.create(tmp_path / "index", images, metadata=tmp_path / name)
        assert index.search(images.texts[0], where="place == 'Rome'").matches == count
    coded = {"id": images.ids, "place": pa.array(["Rome", "Oslo"] * 30).dictionary_encode()}
    index = SearchIndex.create(tmp_path / "index", images, metadata=coded)
    assert index.search(images.texts[0], where="place == 'Rome'").matches == 30
    (tmp_path / "m.txt").write_text("id,place\n")
    for given, sentence in (
        (tmp_path / "m.txt", "csv, parquet or jsonl"),
        (tmp_path / "no.csv", "cannot be read"),
        ({"name": ["a"]}, "no column 'id'"),
        ({"id": ["a"], "split": ["b"]}, "column 'split'"),
        ({"id": ["w1-1"], "tags": [["a"]]}, "which no filter compares"),
        ({"id": ["w1-1", "w1-1"], "x": [1, 2]}, "'w1-1' 2 times"),
        ({"id": ["w1-1", None], "x": [1, 2]}, "1 of 2 rows of the metadata have no id"),
        ({"id": ["w1-1"], "x": [1, 2]}, "is no table"),
        ({"id": [["w1-1"]]}, "pass strings"),
        ({"id": ["w1-1"], "": [1]}, "column without a name"),
        (pa.table([["w1-1"], [1], [2]], names=["id", "x", "x"]), "column 'x' twice"),
    ):
        with pytest.raises(InputError, match=sentence):
            SearchIndex.create(tmp_path / "index", images, metadata=given)
    assert len(SearchIndex.open(tmp_path / "index")) == 60


def test_columns_of_additions_fit_or_are_refused(images: Embeddings, more: Embeddings, tmp_path: Path) -> None:
    def table(embeddings: Embeddings, **columns: object) -> dict[str, object]:
        return {"id": embeddings.ids, **{name: [value] * len(embeddings) for name, value in columns.items()}}

    day = datetime.date(2024, 5, 1)
    first = table(images, year=2020, place="007", good=True, taken=day, empty=None)
    index = SearchIndex.create(tmp_path / "index", images, metadata=first)
    assert index.columns == ["id", "split", "year", "place", "good", "taken"]
    for column, value, sentence in (
        ("year", "soon", "'year' of the index holds int64"),
        ("year", 2020.5, "'year' of the index holds int64"),
        ("good", 2, "'good' of the index holds bool"),
        ("taken", datetime.datetime(2024, 5, 1, 3), "'taken' of the index holds date32"),
    ):
        with pytest.raises(InputError, match=sentence):
            index.add(more, metadata=table(more, **{column: value}))
    assert len(index) == 60
    index.add(more, metadata=table(more, year=2021.0, place=7, size=3))
    text = images.texts[0]
    for _ in range(2):
        assert index.search(text, where="year == 2021 and place == '7'").matches == 25
        found = index.search(text, where="size is None", k=60)
        assert [one.columns["size"] for one in found] == [None] * 60
        index.compact()


def test_ids_and_captions_are_text(tmp_path: Path) -> None:
    ids = ["a\nb", "'q'", '"q"', "\u00e9", "e\u0301", "", " ", "\\", "x" * 10_000, "\U0001f600"]
    index = SearchIndex.create(tmp_path / "index", Embeddings.from_arrays(torch.randn(len(ids), 3), ids=ids))
    for one in ids:
        assert index.search(like=one, k=1)[0].id == one
        if len(one) < 100:
            assert index.search(torch.ones(3), where=f"id == {one!r}").matches == 1
    index.remove("e\u0301")
    assert index.search(like="\u00e9", k=1)[0].id == "\u00e9"
    bad = Embeddings.from_arrays(torch.randn(1, 3), ids=["b\udcff"])
    with pytest.raises(InputError, match=r"'b\\udcff' is not unicode"):
        index.add(bad)


def test_an_index_without_images_has_columns(images: Embeddings, tmp_path: Path) -> None:
    index = SearchIndex.create(tmp_path / "index", images)
    index.remove(images.ids)
    assert index.columns == ["id", "split"]
    assert index.search(images.texts[0], where="split == 'test'").matches == 0


def test_an_index_made_again_is_seen_whole(images: Embeddings, tmp_path: Path) -> None:
    def years(first: int) -> dict[str, object]:
        return {"id": images.ids, "year": [first] * 60}

    reader = SearchIndex.create(tmp_path / "index", images, editor=editor_of("gated"), metadata=years(1))
    SearchIndex.create(tmp_path / "index", images, editor=editor_of("gated"), metadata=years(2))
    assert reader.search(images.texts[0], k=1)[0].columns["year"] == 2
    SearchIndex.create(tmp_path / "index", images, editor=editor_of("gated", seed=1))
    with pytest.raises(ArtefactError, match="open it again"):
        reader.search(images.texts[0])
    with pytest.raises(ArtefactError, match="was made with the editor"):
        reader.update(images)


def test_an_index_moves_and_so_does_who_asks(
    images: Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SearchIndex.create(tmp_path / "index", images, editor=editor_of("gated"))
    monkeypatch.chdir(tmp_path)
    reader = SearchIndex.open("index")
    monkeypatch.chdir(tmp_path.parent)
    assert len(reader.search(images.texts[0])) == 10
    before = state_of(tmp_path / "index")
    shutil.move(tmp_path / "index", tmp_path / "moved")
    assert state_of(tmp_path / "moved") == before


def test_what_float16_cannot_hold_is_refused_by_name(images: Embeddings, tmp_path: Path) -> None:
    editor = editor_of("gated")
    short = images.images.clone()
    short[7] *= 1e-9  # the autoencoder's bias is far longer
    small = replace(images, images=short)
    with pytest.raises(InputError, match=f"image '{images.ids[7]}' .* dtype='float32'"):
        SearchIndex.create(tmp_path / "index", small, editor=editor, dtype="float16")
    index = SearchIndex.create(tmp_path / "index", small, editor=editor, dtype="float32")
    wanted = editor.score(small.images[7:8], images.texts[:1])
    found = {one.id: one.score for one in index.search(images.texts[0], k=60)}
    assert found[images.ids[7]] == pytest.approx(float(wanted), rel=1e-4)
    lengths = torch.tensor([1e-20, 1.0, 1e20])[:, None] * images.texts[:1]
    assert len({one[0].id for one in index.search_batch([Query(text=each, plain=True) for each in lengths])}) == 1
