"""Room in a ring stage for what quantised weights carry beside their codes."""

from __future__ import annotations

from math import prod

from ..amk_ir.quantized_stages import SCALE_BYTES
from ..amk_ir.quantized_type import QuantizedType, contracted
from ..amk_ir.segments import GROUP_ROWS
from ..dialects import task

STAGE_UNIT = 512
"""The size of a ring stage is a multiple of this."""


def scale_room(program: task.HoldsBuffers, stage_bytes: int) -> int:
    """Bytes, a multiple of `STAGE_UNIT`, that the scales, zero points and minimums of `stage_bytes` of codes need at most.

    0 without quantised weights. Stages with this room take as many codes as they would bf16 bytes, which keeps them from
    being cut unevenly.
    """
    most = max((_family_bytes(program, family, stage_bytes) for family in program.families.values()), default=0)
    return -(-most // STAGE_UNIT) * STAGE_UNIT


def _family_bytes(program: task.HoldsBuffers, family: task.FamilyOp, stage_bytes: int) -> int:
    streams = family.streams
    elements = {op.result.type.get_element_type() for op in streams}
    element = next(iter(elements), None)
    if len(elements) != 1 or not isinstance(element, QuantizedType):
        return 0
    format, inner = element.format, contracted(program.buffers[streams[0].region.buffer].shape, element.columns)
    assert inner is not None  # checked by the buffer
    columns = prod(streams[0].region.tile_shape[-inner:])
    rows = sum(prod(op.region.tile_shape) for op in streams) // columns
    rows = -(-rows // GROUP_ROWS) * GROUP_ROWS
    scales = 1
    if 0 < format.group < columns:
        scales = -(-min(columns, stage_bytes * 8 // (format.code_bits * rows)) // format.group)
    arrays = 1 + (format.zero_points or format.minimums)
    return scales * rows * arrays * SCALE_BYTES[format.scale_dtype]
