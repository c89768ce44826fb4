#!/usr/bin/env bash
# faiss-cpu 1.15.1: write_index returns as if all were well where the disk is full at the end of the file.
#
# What is written last stands in a buffer of the C library until the file is closed. Here the whole of a small index
# does, and the file is /dev/full, which takes nothing, as a full disk.
# One would expect the exception that a larger index gives, whose buffer is full before. The failure of the closing
# is printed on stderr, by the destructor of the writer, and write_index returns. The file lacks up to its last 4 KB.
# Hurt is whoever writes an index beside another one and then puts it in its place: the whole one is lost.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check faiss-cpu==1.15.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import faiss
import numpy as np


def raised(rows: int) -> bool:
    index = faiss.IndexFlatIP(8)
    index.add(np.ones((rows, 8), np.float32))
    try:
        faiss.write_index(index, "/dev/full")
    except RuntimeError:
        return True
    return False


found = {rows: raised(rows) for rows in (10, 100_000)}
print("faiss", faiss.__version__)
for rows, error in found.items():
    print(f"{rows:,} rows to a full disk: {'an exception' if error else 'returns without an error'}")
sys.exit(0 if found == {10: False, 100_000: True} else 1)
PYTHON
