"""The one reference meaning of each op, in float32; every level computes with these functions.

Activations are [T, ...] with T the tokens of a step. Weights and cached keys and values come as float32 arrays whatever
their storage type: values of bf16 storage are already rounded.
"""

from __future__ import annotations

import math
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


def attention(q: F32, k: F32, v: F32, k_new: F32, v_new: F32, scale: float) -> F32:
    """Causal grouped-query attention, softmax in float32.

    q [T, heads, head_dim]; k and v [pos, kv_heads, head_dim] of the positions before this step, k_new and v_new [T, ...] of
    those from `pos` on; row r sees the positions [0, pos + r]; head h uses KV head `h // (heads / kv_heads)`.
    """
    rows, heads, head_dim = q.shape
    pos, kv_heads, _ = k.shape
    group = heads // kv_heads
    grouped = q.reshape(rows, kv_heads, group, head_dim)
    result = np.empty_like(grouped)
    for head in range(kv_heads):
        scores = _scores(grouped[:, head].reshape(rows * group, head_dim), k[:, head], k_new[:, head], scale, group)
        weights = softmax(scores)
        values = np.dot(weights[:, :pos], v[:, head]) + np.dot(weights[:, pos:], v_new[:, head])
        result[:, head] = values.reshape(rows, group, head_dim)
    return result.reshape(rows, heads, head_dim)


def _scores(q: F32, k: F32, k_new: F32, scale: float, group: int) -> F32:
    """Scaled scores [T * group, pos + T] of one KV head, minus infinity where a row does not see a position."""
    pos, rows = k.shape[0], k_new.shape[0]
    scores = np.empty((q.shape[0], pos + rows), np.float32)
    scores[:, :pos] = np.dot(q, k.T)
    scores[:, pos:] = np.dot(q, k_new.T)
    scores *= np.float32(scale)
    if rows > 1:
        hidden = np.arange(rows) > np.arange(rows)[:, None]
        scores[:, pos:][np.repeat(hidden, group, axis=0)] = -np.inf
    return scores


NO_EXPONENT = np.float32(-3.0e38)
"""The greatest exponent over no positions: finite, so that the difference of two is a number."""


def attention_part(
    q: F32, k: F32, v: F32, k_new: F32, v_new: F32, scale: float, part: int, parts: int, block: int
) -> tuple[F32, F32]:
    """What `attention_merge` needs of the positions p with `p // block % parts == part`.

    Operands as of `attention`. [T, heads, head_dim]: the sum of the values with weights 2^(exponent - m). [T, heads, 2]: the
    greatest exponent m and the sum of the weights. An exponent is a scaled score times log2(e).
    """
    rows, heads, head_dim = q.shape
    pos, kv_heads, _ = k.shape
    group = heads // kv_heads
    grouped = q.reshape(rows, kv_heads, group, head_dim)
    sums = np.zeros((rows, kv_heads, group, head_dim), np.float32)
    stats = np.zeros((rows, kv_heads, group, 2), np.float32)
    mine = np.flatnonzero(np.arange(pos + rows) // block % parts == part)
    stats[..., 0] = NO_EXPONENT
    if mine.size:
        for head in range(kv_heads):
            flat = grouped[:, head].reshape(rows * group, head_dim)
            exponents = _scores(flat, k[:, head], k_new[:, head], scale / math.log(2), group)[:, mine]
            greatest = np.maximum(exponents.max(axis=-1), NO_EXPONENT)
            weights = np.exp2(exponents - greatest[:, None])
            values = np.concatenate([v[:, head], v_new[:, head]])[mine]
            sums[:, head] = np.dot(weights, values).reshape(rows, group, head_dim)
            stats[:, head, :, 0] = greatest.reshape(rows, group)
            stats[:, head, :, 1] = weights.sum(axis=-1).reshape(rows, group)
    return sums.reshape(rows, heads, head_dim), stats.reshape(rows, heads, 2)


def attention_merge(sums: F32, stats: F32) -> F32:
    """Attention [T, heads, *dims] of all parts: sums [parts, T, heads, *dims], stats [parts, T, heads, 2]: see `attention_part`."""
    factors = np.exp2(stats[..., 0] - stats[..., 0].max(axis=0))
    total = (factors * stats[..., 1]).sum(axis=0)
    added = (1,) * (sums.ndim - 3)
    return (factors.reshape(*factors.shape, *added) * sums).sum(axis=0) / total.reshape(*total.shape, *added)


def softmax(scores: F32) -> F32:
    """`exp(x - max) / sum` over the last dimension."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def sum_parts(x: F32) -> F32:
    """[T, parts, *n] -> [T, *n]: the sum of the parts, added from the first to the last."""
    result = x[:, 0].copy()
    for part in range(1, x.shape[1]):
        result += x[:, part]
    return result


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
