"""The examples run."""

from __future__ import annotations

import json
import runpy
import sys
import threading
from http.server import HTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from boresight import CaptionEditor, SparseAutoencoder, embed, load_encoder
from boresight.data.worlds.scenes import make_scenes
from boresight.models import default_model_path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_search_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, scenes = load_encoder(default_model_path()), make_scenes(40, split="test", seed=5)
    embeddings = embed(encoder, scenes, tmp_path / "embeddings")
    sae = SparseAutoencoder.fit(embeddings, n_latents=64, k=8, steps=20)
    half = embeddings.select(range(20)), embeddings.select(range(20, 40))
    editor = CaptionEditor.fit(sae, *half, steps=5, length_exponent=0.0)
    editor.save(tmp_path / "editor")
    monkeypatch.setattr(sys, "argv", ["serve_search.py", str(tmp_path / "embeddings"), str(tmp_path / "editor")])
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
