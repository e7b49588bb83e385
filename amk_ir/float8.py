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
_HALF_AND_BIAS = np.uint32((0x7FFFF - (120 << 23)) % 2**32)
"""What is added to the bits of a normal value before the lowest 20 are dropped; modulo 2^32."""
_SMALL_ROUNDER = np.float32(_SUBNORMAL_STEP * 2**23)
"""Added to a value below 2^-6, it leaves the multiple of the subnormal step in the lowest bits."""
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
        magnitude = np.abs(part)
        np.minimum(magnitude, np.float32(E4M3_MAX), out=magnitude)  # a NaN stays one
        bits = magnitude.view(np.uint32)
        # Adding half a step, less one unless the lowest kept bit is set, carries exactly where nearest even goes up.
        code = bits >> np.uint32(20)
        code &= np.uint32(1)
        code += bits
        code += _HALF_AND_BIAS
        code >>= np.uint32(20)
        is_small = magnitude < np.float32(_SMALLEST_NORMAL)
        with np.errstate(invalid="ignore"):  # NumPy warns of signalling NaN
            magnitude += _SMALL_ROUNDER
        np.subtract(bits, _SMALL_ROUNDER.view(np.uint32), out=code, where=is_small)
        codes = code.astype(np.uint8)
        codes[np.isnan(part)] = E4M3_NAN
        codes |= (part.view(np.uint32) >> np.uint32(24)).astype(np.uint8) & np.uint8(0x80)
        result[start : start + _CHUNK] = codes
    return result.reshape(np.shape(values))
