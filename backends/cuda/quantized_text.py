"""C++ names of matrix products and of quantised layouts: the template arguments that device/*.cuh take."""

from __future__ import annotations

from ...amk_ir.segments import GROUP_ROWS
from .fragments import FragmentLayout
from .quantized_fragments import QuantizedLayout
from .storage import BufferStorage, StreamStorage

MULTIPLY, MULTIPLY_QUANTIZED = "multiply", "multiply_quantized"
"""The functions that emitted kernels define for the products of a task."""
MULTIPLY_SEGMENT, MULTIPLY_QUANTIZED_SEGMENT = "multiply_segment", "multiply_quantized_segment"
"""Those for a segment of the activations."""

LOAD_FIRST, MULTIPLY_AFTER = "load_first", "multiply_after"
"""That which brings the first stages of a task into registers, and the product after that."""
MULTIPLY_GATHERED = "multiply_gathered"
"""That for a product which gathers its activations meanwhile."""

_SCALES = {"f32": "F32Scale", "bf16": "Bf16Scale", "f16": "F16Scale"}


def multiply_text(layout: FragmentLayout | QuantizedLayout) -> str:
    """The function that multiplies a task's rows."""
    if isinstance(layout, FragmentLayout):
        return f"{MULTIPLY}<{layout.groups}, {layout.k_blocks}, {layout.chunk_blocks}>"
    return f"{MULTIPLY_QUANTIZED}<{quantized_type(layout)}, {layout.groups}, {layout.blocks}, {layout.chunk_blocks}>"


def first_stages_text(layout: FragmentLayout | QuantizedLayout, tokens: int, stages: int) -> str:
    """The type of the first stages of a task, in registers: of codes a single one."""
    if isinstance(layout, FragmentLayout):
        return f"FirstStages<{layout.groups}, {layout.k_blocks}, {layout.chunk_blocks}, {tokens}, {stages}>"
    return f"FirstCodes<{quantized_type(layout)}, {layout.groups}, {layout.blocks}, {layout.chunk_blocks}, {tokens}>"


def gathered_text(layout: FragmentLayout, stages: int) -> str:
    """The function that gathers a task's activations and multiplies its rows meanwhile. stages: that it has in registers before."""
    return f"{MULTIPLY_GATHERED}<{layout.groups}, {layout.k_blocks}, {layout.chunk_blocks}, {stages}>"


def segment_text(layout: FragmentLayout | QuantizedLayout, blocks: int, room: int) -> str:
    """The function that multiplies a task's rows with a segment of `blocks` blocks of 32 columns, of which it has `room`."""
    if isinstance(layout, FragmentLayout):
        return f"{MULTIPLY_SEGMENT}<{layout.groups}, {blocks}, {room}, {layout.chunk_blocks}>"
    steps = layout.block_steps
    sizes = f"{layout.groups}, {blocks // steps}, {room // steps}, {layout.chunk_blocks}"
    return f"{MULTIPLY_QUANTIZED_SEGMENT}<{quantized_type(layout)}, {sizes}>"


def quantized_type(layout: QuantizedLayout) -> str:
    """`Quantized` of device/dequant.cuh for a layout."""
    format = layout.format
    code = {"int8": "Int8", "int4": "Int4", "fp8_e4m3": "Fp8"}[format.storage]
    zero = 0 if layout.has_beside else layout.stored_zero
    beside = "ZERO_POINT" if format.zero_points else "MINIMUM" if format.minimums else "NOTHING"
    scale = _SCALES[format.scale_dtype]
    return f"Quantized<{code}, {zero}, {scale}, {layout.group}, {beside}, {layout.lane_words}>"


def finish_activations(layout: FragmentLayout | QuantizedLayout, tokens: int) -> str:
    """What follows when all activations `x` of a product are there: zeros up to whole blocks, a barrier."""
    zeros = ""
    if layout.zeroed_k > layout.k:
        at = f"t * {layout.activations} + {layout.k} + threadIdx.x"
        zeros = (
            f"for (int t = 0; t < {tokens}; ++t)\n"
            f"    if (threadIdx.x < {layout.zeroed_k - layout.k}) x.put({at}, 0.0f);\n"
        )
    return f"{zeros}consumer_barrier();"


def packed_rows_type(stream: StreamStorage, rows: int, first_row: int) -> str:
    """The pointer to the elements of a quantised weight in a stream with that `packed_row_layout`."""
    assert isinstance(stream.layout, QuantizedLayout)
    return _rows_type(stream.layout, rows, first_row)


def constant_rows_type(storage: BufferStorage) -> str:
    """The pointer to the elements of a quantised weight that is not streamed."""
    return _rows_type(storage.rows_layout, GROUP_ROWS, 0)


def _rows_type(layout: QuantizedLayout, rows: int, first_row: int) -> str:
    sizes = (
        layout.groups,
        layout.blocks,
        layout.chunk_blocks,
        layout.task_bytes,
        layout.chunk_bytes,
        rows,
        first_row,
        layout.k,
    )
    return f"QuantizedRows<{quantized_type(layout)}, {', '.join(map(str, sizes))}>"
