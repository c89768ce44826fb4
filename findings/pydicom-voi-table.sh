#!/usr/bin/env bash
# pydicom 3.0.2: a VOI table with 8-bit entries starts anew after 256 of them.
#
# A DICOM file may say how its grey values are shown by a table (VOI LUT Sequence). A usual one, of radiography, has
# 4,096 entries of 8 bits each, one for every 12-bit value.
# One would expect apply_voi to look every value up at its own place, so that a table which rises gives a picture that
# rises. It keeps the places in the type of the entries, uint8, before it cuts them to the length of the table: value
# 256 gets the entry of 0, value 4,095 that of 255. With 16-bit entries the same table is right.
# Hurt is whoever feeds a model with such pictures through pydicom: bright parts turn into stripes, without a warning.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pydicom==3.0.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import pydicom
from pydicom.pixels import apply_voi

values = np.arange(4096, dtype=np.uint16)


def shown(bits: int) -> np.ndarray:
    """The values through a table that rises from 0 to the greatest entry of `bits` bits, on 0..1."""
    table = pydicom.Dataset()
    table.LUTDescriptor = [4096, 0, bits]
    table.add_new("LUTData", "US", (values.astype(np.int64) * (2**bits - 1) // 4095).tolist())
    file = pydicom.Dataset()
    file.VOILUTSequence = [table]
    return apply_voi(values, file) / (2**bits - 1)


print("pydicom", pydicom.__version__)
rising = {bits: bool((np.diff(shown(bits)) >= 0).all()) for bits in (8, 12)}
print("value 4095 is shown at", {bits: round(float(shown(bits)[-1]), 3) for bits in (8, 12)}, "of 1")
print("the picture rises as its table does:", rising)
print("steps down with 8-bit entries:", int((np.diff(shown(8)) < 0).sum()))
sys.exit(0 if rising == {8: False, 12: True} else 1)
PYTHON
