"""The layout of quantised weights: every value is found again where the documentation of the layout says it is."""

import numpy as np
import pytest
from numpy.typing import NDArray

from amk.amk_ir.dtypes import f32_from_bf16
from amk.amk_ir.float8 import f32_from_e4m3
from amk.amk_ir.quantization import QuantizedTensor, parse_format, quantize
from amk.backends.cuda.quantized_fragments import QuantizedLayout, QuantizedRowsData

FORMATS = [
    "int8",
    "int8:g32",
    "int8:g16:f16",
    "int8:g64:zp",
    "fp8",
    "fp8:g128",
    "fp8:g32:bf16",
    "int4",
    "int4:g16",
    "int4:g32:f16",
    "int4:g64:zp",
    "int4:g16:zp:f16",
    "int4:g32:min:bf16",
    "int4:zp",
]


def quantized_tasks(layout: QuantizedLayout, tasks: int) -> tuple[QuantizedTensor, QuantizedRowsData]:
    values = np.random.default_rng(0).standard_normal((tasks * layout.rows, layout.k), np.float32)
    tensor = quantize(values, layout.format)
    beside = tensor.zeros if tensor.zeros is not None else tensor.minimums

    def by_task(array: NDArray[np.float32]) -> NDArray[np.float32]:
        return array.astype(np.float32).reshape(tasks, layout.rows, -1)

    data = QuantizedRowsData(
        tensor.codes.reshape(tasks, layout.rows, layout.k),
        by_task(tensor.scales),
        None if beside is None else by_task(beside),
    )
    return tensor, data


def scale_values(layout: QuantizedLayout, data: NDArray[np.uint8]) -> NDArray[np.float32]:
    match layout.format.scale_dtype:
        case "f32":
            return data.view(np.float32)
        case "bf16":
            return f32_from_bf16(data.view(np.uint16))
        case "f16":
            return data.view(np.float16).astype(np.float32)


def code_at(layout: QuantizedLayout, lane: NDArray[np.uint8], step: int, column: int) -> float:
    """The code of `column` of the eight that a lane has of a step, as the device reads its words; integers from 0 on."""
    words = lane.view(np.uint32)
    if layout.format.storage == "int4":
        return int(words[step]) >> (column % 2 * 16 + column // 2 * 4) & 15
    word, in_word = int(words[step * 2 + column // 4]), column % 4
    if layout.format.storage == "int8":
        return word >> (in_word % 2 * 16 + in_word // 2 * 8) & 255
    half = word >> in_word % 2 * 16
    if in_word < 2:
        code = half >> 8 & 0x80 | half >> 4 & 0x7F
    else:
        code = half >> 4 & 0x80 | half >> 8 & 0x70 | half & 0x0F
    return float(f32_from_e4m3(np.array([code], np.uint8))[0])


def added(layout: QuantizedLayout, data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What is added to codes for their zero points, in units of a code."""
    halves = data.view(np.uint16).reshape(-1, 2 if layout.format.scale_dtype == "f32" else 1)
    assert (halves == halves[:, :1]).all()
    return f32_from_bf16(halves[:, 0]) * np.float32(64)


def unpacked(layout: QuantizedLayout, packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The values [rows, k] of a packed task."""
    result = np.empty((layout.groups * 8, layout.padded_k), np.float32)
    read_beside = added if layout.format.zero_points else scale_values
    stages = [
        (first, min(first + layout.chunk_blocks, layout.blocks))
        for first in range(0, layout.blocks, layout.chunk_blocks)
    ]
    at = 0

    def take(size: int) -> NDArray[np.uint8]:
        nonlocal at
        at += size
        return packed[at - size : at]

    parts: list[tuple[int, NDArray[np.uint8], NDArray[np.float32] | None, NDArray[np.float32]]] = []
    for first, last in stages:
        codes, size = take((last - first) * layout.groups * layout.block_bytes), layout.scale_bytes(last - first)
        beside = read_beside(layout, take(size)).reshape(-1, layout.groups * 8) if layout.has_beside else None
        is_scaled = layout.group or last == layout.blocks
        scales = scale_values(layout, take(size if is_scaled else 0)).reshape(-1, layout.groups * 8)
        parts.append((first, codes, beside, scales))
    assert at == packed.size
    for first, codes, beside, scales in parts:
        scales = scales if layout.group else parts[-1][3]
        blocks = codes.reshape(-1, layout.groups, 8, 4, layout.lane_words * 4)
        for block, group, row, quarter in np.ndindex(*blocks.shape[:4]):
            lane = np.ascontiguousarray(blocks[block, group, row, quarter])
            for step, column in np.ndindex(layout.block_k // 32, 8):
                in_stage = block * layout.block_k + step * 32 + quarter * 8 + column
                at_scale = in_stage // layout.group if layout.group else 0, group * 8 + row
                value = code_at(layout, lane, step, column)
                value += beside[at_scale] if layout.format.zero_points and beside is not None else -layout.stored_zero
                value = np.float32(value) * scales[at_scale]
                if layout.format.minimums and beside is not None:
                    value += beside[at_scale]
                result[group * 8 + row, first * layout.block_k + in_stage] = value
    return result


@pytest.mark.parametrize("text", FORMATS)
@pytest.mark.parametrize(("rows", "k", "stage"), [(8, 64, 1024), (5, 96, 1536), (20, 320, 8192)])
def test_values_are_found_again(text: str, rows: int, k: int, stage: int) -> None:
    layout = QuantizedLayout(rows, k, stage, parse_format(text))
    assert layout.problem is None
    tensor, data = quantized_tasks(layout, 2)
    packed = layout.pack(data)
    assert packed.shape == (2, layout.task_bytes)
    expected = tensor.dequantize().reshape(2, rows, k)
    for task in range(2):
        assert np.array_equal(unpacked(layout, packed[task])[:rows, :k], expected[task])


@pytest.mark.parametrize("text", FORMATS)
@pytest.mark.parametrize("k", [32, 576, 1536, 2048, 14336])
@pytest.mark.parametrize("rows", [8, 24, 32])
def test_stages_are_filled_and_aligned(text: str, k: int, rows: int) -> None:
    layout = QuantizedLayout(rows, k, 20480, parse_format(text))
    assert layout.problem is None
    assert layout.k <= layout.padded_k < layout.k + layout.block_k <= layout.k + 128
    last = layout.task_bytes - (layout.chunks - 1) * layout.chunk_bytes
    for size in (layout.chunk_bytes, last):
        assert 0 < size <= layout.stage_bytes and size % 16 == 0
    if layout.chunks > 1:
        assert layout.chunk_bytes > layout.stage_bytes // 2
        if layout.group:  # a stage begins with a new group
            assert layout.chunk_blocks * layout.block_k % layout.group == 0


def test_warps_share_small_rows_evenly() -> None:
    """576 columns are 9 blocks of 64 or 18 of 32: with the latter the busiest of eight warps has 96 columns, not 128."""
    assert QuantizedLayout(8, 576, 16384, parse_format("int8")).block_k == 32
    assert QuantizedLayout(8, 2048, 16384, parse_format("int8")).block_k == 64
    assert QuantizedLayout(8, 4096, 16384, parse_format("int4")).block_k == 128


@pytest.mark.parametrize(
    ("text", "stage", "problem"),
    [
        ("int8:g24", 4096, "groups of 24 columns: the CUDA backend has groups of 16, 32, 64"),
        ("int4:g8", 4096, "groups of 8 columns"),
        ("int8", 512, "does not fit a ring stage of 512 bytes"),
        ("int8:g128", 1024, "does not fit a ring stage of 1024 bytes"),
    ],
)
def test_what_has_no_layout(text: str, stage: int, problem: str) -> None:
    found = QuantizedLayout(8, 512, stage, parse_format(text)).problem
    assert found is not None and problem in found
