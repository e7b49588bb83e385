"""From packed words to codes: integer fields, zero points, and groups of inputs that are not neighbours."""

from __future__ import annotations

from typing import Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.errors import CheckpointError
from ...amk_ir.quantization import QuantizedTensor
from ..checkpoint import TensorInfo
from .layout import Matrix


def unpack_rows(words: NDArray[np.int32], bits: int, count: int) -> NDArray[np.uint8]:
    """int32 [R, C] whose words hold 32 / `bits` fields each, lowest bits first -> uint8 [R * 32 / bits, C], cut to
    `count` rows: field i of row r is row `r * 32 / bits + i`."""
    fields = 32 // bits
    result = np.empty((words.shape[0], fields, words.shape[1]), np.uint8)
    for i in range(fields):
        result[:, i] = field(words, i, bits)
    return result.reshape(-1, words.shape[1])[:count]


def unpack_columns(
    words: NDArray[np.int32], bits: int, count: int, order: tuple[int, ...] | None = None
) -> NDArray[np.uint8]:
    """int32 [R, C] -> uint8 [R, C * 32 / bits], cut to `count` columns: field i of column c is column
    `c * 32 / bits + order[i]`, without `order` that with i."""
    fields = 32 // bits
    result = np.empty((words.shape[0], words.shape[1], fields), np.uint8)
    for i in range(fields):
        result[:, :, order[i] if order else i] = field(words, i, bits)
    return result.reshape(words.shape[0], -1)[:, :count]


def field(words: NDArray[np.int32], index: int, bits: int) -> NDArray[np.uint8]:
    """The `index`-th field of `bits` bits of every word, counted from the lowest."""
    return ((words.view(np.uint32) >> np.uint32(index * bits)) & np.uint32((1 << bits) - 1)).astype(np.uint8)


def signed(fields: NDArray[np.uint8], bits: int) -> NDArray[np.int8]:
    """Fields less half their range: 0 to 15 become -8 to 7."""
    return (fields ^ np.uint8(1 << (bits - 1))).view(np.int8) if bits == 8 else cast(Any, fields.view(np.int8) - 8)


def input_permutation(g_idx: NDArray[np.int32], group: int, info: TensorInfo) -> NDArray[np.int32] | None:
    """The order of inputs in which groups are of neighbours; None if they are.

    g_idx: [K], the group of each input. The order is stable, so that it depends on nothing else.

    Raises:
        CheckpointError: groups out of range or of wrong sizes.
    """
    columns = len(g_idx)
    groups = -(-columns // group)

    def fail(what: str) -> NoReturn:
        raise CheckpointError(f"{info}: {what}")

    if g_idx.min() < 0 or g_idx.max() >= groups:
        fail(f"expected groups 0 to {groups - 1}, found {g_idx.min()} to {g_idx.max()}")
    sizes = np.bincount(g_idx, minlength=groups)
    expected = np.full(groups, group)
    expected[-1] = columns - (groups - 1) * group
    if (wrong := sizes != expected).any():
        at = int(np.argmax(wrong))
        fail(f"expected {expected[at]} inputs in group {at}, found {sizes[at]}")
    if (g_idx[1:] >= g_idx[:-1]).all():
        return None
    return np.argsort(g_idx, kind="stable").astype(np.int32)


def from_unsigned(
    matrix: Matrix,
    codes: NDArray[np.uint8],
    zeros: NDArray[np.uint8],
    scales: NDArray[np.float32],
    zeros_info: TensorInfo,
    permutation: NDArray[np.int32] | None = None,
) -> QuantizedTensor:
    """A tensor of unsigned codes [N, K] and zero points [N, groups], as AWQ and GPTQ store them.

    Codes of 8 bits become signed. A format without zero points needs all of them in the middle of the range.

    Raises:
        CheckpointError: zero points elsewhere; `zeros_info` is the tensor that has them.
    """
    bits = matrix.format.code_bits
    middle = 1 << (bits - 1)
    if not matrix.format.zero_points and (other := zeros != middle).any():
        row, group = np.argwhere(other)[0]
        raise CheckpointError(
            f"{zeros_info}: expected zero points of {middle}, as the configuration says that the codes are symmetric, "
            f"found {zeros[row, group]} for output {row}, group {group}"
        )

    def to_codes(fields: NDArray[np.uint8]) -> NDArray[np.int8]:
        fields = np.ascontiguousarray(fields)
        return fields.view(np.int8) if matrix.format.code_range[0] == 0 else signed(fields, bits)

    return QuantizedTensor(
        matrix.format,
        matrix.shape,
        to_codes(codes),
        np.ascontiguousarray(scales),
        to_codes(zeros) if matrix.format.zero_points else None,
        permutation=permutation,
    )
