#!/usr/bin/env bash
# Pillow 13.0.0: the clear value of a grey PNG with 2 or 4 bits makes nothing clear.
#
# A grey PNG can name one stored value that is transparent (chunk tRNS). With 8 bits Pillow makes its pixels clear.
# With 2 and 4 bits one would expect the same: Pillow stretches the values to 0..255 on reading (by 85 and by 17), and
# leaves the clear value as it is stored, so that the two no longer meet. Only the value 0 still works.
# Hurt is whoever lays transparency over a background: a drawing whose clear background is white or grey in 2 or 4 bits
# keeps it, and where the background was to be another colour, the picture is wrong without a word.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pillow==13.0.0
"$folder/venv/bin/python" - <<'PYTHON'
import io
import struct
import sys
import zlib

import PIL
from PIL import Image


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(bits: int, clear: int) -> bytes:
    """One row of four pixels with the values 0, 1, 2, 3, of which one is clear."""
    row = "".join(f"{value:0{bits}b}" for value in range(4))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)), (b"tRNS", struct.pack(">H", clear))]
    parts += [(b"IDAT", zlib.compress(b"\0" + int(row, 2).to_bytes(len(row) // 8, "big"))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


print("Pillow", PIL.__version__)
right = {}
for bits in (2, 4, 8):
    seen = {clear: list(Image.open(io.BytesIO(png(bits, clear))).convert("LA").tobytes()[1::2]) for clear in range(4)}
    right[bits] = all(alpha == [0 if value == clear else 255 for value in range(4)] for clear, alpha in seen.items())
    print(f"{bits} bits: opacity of the values 0 to 3 by the clear value: {seen}")
print("as the file says:", right)
sys.exit(0 if right == {2: False, 4: False, 8: True} else 1)
PYTHON
