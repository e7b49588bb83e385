"""bfloat16 in NumPy, which has no such type: bit patterns in uint16, rounded to nearest even.

Used for weights and KV caches kept as bf16. Everything here is exact: the same bits as torch and the hardware give.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

FloatType = Literal["f32", "bf16"]
"""The element types in which AMK keeps weights and caches."""

_CHUNK = 1 << 16  # elements converted at a time: the temporaries stay in cache


def bf16_from_f32(values: NDArray[Any]) -> NDArray[np.uint16]:
    """bf16 bit patterns of float32 `values`, any shape; ties to even, overflow to infinity, NaN stays a (quiet) NaN."""
    source = np.ascontiguousarray(values, dtype=np.float32).reshape(-1).view(np.uint32)
    result = np.empty(source.shape, np.uint16)
    for start in range(0, source.size, _CHUNK):
        bits = source[start : start + _CHUNK]
        # Adding 0x7fff plus the lowest kept bit carries into it exactly when rounding to nearest even goes up.
        rounded = bits >> 16
        rounded &= 1
        rounded += 0x7FFF
        rounded += bits  # wraps around for NaNs only
        rounded >>= 16
        is_nan = np.isnan(bits.view(np.float32))
        if is_nan.any():
            rounded = np.where(is_nan, (bits >> 16) | 0x40, rounded)
        result[start : start + _CHUNK] = rounded
    return result.reshape(np.shape(values))


def f32_from_bf16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The float32 values of bf16 bit patterns, any shape; exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def round_to_bf16(values: NDArray[Any]) -> NDArray[np.float32]:
    """float32 `values` rounded to the nearest bf16, still as float32."""
    return f32_from_bf16(bf16_from_f32(values))


def itemsize(dtype: FloatType) -> int:
    """Bytes of an element."""
    return 2 if dtype == "bf16" else 4
