"""GGUF's quantised blocks as codes, scales and minimums, where a format of ours holds their values exactly.

The blocks are those of ggml (https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h): `d` and `m` are float16.

Q8_0   32 values: d, 32 int8                                        int8:g32:f16
Q4_0   32 values: d, 32 nibbles                                     int4:g32:f16        (nibble - 8) * d
Q4_1   32 values: d, m, 32 nibbles                                  int4:g32:min:f16    nibble * d + m
Q4_K   256 values: d, m, 8 x 6 bits of scale and of minimum, nibbles  int4:g32:min      nibble * (d * scale) - (m * min)
Q6_K   256 values: codes of 6 bits, 16 int8 scales, d               int8:g16            (code - 32) * (d * scale)

The products of scales are exact in float32, so that these are the values that the gguf package computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.quantization import QuantizedFormat, QuantizedTensor

Bytes: TypeAlias = NDArray[np.uint8]
Parts: TypeAlias = tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32] | None]
"""Codes [blocks, elements], scales and minimums [blocks, groups]."""

FORMATS: Mapping[str, QuantizedFormat] = {
    "Q8_0": QuantizedFormat("int8", 32, scale_dtype="f16"),
    "Q4_0": QuantizedFormat("int4", 32, scale_dtype="f16"),
    "Q4_1": QuantizedFormat("int4", 32, minimums=True, scale_dtype="f16"),
    "Q4_K": QuantizedFormat("int4", 32, minimums=True),
    "Q6_K": QuantizedFormat("int8", 16),
}
"""The format of each GGUF type that is kept quantised."""


def from_blocks(kind: str, blocks: Bytes, shape: tuple[int, int]) -> QuantizedTensor:
    """The matrix of `shape` that `blocks` [rows * columns / block size, block bytes] of type `kind` hold."""
    rows, columns = shape
    codes, scales, minimums = _UNPACK[kind](blocks)
    return QuantizedTensor(
        FORMATS[kind],
        shape,
        np.ascontiguousarray(codes).reshape(rows, columns),
        np.ascontiguousarray(scales).reshape(rows, -1),
        minimums=None if minimums is None else np.ascontiguousarray(minimums).reshape(rows, -1),
    )


def _half(data: Bytes) -> NDArray[np.float32]:
    """float16 [blocks, 1] from two bytes of each block."""
    return np.ascontiguousarray(data).view("<f2").astype(np.float32)


def _nibbles(data: Bytes, run: int) -> Bytes:
    """[blocks, 2 * bytes]: of each run of bytes the low nibbles, then the high ones."""
    runs = data.reshape(len(data), -1, run)
    return np.stack((runs & np.uint8(15), runs >> np.uint8(4)), axis=2).reshape(len(data), -1)


def _q8_0(data: Bytes) -> Parts:
    return data[:, 2:].view(np.int8), _half(data[:, :2]), None


def _q4_0(data: Bytes) -> Parts:
    return _nibbles(data[:, 2:], 16).view(np.int8) - np.int8(8), _half(data[:, :2]), None


def _q4_1(data: Bytes) -> Parts:
    return _nibbles(data[:, 4:], 16).view(np.int8), _half(data[:, :2]), _half(data[:, 2:4])


def _q4_k(data: Bytes) -> Parts:
    d, d_min, packed = _half(data[:, :2]), _half(data[:, 2:4]), data[:, 4:16]
    # the first four groups have 6 bits in one byte each, the others 4 bits here and 2 in the bytes of the first
    first, second, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate((first & 63, rest & 15 | first >> 6 << 4), axis=1)
    minimums = np.concatenate((second & 63, rest >> 4 | second >> 6 << 4), axis=1)
    return _nibbles(data[:, 16:], 32).view(np.int8), d * scales, -(d_min * minimums)


def _q6_k(data: Bytes) -> Parts:
    low, high, scales, d = data[:, :128], data[:, 128:192], data[:, 192:208], _half(data[:, 208:])
    two_bits = high.reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    codes = _nibbles(low, 64) | (two_bits << 4).reshape(len(data), -1)
    return codes.view(np.int8) - np.int8(32), d * scales.view(np.int8), None


_UNPACK: Mapping[str, Callable[[Any], Parts]] = {
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q4_K": _q4_k,
    "Q6_K": _q6_k,
}
