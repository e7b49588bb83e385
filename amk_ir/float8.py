"""float8 e4m3fn in NumPy, which has no such type: bit patterns in uint8, rounded to nearest even.

One sign bit, four exponent bits (bias 7), three mantissa bits, no infinity: 0x7f and 0xff are NaN, 0x7e is 448. The
format is that of https://arxiv.org/abs/2209.05433; the bits are those of torch.float8_e4m3fn and of the hardware.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

E4M3_MAX = 448.0
"""The largest finite e4m3fn value."""
E4M3_NAN = 0x7F
"""The positive NaN; no other magnitude is one."""

_SUBNORMAL_STEP = 2.0**-9
_SMALLEST_NORMAL = 2.0**-6
_CHUNK = 1 << 16  # elements converted at a time: the temporaries stay in cache


def _decode_table() -> NDArray[np.float32]:
    magnitude = np.arange(128)
    exponent, mantissa = magnitude >> 3, magnitude & 7
    normal = np.ldexp(1 + mantissa / 8, exponent - 7)
    values = np.where(exponent == 0, mantissa * _SUBNORMAL_STEP, normal).astype(np.float32)
    values[E4M3_NAN] = np.nan
    return np.concatenate((values, -values))


_VALUES = _decode_table()


def f32_from_e4m3(bits: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The float32 values of e4m3fn bit patterns, any shape; exact."""
    return _VALUES[bits]


def e4m3_from_f32(values: NDArray[Any]) -> NDArray[np.uint8]:
    """e4m3fn bit patterns of float32 `values`, any shape; ties to even, above 448 (infinity too) it is 448, NaN is NaN.

    As `cvt.rn.satfinite` on the GPU and torch from 2.13 on; older ones make a NaN of what rounds above 448.
    """
    source = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
    result = np.empty(source.shape, np.uint8)
    for start in range(0, source.size, _CHUNK):
        part = source[start : start + _CHUNK]
        magnitude = np.minimum(np.abs(part), np.float32(E4M3_MAX))  # a NaN stays one
        bits = magnitude.view(np.uint32)
        # Adding half a step, less one unless the lowest kept bit is set, carries exactly where nearest even goes up.
        normal = ((bits + np.uint32(0x7FFFF) + ((bits >> 20) & 1)) >> 20).astype(np.int32) - (120 << 3)
        is_small = magnitude < _SMALLEST_NORMAL
        small = np.rint(np.where(is_small, magnitude, 0) / _SUBNORMAL_STEP).astype(np.int32)
        code = np.where(is_small, small, normal)
        code[np.isnan(part)] = E4M3_NAN
        code[np.signbit(part)] |= 0x80
        result[start : start + _CHUNK] = code
    return result.reshape(np.shape(values))
