"""Search by a sentence over HTTP.

After `make demo`:

.venv/bin/python examples/serve_search.py runs/demo/embeddings runs/demo/seed-0/edited
curl 'http://localhost:8000/?q=woman+astronaut'
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlparse

import torch

import boresight as bs
from boresight.models import default_model_path

embeddings, editor = bs.Embeddings.load(sys.argv[1]), bs.CaptionEditor.load(sys.argv[2])
encoder = bs.load_encoder(sys.argv[3] if len(sys.argv) > 3 else default_model_path())  # which made the embeddings
editor.require_same_encoder(encoder)
index = editor.prepare_images(embeddings.images.float())  # once; a query then costs one product


@torch.inference_mode()
def answers(sentence: str, k: int = 5) -> list[dict[str, str | float]]:
    scores = editor.score_prepared(index, editor.prepare_texts(encoder.embed_texts([sentence])))[:, 0]
    rows = scores.argsort(descending=True)[:k].tolist()
    return [{"id": embeddings.ids[row], "score": round(float(scores[row]), 4)} for row in rows]


class Search(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked = parse_qs(urlparse(self.path).query).get("q", [""])[0].strip()
        self.send_response(200 if asked else 400)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answers(asked) if asked else "Ask with ?q=and a sentence.").encode())


if __name__ == "__main__":
    print("Ask http://localhost:8000/?q=", flush=True)
    HTTPServer(("localhost", 8000), Search).serve_forever()
