"""Inner products and gated lengths of few columns in one reading of the rows, compiled: needs the extra [search].

A matrix product of one to four columns waits for memory, and a second one, for the lengths, would wait again. These
loops read a row once for both. float16 arrives as int16, because numba has no such numbers for processors.

Each row is summed for itself and in one order, so that its score does not depend on where it stands.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import overload

MOST_COLUMNS = 4
"""With more columns a matrix product is faster."""
_FAST = {"reassoc", "contract", "nsz", "arcp"}  # sums in any order; a NaN stays a NaN
_SHIFTED = np.int32(-0x70002000)  # 0x8fffe000: a float16 moved 13 bits up, without the copies of its sign
_TO_FLOAT32 = np.float32(2.0**112)  # 2 ** (127 - 15), between the offsets of the two exponents


def _wide(number: Any) -> Any:
    """float32 of a float32, or of the bits of a float16."""


def _damaged(array: Any, row: Any) -> Any:
    """Whether a row of float16 holds a number that is not finite, which `_wide` does not keep."""


@overload(_wide, strict=False)
def _wide_of(number: Any) -> Any:
    if isinstance(number, types.Float):
        return lambda number: number
    return lambda number: np.int32((np.int32(number) << np.int32(13)) & _SHIFTED).view(np.float32) * _TO_FLOAT32


@overload(_damaged, strict=False)
def _damaged_of(array: Any, row: Any) -> Any:
    if isinstance(array.dtype, types.Float):
        return lambda array, row: False

    def some(array, row):  # type: ignore[no-untyped-def]
        sign = np.int16(0)
        for i in range(array.shape[1]):  # an exponent of ones carries into the sign
            sign = np.int16(sign | np.int16((array[row, i] & np.int16(0x7FFF)) + np.int16(0x0400)))
        return sign < 0

    return some


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def products(dense_BD, query_CD, gate_CD, out_BC, squares_BC):  # type: ignore[no-untyped-def]
    """Fills `out` with inner products and `squares` with sums of gate * row ** 2; the gate may have no rows."""
    for row in range(dense_BD.shape[0]):
        damaged = _damaged(dense_BD, row)
        for column in range(query_CD.shape[0]):
            product, square = np.float32(0), np.float32(0)
            if len(gate_CD):
                for i in range(dense_BD.shape[1]):
                    number = _wide(dense_BD[row, i])
                    product += number * query_CD[column, i]
                    square += number * number * gate_CD[column, i]
                squares_BC[row, column] = square
            else:
                for i in range(dense_BD.shape[1]):
                    product += _wide(dense_BD[row, i]) * query_CD[column, i]
            out_BC[row, column] = np.float32(np.nan) if damaged else product


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def add_latents(indices_BK, values_BK, latent_CL, out_BC):  # type: ignore[no-untyped-def]
    """Adds the sums of values * latent[index] to `out`; every index must be one of the L."""
    for row in range(indices_BK.shape[0]):
        damaged = _damaged(values_BK, row)
        for column in range(latent_CL.shape[0]):
            total = np.float32(0)
            for slot in range(indices_BK.shape[1]):
                total += _wide(values_BK[row, slot]) * latent_CL[column, indices_BK[row, slot]]
            out_BC[row, column] += np.float32(np.nan) if damaged else total


def plain(array: np.ndarray) -> np.ndarray:
    """The array as the loops take it: not a memory map, read only, float16 as int16. One compiled form for all."""
    out = np.ascontiguousarray(array).view(np.ndarray)
    out = out.view(np.int16) if out.dtype == np.float16 else out.view()
    out.flags.writeable = False
    return out
