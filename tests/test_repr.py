"""What a prompt and a notebook show of every public object: short, on one line, escaped."""

from __future__ import annotations

import importlib
import inspect
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import datasets
import pytest
from qdrant_client import QdrantClient

import boresight as bs
from boresight.attribution import METHODS, Word
from boresight.attribution.methods.registry import make_method
from boresight.benchmarks import BenchmarkJob, BenchmarkRun
from boresight.brief import Brief
from boresight.data.load import load_collection
from boresight.editing import CaptionEditor, CorrectedScorer, Correction, PlainScorer, Words
from boresight.editing.hubness import Bank
from boresight.evaluation import Comparison, LatentCard, Verdict, evaluate_retrieval, pick_examples
from boresight.evaluation.comparison_figures import HeldOut
from boresight.evaluation.comparison_rows import PLAIN
from boresight.models import default_model_path
from boresight.sae import name_latents
from boresight.search import PostgresIndex, QdrantIndex
from boresight.search.engines import manifest_of
from boresight.search.qdrant_client_store import ClientStore
from boresight.search.tuning import Effort, Tried
from boresight.training import Captioner, CaptionerConfig, PairStream, StreamConfig
from boresight.training.shards import CollectionRows
from tiny_editor import TINY_EDITOR

EVIL = "<script>alert(1)</script>\n</pre>"
LONGEST = 500


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An object of each public class, made of pictures whose every text is an attack on a page."""
    encoder = bs.load_encoder(str(default_model_path()), dtype="float32")
    scenes = bs.data.make_scenes(12, size=64, split="test")
    cells = scenes.dataset.remove_columns(["id", "captions"])
    said = [[f"{EVIL} {text}" for text in texts] for texts in scenes.captions]
    cells = cells.add_column("id", [f"{EVIL}{row}" for row in range(12)]).add_column("captions", said)
    collection = bs.Collection(cells.cast_column("captions", datasets.List(datasets.Value("string"))), EVIL)
    folder = tmp_path_factory.mktemp("world")
    embeddings = bs.embed(encoder, collection, folder / "embeddings")
    editor = CaptionEditor.load(TINY_EDITOR)
    names = name_latents(editor.sae, embeddings=embeddings)
    images, texts = embeddings.images[:3].float(), embeddings.texts[:3].float()
    plain, rule = PlainScorer(), Correction(method="nnn", reach=1.0, share=0.5)
    bank = Bank(plain.score_prepared, plain.prepare_images(images), plain.prepare_texts(texts))
    verdict = Verdict("helps", EVIL, 300.0, 290.0, 10.0, 5.0, 15.0, EVIL, (EVIL,), {EVIL: EVIL})
    scores = evaluate_retrieval(embeddings)
    run = BenchmarkRun(
        benchmark="retrieval", title=EVIL, model=EVIL, encoder_fingerprint="", scores={"plain": scores.values}
    )
    held, figures = HeldOut(EVIL, 12, 24), {EVIL: {PLAIN.name: {"-": scores.to_dict()}}}
    words = Words.of(embeddings, encoder, size=20)
    shape = CaptionerConfig(image_width=8, text_width=8, vocabulary=16, width=8, layers=2, heads=2)
    index = bs.SearchIndex.create(folder / "index", embeddings, editor=editor, names=names, encoder=encoder, texts=True)
    found = index.search("red")
    made = [
        index,
        PostgresIndex("postgresql://me@localhost/x", "x", manifest_of(index), editor, names, encoder),
        QdrantIndex(ClientStore(QdrantClient(":memory:"), "x"), manifest_of(index), editor, names, encoder),
        found,
        found[0],
        found.reasons(0),
        index.search_captions(like=f"{EVIL}3"),
        index.search_captions(like=f"{EVIL}3")[0],
        bs.search.Query(text=EVIL),
        bs.search.Tuning(tried := Tried(Effort(50, 50), 0.9, 1.0), (tried,) * 8, 0.95, 10, 2.0, 60),
        encoder,
        collection,
        embeddings,
        editor,
        editor.sae,
        editor.sae.encode(images),
        names,
        editor.prepare_images(images),
        editor.prepare_texts(texts),
        editor.explain_edit(images[0], texts[0], names=names),
        plain,
        CorrectedScorer(plain, bank, rule, rule),
        words,
        words.values("the colour"),
        scores,
        bs.evaluation.Scores({"a": 1.0}, "a", EVIL, problems=[bs.data.Problem(EVIL, EVIL)]),
        verdict,
        Comparison([PLAIN], [held], [0], figures, verdicts={EVIL: verdict}),
        pick_examples(embeddings, editor, names)[0],
        LatentCard(3, EVIL, 0.5, [EVIL] * 8),
        bs.explain(encoder, collection.image(0), collection.texts[0], method="uniform", editor=editor),
        BenchmarkJob(encoder=encoder, data=collection, out=folder, editor=editor, bank=embeddings),
        run,
        Captioner(shape),
        PairStream(
            CollectionRows(collection, collection.owners, "captions", None, ""),
            encoder.tokenizer,
            StreamConfig(batch_size=2, image_size=8),
        ),
        bs.sae.measure_sae(editor.sae, embeddings),
        bs.data.Problem(EVIL, EVIL),
        Word(EVIL, 0.5, (1,)),
        rule,
        shape,
        editor.sae.config,
        *editor.explain_edit(images[0], texts[0]).latents[:1],
        *(make_method(name, encoder) for name in METHODS),
    ]
    return {type(one).__name__: one for one in made}


def public_classes() -> dict[str, type]:
    rooms = ["", *(f".{name}" for name in bs.__all__ if inspect.ismodule(getattr(bs, name)))]
    faces = [importlib.import_module(f"boresight{room}") for room in rooms]
    return {name: one for face in faces for name in face.__all__ if inspect.isclass(one := getattr(face, name))}


def test_every_public_object(world) -> None:
    for name, one in public_classes().items():
        if issubclass(one, Exception) or getattr(one, "_is_protocol", False):
            continue
        said = repr(world[name] if name in world else one())
        assert said.startswith(f"{name}("), said
        assert len(said) <= LONGEST, said
        assert "\n" not in said
        assert " at 0x" not in said


class Tags(HTMLParser):
    """Tags in their order, and whether each that must be closed is."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag not in ("br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_what_a_notebook_shows_is_escaped(world) -> None:
    shown = {name: one._repr_html_() for name, one in world.items() if hasattr(one, "_repr_html_")}
    asked = {"Collection", "Embeddings", "RetrievalScores", "Scores", "Comparison", "Verdict", "BenchmarkRun"}
    assert asked | {"Explanation", "Attribution", "LatentNames"} <= shown.keys()
    for page in shown.values():
        seen = Tags()
        seen.feed(page)
        assert seen.open == []
        assert "script" not in seen.tags
        assert len(page) < 300_000
    assert shown["Collection"].count("<img") == 5
    assert shown["Attribution"].count("<img") == 1
    assert "R@10" in shown["RetrievalScores"]


def test_a_picture_that_is_gone_is_said(tmp_path: Path) -> None:
    bs.data.make_scenes(2, size=32).image(0).save(tmp_path / "a.png")
    (tmp_path / "captions.jsonl").write_text('{"file_name": "a.png", "captions": ["a ring"]}\n')
    collection = load_collection(tmp_path)
    os.remove(tmp_path / "a.png")
    assert "(cannot be read)" in collection._repr_html_()


def test_a_brief_class_is_a_dataclass_without_a_repr_of_its_own() -> None:
    """The decorator would write a long one over it."""

    def below(one: type) -> list[type]:
        return [each for child in one.__subclasses__() for each in (child, *below(child))]

    assert [one for one in below(Brief) if one.__module__.startswith("boresight") and "__repr__" in vars(one)] == []
