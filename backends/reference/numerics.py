"""The one reference meaning of each op, in float32; every level computes with these functions.

Activations are [T, ...] with T the tokens of a step. Weights and cached keys and values come as float32 arrays whatever
their storage type: values of bf16 storage are already rounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Ids = NDArray[np.int32]


def linear(x: F32, w: F32) -> F32:
    """`y = x w^T`: x [T, *k], w [*n, *k] -> [T, *n]. No copies if both are contiguous."""
    rows = x.shape[0]
    n = w.shape[: w.ndim - x.ndim + 1]
    x2 = x.reshape(rows, -1)
    w2 = w.reshape(-1, x2.shape[1])
    # one row: a matrix-vector product, which BLAS reads the weights for once and without packing them
    y = np.dot(w2, x2[0]) if rows == 1 else np.dot(x2, w2.T)
    return y.reshape(rows, *n)


def rms_norm(x: F32, weight: F32, eps: float) -> F32:
    """`x / sqrt(mean(x^2) + eps) * weight` over the last dimension: x [..., width], weight [width]."""
    mean = np.vecdot(x, x)[..., None] / np.float32(x.shape[-1])
    return weight * (x * (np.float32(1) / np.sqrt(mean + np.float32(eps))))


def rope(x: F32, frequencies: F32, pos: int) -> F32:
    """Rotates the pairs (x[..., 0, i], x[..., 1, i]) of x [T, ..., 2, n] by `(pos + row) * frequencies[i]`.

    The angle is a float32 product, as in transformers; its cosine and sine are correctly rounded.
    """
    positions = np.arange(pos, pos + x.shape[0], dtype=np.float32)
    angles = np.multiply.outer(positions, frequencies).astype(np.float64)
    angles = angles.reshape(x.shape[0], *(1,) * (x.ndim - 3), -1)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    first, second = x[..., 0, :], x[..., 1, :]
    result = np.empty_like(x)
    result[..., 0, :] = first * cos - second * sin
    result[..., 1, :] = second * cos + first * sin
    return result


def attention(q: F32, k: F32, v: F32, scale: float, pos: int) -> F32:
    """Causal grouped-query attention, softmax in float32.

    q [T, heads, head_dim]; k and v [pos + T, kv_heads, head_dim]; row r sees the positions [0, pos + r]; head h uses
    KV head `h // (heads / kv_heads)`.
    """
    rows, heads, head_dim = q.shape
    length, kv_heads, _ = k.shape
    group = heads // kv_heads
    grouped = q.reshape(rows, kv_heads, group, head_dim)
    result = np.empty_like(grouped)
    for head in range(kv_heads):
        scores = np.dot(grouped[:, head].reshape(rows * group, head_dim), k[:, head].T) * np.float32(scale)
        if rows > 1:
            hidden = np.arange(length) > np.arange(pos, pos + rows)[:, None]
            scores[np.repeat(hidden, group, axis=0)] = -np.inf
        weights = softmax(scores)
        result[:, head] = np.dot(weights, v[:, head]).reshape(rows, group, head_dim)
    return result.reshape(rows, heads, head_dim)


def softmax(scores: F32) -> F32:
    """`exp(x - max) / sum` over the last dimension."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def silu_mul(gate: F32, up: F32) -> F32:
    """`silu(gate) * up` with silu(x) = x / (1 + exp(-x))."""
    with np.errstate(over="ignore"):  # exp overflows to infinity for x < -88, and the quotient is -0 as it should be
        return gate / (np.float32(1) + np.exp(-gate)) * up


def add(x: F32, y: F32) -> F32:
    """Pointwise sum."""
    return x + y


def bias_add(x: F32, bias: F32) -> F32:
    """Adds bias [*n] to every row of x [T, *n]."""
    return x + bias


def gather(table: NDArray[Any], ids: Ids) -> NDArray[Any]:
    """Rows of `table` [rows, ...] chosen by ids [T]; the caller has checked the ids."""
    return table[ids]


def argmax(x: F32) -> Ids:
    """Index of the greatest element of each row of x [T, n], the lowest such index on ties."""
    return x.argmax(axis=-1).astype(np.int32)


def argmax_part(x: F32) -> F32:
    """[T, 2] of x [T, n]: the greatest element v of each row, and `2 i + b` of its lowest index i and v's lowest bit b."""
    index = x.argmax(axis=-1)
    value = np.take_along_axis(x, index[:, None], axis=-1)[:, 0]
    low_bit = np.ascontiguousarray(value).view(np.uint32) & 1
    return np.stack([value, (2 * index + low_bit).astype(np.float32)], axis=-1)


def argmax_merge(x: F32, stride: int) -> Ids:
    """Index of the greatest element of each row, from `argmax_part` of its parts: x [T, parts, 2].

    Element i of part p is element `p * stride + i` of the row; the lowest index wins ties.
    """
    coded = x[..., 1].astype(np.int64)
    # the value's lowest bit is what the index's word says, whatever a hand-over has made of it
    value = ((np.ascontiguousarray(x[..., 0]).view(np.uint32) & ~np.uint32(1)) | (coded & 1).astype(np.uint32)).view(
        np.float32
    )
    index = np.arange(x.shape[1]) * stride + coded // 2
    greatest = value.max(axis=-1, keepdims=True)  # NaN if there is one
    is_best = (value == greatest) | np.isnan(value)
    return np.where(is_best, index, np.iinfo(np.int32).max).min(axis=-1).astype(np.int32)
