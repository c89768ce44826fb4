"""Search by a sentence over HTTP, from an index, in twenty lines; `boresight serve` is the service with everything.

After `make demo`:

.venv/bin/boresight index runs/demo/embeddings --out runs/demo/index --editor runs/demo/seed-0/edited
.venv/bin/python examples/serve_search.py runs/demo/index
curl 'http://localhost:8000/?q=woman+astronaut'
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlparse

import boresight as bs
from boresight.models import default_model_path

encoder = bs.load_encoder(sys.argv[2] if len(sys.argv) > 2 else default_model_path())  # which made the embeddings
index = bs.SearchIndex.open(sys.argv[1], encoder=encoder)


class Search(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked = parse_qs(urlparse(self.path).query).get("q", [""])[0].strip()
        self.send_response(200 if asked else 400)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        found = [{"id": one.id, "score": round(one.score, 4)} for one in index.search(asked, k=5)] if asked else []
        self.wfile.write(json.dumps(found or "Ask with ?q=and a sentence.").encode())


if __name__ == "__main__":
    print("Ask http://localhost:8000/?q=", flush=True)
    HTTPServer(("localhost", 8000), Search).serve_forever()
