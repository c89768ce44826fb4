#!/usr/bin/env bash
# Pillow 13.0.0: a TIFF whose least value is white is turned round with 8 bits, and not with 16 or with floats.
#
# A grey TIFF says by PhotometricInterpretation whether 0 is white (0) or black (1). Scanners of X-ray films and of
# line art write 0.
# One would expect Pillow to treat the depths alike: it turns 8-bit values round on reading, so that 0 is black in what
# it gives. With 16 bits and with floats the stored values come as they are: the picture is a negative of itself,
# without a word, and the mode of the picture does not tell.
# Hurt is whoever mixes depths: the same scan saved with 8 and with 16 bits gives a model a picture and its negative.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import io
import struct
import sys

import numpy as np
import PIL
from PIL import Image


def tiff(values: np.ndarray, photometric: int) -> bytes:
    """A grey TIFF of one strip, by the letter of TIFF 6.0; the strip begins at byte 134."""
    height, width = values.shape
    kind = 3 if values.dtype.kind == "f" else 1
    tags = [(256, width), (257, height), (258, values.itemsize * 8), (259, 1), (262, photometric)]
    tags += [(273, 134), (277, 1), (278, height), (279, values.nbytes), (339, kind)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + values.tobytes()


print("Pillow", PIL.__version__)
turned = {}
for name, dtype, white in (("8 bits", "<u1", 255), ("16 bits", "<u2", 65535), ("floats", "<f4", 1.0)):
    stored = np.array([[0, white]], dtype)
    given = {}
    for photometric in (1, 0):
        data = tiff(stored, photometric)
        given[photometric] = np.asarray(Image.open(io.BytesIO(data))).astype(float).tolist()[0]
    turned[name] = given[0] == given[1][::-1]
    print(f"{name}: stored {stored.tolist()[0]}, given {given[1]} where 0 is black and {given[0]} where 0 is white")
print("turned round:", turned)
sys.exit(0 if turned == {"8 bits": True, "16 bits": False, "floats": False} else 1)
PYTHON
