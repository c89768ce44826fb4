"""boresight index and search, as they are typed, with the model and an editor of its own."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

import boresight as bs
from boresight.models import default_model_path
from boresight.sae import name_latents
from boresight.search import tuning
from command_line import boresight
from tiny_editor import TINY_EDITOR


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection of pictures with captions and years, embedded, with names of the editor's latents."""
    folder = tmp_path_factory.mktemp("search")
    scenes = bs.data.make_scenes(24, size=64, split="test")
    (folder / "pictures").mkdir()
    rows = ["file_name,caption,year"]
    for row in range(24):
        scenes.image(row).save(folder / "pictures" / f"{row:02}.png")
        rows.append(f'{row:02}.png,"{scenes.captions[row][0]}",{2000 + row}')
    (folder / "pictures" / "captions.csv").write_text("\n".join(rows) + "\n")
    encoder = bs.load_encoder(str(default_model_path()))
    embeddings = bs.embed(encoder, bs.load_collection(folder / "pictures"), folder / "embeddings")
    name_latents(bs.CaptionEditor.load(TINY_EDITOR).sae, embeddings=embeddings).save(folder / "names")
    return folder


def answers(out: str) -> list[str]:
    return [line.split()[1] for line in out.splitlines()[1:] if line[:1].isdigit()]


def test_from_embeddings_to_answers(folder: Path) -> None:
    made = ["index", "embeddings", "--out", "index", "--editor", TINY_EDITOR, "--names", "names"]
    code, out, err = boresight(*made, "--collection", "pictures", cwd=folder)
    assert (code, err) == (0, "")
    assert "24 images, searched by the editor's score" in out
    assert "year" in out

    index = bs.SearchIndex.open(folder / "index", encoder=bs.load_encoder(str(default_model_path())))
    code, out, err = boresight("search", "index", "a red square", "--k", 5, cwd=folder)
    assert (code, err) == (0, "")
    assert answers(out) == [one.id for one in index.search("a red square", k=5)]
    assert out.splitlines()[0].split()[:5] == ["rank", "image", "score", "plain", "plain"]

    asked = ["a red square", "--without", "a circle", "--where", "year >= 2012", "--like", "13.png", "--reasons", 1]
    code, out, _ = boresight("search", "index", *asked, cwd=folder)
    found = index.search("a red square", without="a circle", where="year >= 2012", like="13.png")
    assert code == 0
    assert answers(out)[:10] == [one.id for one in found]
    assert "part of the score" in out
    code, out, _ = boresight("search", "index", "--image", "pictures/07.png", "--k", 1, "--plain", cwd=folder)
    assert answers(out) == ["07.png"]
    code, out, _ = boresight("search", "index", "a red square", "--html", "page.html", cwd=folder)
    assert code == 0
    assert "<h1>“a red square”</h1>" in (folder / "page.html").read_text()
    latent = found.reasons(0).terms[0].explanation.latents[0].index
    code, out, _ = boresight("search", "index", "a red square", "--off", latent, cwd=folder)
    assert answers(out) == [one.id for one in index.search("a red square", latents={latent: 0.0})]
    assert index.image("03.png").size == (64, 64)
    assert index.thumbnail("03.png")[:4] == b"RIFF"


def test_an_index_is_changed(folder: Path) -> None:
    boresight("index", "embeddings", "--out", "changed", cwd=folder)
    code, out, _ = boresight("index", "--out", "changed", "--remove", "03.png", "04.png", "--compact", cwd=folder)
    assert code == 0
    assert "22 images, searched by the plain cosine" in out
    code, _, err = boresight("index", "embeddings", "--out", "changed", "--add", cwd=folder)
    assert code == 2
    assert "already (22 of 24 are there)" in err
    code, out, _ = boresight("index", "embeddings", "--out", "changed", "--update", cwd=folder)
    assert code == 0
    assert "24 images" in out


def test_captions_of_a_picture(folder: Path) -> None:
    boresight("index", "embeddings", "--out", "captions", "--texts", cwd=folder)
    for which in (["--like", "07.png"], ["--image", "pictures/07.png"]):
        code, out, _ = boresight("search", "captions", *which, "--captions", "--k", 3, cwd=folder)
        assert code == 0
        assert len(out.splitlines()) == 4
        assert "of image" in out.splitlines()[0]


def test_a_graph_is_built_tuned_and_searched(folder: Path) -> None:
    pytest.importorskip("faiss")
    code, out, _ = boresight("index", "embeddings", "--out", "graph", "--collection", "pictures", "--graph", cwd=folder)
    assert code == 0
    index = bs.SearchIndex.open(folder / "graph", encoder=bs.load_encoder(str(default_model_path())))
    asked = ["search", "graph", "a red square", "--k", 3]
    code, out, _ = boresight(*asked, "--candidates", 12, "--ef-search", 16, cwd=folder)
    assert code == 0
    assert answers(out) == [one.id for one in index.search("a red square", k=3, candidates=12, ef_search=16)]
    assert "Only candidates were scored" in out
    assert "Every image was scored." in boresight(*asked, "--candidates", 24, cwd=folder)[1]

    (folder / "queries.txt").write_text("a red square\n\na circle\n")
    for queries, count in ([], 5), (["queries.txt"], 2):
        words = ["tune", "graph", *queries, "--k", 2, "--sample", 5, "--keep"]
        with mock.patch.object(tuning, "COUNTS", (4, 12)):
            code, out, _ = boresight(*words, cwd=folder)
        assert code == 0
        assert f"{count} queries" in out
        assert "chosen" in out
        assert "Kept:" in out
    code, out, _ = boresight(*asked, "--candidates", "tuned", cwd=folder)
    assert "Only candidates were scored" in out
    code, out, _ = boresight("index", "--out", "graph", "--remove", "03.png", "--graph", cwd=folder)
    assert "23 images" in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["index", "--out", "x"], "Name a folder of embeddings"),
        (["index", "embeddings", "--out", "pictures"], "holds files that boresight did not write"),
        (["index", "embeddings", "--out", "x", "--compact"], "pass --add or --update"),
        (["index", "embeddings", "--out", "embeddings", "--add"], "kind 'embeddings', not 'index'"),
        (["index", "embeddings", "--out", "x", "--add", "--editor", "names"], "stay as they were"),
        (["search", "nothing", "a dog"], "no boresight index"),
        (["search", "embeddings", "a dog"], "kind 'embeddings', not 'index'"),
        (["search", "small"], "nothing to search for"),
        (["search", "small", "a dog", "--where", "yaer > 3"], "no column 'yaer'"),
        (["search", "small", "a dog", "--off", "red"], "no edit|without an edit"),
        (["search", "small", "--captions"], "for one picture"),
        (["search", "small", "--captions", "--like", "07.png"], "--texts"),
        (["search", "small", "--captions", "--like", "07.png", "--candidates", 50], "leave it out with --captions"),
        (["search", "small", "a dog", "--candidates", 5], "--candidates is 5|candidates is 5"),
        (["search", "small", "a dog", "--candidates", 50], "has no graph"),
        (["tune", "small", "nothing.txt"], "nothing.txt cannot be read"),
        (["tune", "small"], "has no graph"),
        (["search", "small", "--like", "nobody"], "no image 'nobody'"),
        (["search", "small", "--image", "nothing.png"], "nothing.png"),
    ],
)
def test_bad_words_get_one_sentence(words: list, sentence: str, folder: Path) -> None:
    if not (folder / "small").exists():
        boresight("index", "embeddings", "--out", "small", cwd=folder)
    words = [TINY_EDITOR if word == "names" and "--editor" in words else word for word in words]
    code, _, err = boresight(*words, cwd=folder)
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert any(part in err for part in sentence.split("|")), err
