"""Requests of every kind against the search service, longer than the tests do it: `make fuzz`.

    python profiling/service_fuzz.py --examples 200 --rounds 5

Each round draws from another seed. It stops at the first answer that is a failure (5xx) or not as the service describes
itself, and prints the request.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from boresight.app import Limits, Service, create_app
from boresight.encoders import load_encoder
from boresight.models import default_model_path
from boresight.search import SearchIndex
from scenes_index import ODD_IDS, make_scenes_index
from service_contract import check_contract


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=200, help="requests of each address, right and wrong ones each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    encoder = load_encoder(default_model_path(), dtype="float32")
    statuses: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        index = SearchIndex.open(make_scenes_index(Path(scratch), encoder), encoder=encoder)
        service = Service(index, Limits(k=50, batch=8, body_bytes=300_000, pixels=250_000))
        for number in range(options.seed, options.seed + options.rounds):
            statuses.update(check_contract(create_app(service), ODD_IDS, options.examples, number))
            print(f"seed {number}: {statuses.total():,} requests so far, no failure", flush=True)
        service.close()
    for line, count in sorted(statuses.items()):
        print(f"{count:7,}  {line}")


if __name__ == "__main__":
    main()
