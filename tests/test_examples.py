"""The examples run."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import subprocess
import sys
import threading
from http.server import HTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from boresight import CaptionEditor, SearchIndex, embed, load_encoder
from boresight.data.worlds.scenes import make_scenes
from boresight.models import default_model_path
from snippet_world import fewer_steps
from tiny_editor import TINY_EDITOR

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_search_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, scenes = load_encoder(default_model_path()), make_scenes(40, split="test", seed=5)
    embeddings = embed(encoder, scenes, tmp_path / "embeddings")
    editor = CaptionEditor.load(TINY_EDITOR)
    SearchIndex.create(tmp_path / "index", embeddings, editor=editor)
    monkeypatch.setattr(sys, "argv", ["serve_search.py", str(tmp_path / "index")])
    example = runpy.run_path(str(EXAMPLES / "serve_search.py"))
    monkeypatch.setattr(example["Search"], "log_message", lambda *_: None)
    with HTTPServer(("localhost", 0), example["Search"]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://localhost:{server.server_port}/"
        assert embeddings.captions is not None
        with urlopen(f"{address}?q={quote(embeddings.captions[0])}") as answer:
            found = json.load(answer)
        with pytest.raises(HTTPError, match="400"):
            urlopen(address)
        server.shutdown()
    scores = editor.score(embeddings.images, embeddings.texts[:1])[:, 0]
    best = scores.argsort(descending=True)[:5]
    assert [each["id"] for each in found] == [embeddings.ids[row] for row in best]
    assert [each["score"] for each in found] == pytest.approx(scores[best].tolist(), abs=1e-3)


def test_the_notebook_runs_from_photographs_to_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell, on pictures that it draws and writes as a folder of one's own would be."""
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text("utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BORESIGHT_QUIET", "1")
    fewer_steps(monkeypatch)
    names: dict[str, object] = {}
    shown = []
    for cell in cells:
        *lines, last = ast.parse("".join(cell["source"]).replace("make_scenes(800)", "make_scenes(60)")).body
        ends_in_value = isinstance(last, ast.Expr)
        exec(compile(ast.Module([*lines, *([] if ends_in_value else [last])], []), "quickstart", "exec"), names)
        if ends_in_value:
            value = eval(compile(ast.Expression(last.value), "quickstart", "eval"), names)
            shown.append(value._repr_html_() if hasattr(value, "_repr_html_") else repr(value))
    assert all(page and "\nTraceback" not in page for page in shown)
    assert shown[0].count("<img") == 5  # the collection
    assert any("the best alternative" in page for page in shown)  # the verdict
    assert shown[-2].count("<img") == 5  # answers of the index, as a grid
    assert shown[-1].startswith("Reasons(")


def test_links_of_the_notebook_are_there() -> None:
    words = "".join((EXAMPLES / "quickstart.ipynb").read_text("utf-8"))
    links = re.findall(r"\]\(([^)#]+)(?:#([\w-]+))?\)", words)
    assert len(links) > 3
    for path, anchor in links:
        page = EXAMPLES / path
        assert page.is_file(), path
        titles = [line.lstrip("# ") for line in page.read_text("utf-8").splitlines() if line.startswith("#")]
        headings = [title.lower().replace(" ", "-") for title in titles]
        assert not anchor or anchor in headings, (path, anchor)


def test_a_folder_of_pictures_is_served_as_a_space(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for row in range(3):
        make_scenes(3, split="test").image(row).save(tmp_path / "photos" / f"{row}.png")
    environment = {**os.environ, "PORT": "0", "BORESIGHT_QUIET": "1"}
    command = [sys.executable, str(EXAMPLES / "space" / "app.py"), str(tmp_path / "photos")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as started:
        assert started.stdout is not None
        address = re.search(r"3 pictures at (http://\S+)", started.stdout.readline())[1]
        with urlopen(f"{address}/api/info") as answer:
            assert json.load(answer)["images"] == 3
        with urlopen(address) as answer:
            assert b"Say in words" in answer.read()
        started.terminate()
        assert started.wait(60) in (0, -15)
    assert (tmp_path / "photos.boresight" / "index").is_dir()
