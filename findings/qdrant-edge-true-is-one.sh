#!/usr/bin/env bash
# qdrant-edge-py 0.9.0: a filter on a boolean, MatchValue(True), finds nothing, without a word.
#
# Payloads hold booleans, and the stub of MatchValue says that it takes str, int or bool. In Python True is also an int,
# and the binding asks for the int first: MatchValue(True).value is 1, which no boolean of a payload matches.
# One would expect the points whose payload is true, as a Qdrant server and qdrant-client's local mode give them.
# numpy.bool_(True), which is no int, is passed on as a boolean and finds them.
# Hurt is whoever filters by a flag: must finds no point, and must_not lets all of them through.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check qdrant-edge-py==0.9.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder/shard" <<'PYTHON'
import sys
import uuid

import numpy as np
from qdrant_edge import (
    CountRequest,
    Distance,
    EdgeConfig,
    EdgeShard,
    EdgeVectorParams,
    FieldCondition,
    Filter,
    MatchValue,
    Point,
    UpdateOperation,
)

shard = EdgeShard.create(sys.argv[1], EdgeConfig(vectors={"v": EdgeVectorParams(2, Distance.Dot)}))
points = [Point(str(uuid.uuid4()), {"v": [1.0, 2.0]}, {"flag": row % 2 == 0}) for row in range(10)]
shard.update(UpdateOperation.upsert_points(points))


def found(value: object, name: str) -> int:
    condition = FieldCondition("flag", match=MatchValue(value))
    return shard.count(CountRequest(exact=True, filter=Filter(**{name: [condition]})))


counts = {}
for value in (True, np.bool_(True)):
    counts[repr(value)] = found(value, "must"), found(value, "must_not")
    print(f"{value!r}: value {MatchValue(value).value!r}, must {counts[repr(value)][0]} of the 5 that are true")
print("must and must_not:", counts)
sys.exit(0 if list(counts.values()) == [(0, 10), (5, 5)] else 1)
PYTHON
