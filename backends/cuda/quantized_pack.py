"""Quantised weights of a checkpoint as arrays that can be cut into the tiles of tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.access import Access, Dim
from ...amk_ir.attrs import CheckpointAttr
from ...amk_ir.errors import CheckpointError
from ...amk_ir.linear import Linear
from ...amk_ir.quantization import QuantizedTensor
from ...amk_ir.quantized_type import QuantizedType, contracted
from ...amk_ir.quantized_weights import LoadsTensors, quantized_entry
from ...amk_ir.segments import GROUP_ROWS
from .quantized_fragments import QuantizedRowsData
from .storage import BufferStorage

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
"""The arrays of a weight: its elements ("codes"), and of a quantised one "scales", perhaps "beside", in which its
columns are one dimension of scales."""

_PIECE_ROWS = 1 << 12


def quantized_arrays(buffer: BufferStorage, layer: int | None, weights: LoadsTensors) -> Arrays:
    """A quantised weight (one layer of a layered one): codes of its shape; scales and zero points or minimums, float32.

    Raises CheckpointError: no such entry, one of another size, or one that cannot be packed.
    """
    assert buffer.quantized is not None and isinstance(buffer.source, CheckpointAttr)
    shape = buffer.shape if layer is None else buffer.shape[1:]
    name = buffer.source.data if layer is None else buffer.source.data.replace("{layer}", str(layer))
    tensor = quantized_entry(weights, name, buffer.quantized, prod(shape))
    return _arrays(tensor, name, shape, buffer.quantized)


def _arrays(tensor: QuantizedTensor, name: str, shape: Sequence[int], type: QuantizedType) -> Arrays:
    inner = contracted(shape, type.columns)
    assert inner is not None  # checked by the buffer
    codes = tensor.codes
    if tensor.permutation is not None:
        if tensor.scales.shape[1] != 1:
            raise CheckpointError(
                f"tensor '{name}': groups of reordered columns (act-order) cannot be packed; import the model with bf16 weights"
            )
        codes = np.empty_like(tensor.codes)
        codes[:, tensor.permutation] = tensor.codes
    rows = tuple(shape[: len(shape) - inner])
    arrays: dict[str, NDArray[Any]] = {"codes": codes.reshape(shape)}
    beside = tensor.zeros if tensor.zeros is not None else tensor.minimums
    for key, array in (("scales", tensor.scales), ("beside", beside)):
        if array is not None:
            each = np.repeat(array.astype(np.float32), tensor.format.block_rows, axis=0)[: tensor.shape[0]]
            arrays[key] = each.reshape(*rows, -1)
    return arrays


def scale_access(access: Access, buffer: BufferStorage, columns: int) -> Access:
    """The scales of the tile `access` of a quantised buffer, which has `columns` scales a row: of whole rows, or of some groups."""
    assert buffer.quantized is not None
    inner = contracted(buffer.shape, buffer.quantized.columns)
    assert inner is not None
    outer, first = access.dims[: len(access.dims) - inner], access.dims[-inner]
    scales = Dim(Linear(), Linear(constant=columns))
    if columns > 1 and first.extent != buffer.shape[-inner]:
        group, unit = buffer.quantized.format.group, prod(buffer.shape[len(buffer.shape) - inner + 1 :])
        terms = {name: factor * unit // group for name, factor in first.start.terms}
        scales = Dim(
            Linear.make(terms, first.start.constant * unit // group), Linear(constant=first.extent * unit // group)
        )
    return Access(access.buffer, (*outer, scales))


def rows_data(arrays: Arrays) -> QuantizedRowsData:
    """Tiles of codes, scales and what is beside them, as what `QuantizedLayout` packs."""
    return QuantizedRowsData(arrays["codes"], arrays["scales"], arrays.get("beside"))


def constant_rows(buffer: BufferStorage, arrays: Arrays) -> Iterator[NDArray[np.uint8]]:
    """A quantised weight that is not streamed, packed eight rows at a time, in pieces."""
    assert buffer.quantized is not None
    layout = buffer.rows_layout
    flat = {key: array.reshape(-1, layout.k if key == "codes" else array.shape[-1]) for key, array in arrays.items()}
    for first in range(0, flat["codes"].shape[0], _PIECE_ROWS):
        piece = {key: array[first : first + _PIECE_ROWS] for key, array in flat.items()}
        missing = -piece["codes"].shape[0] % GROUP_ROWS
        padded = {key: np.pad(array, ((0, missing), (0, 0))) for key, array in piece.items()}
        yield layout.pack(rows_data({key: a.reshape(-1, GROUP_ROWS, a.shape[-1]) for key, a in padded.items()}))
