"""Room in a ring stage for what quantised weights carry beside their codes."""

from __future__ import annotations

from math import prod

from ..amk_ir.quantized_type import QuantizedType, contracted
from ..dialects import queue, task

ROWS = 8
"""Backends pad the rows of a tile to a multiple of this: the rows of an mma fragment."""
STAGE_UNIT = 512
"""The size of a ring stage is a multiple of this."""
_SCALE_BYTES = {"f32": 4, "bf16": 2, "f16": 2}


def scale_room(kernel: queue.KernelOp, stage_bytes: int) -> int:
    """Bytes, a multiple of `STAGE_UNIT`, that the scales, zero points and minimums of `stage_bytes` of codes need at most.

    0 without quantised weights. Stages with this room take as many codes as they would bf16 bytes, which keeps them from
    being cut unevenly.
    """
    most = max((_family_bytes(kernel, family, stage_bytes) for family in kernel.families.values()), default=0)
    return -(-most // STAGE_UNIT) * STAGE_UNIT


def _family_bytes(kernel: queue.KernelOp, family: task.FamilyOp, stage_bytes: int) -> int:
    streams = family.streams
    elements = {op.result.type.get_element_type() for op in streams}
    element = next(iter(elements), None)
    if len(elements) != 1 or not isinstance(element, QuantizedType):
        return 0
    format, inner = element.format, contracted(kernel.buffers[streams[0].region.buffer].shape, element.columns)
    assert inner is not None  # checked by the buffer
    columns = prod(streams[0].region.tile_shape[-inner:])
    rows = sum(prod(op.region.tile_shape) for op in streams) // columns
    rows = -(-rows // ROWS) * ROWS
    scales = 1
    if 0 < format.group < columns:
        scales = -(-min(columns, stage_bytes * 8 // (format.code_bits * rows)) // format.group)
    arrays = 1 + (format.zero_points or format.minimums)
    return scales * rows * arrays * _SCALE_BYTES[format.scale_dtype]
