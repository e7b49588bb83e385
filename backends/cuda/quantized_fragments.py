"""The layout of quantised weights in the stream: codes in the order in which mma wants them, scales behind. Mathematics only.

A task's weight rows (n) are padded to groups of 8 and its row length (k) to blocks of 32 to 128. A ring stage holds, one
after the other:

- codes: [k block][group][lane][word]; lane l of a warp has row l // 4, and of each step of 32 columns the eight from (l % 4) *
  8 on, as of bf16 weights. The order within a word is what device/dequant.cuh unpacks with the fewest instructions;
- zero points or minimums, of the type of scales: [scale column of the stage][group][8 rows]; of whole rows, all of them. A zero
  point is what the device adds to the codes, in bf16, twice where scales have four bytes;
- scales, likewise; of whole rows only in the last stage of a task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.dtypes import bf16_from_f32
from ...amk_ir.quantized_stages import SCALE_BYTES, STEP_K, WARPS, QuantizedStages
from ...amk_ir.segments import GROUP_ROWS

LEAST_GROUP = 16
"""Columns that share a scale, at least."""
_UNIT = 64
"""What the device divides integer codes by; as in device/dequant.cuh."""


@dataclass(frozen=True)
class QuantizedRowsData:
    """Weight rows of tasks, ready to be packed.

    codes: [tasks, rows, k] int8 or uint8. scales: float32 [tasks, rows, scale columns]. beside: zero points or minimums as
    float32 like the scales, or None.
    """

    codes: NDArray[Any]
    scales: NDArray[np.float32]
    beside: NDArray[np.float32] | None


@dataclass(frozen=True)
class QuantizedLayout(QuantizedStages):
    """The layout of one task's weights in memory."""

    @property
    def problem(self) -> str | None:
        """Why the format has no such layout, or None."""
        if self.group and (self.group < LEAST_GROUP or self.group & (self.group - 1)):
            return f"groups of {self.group} columns: the CUDA backend has groups of 16, 32, 64, ... columns"
        if self.chunk_blocks == 0:
            return (
                f"one block of {self.block_k} columns of {self.rows} rows with its scales does not fit a ring stage of "
                f"{self.stage_bytes} bytes; use smaller tiles or larger stages"
            )
        return None

    @property
    def stored_zero(self) -> int:
        """What the smallest code is less than 0 by: stored integers begin at 0."""
        return 0 if self.format.storage == "fp8_e4m3" else -self.format.code_range[0]

    @property
    def activations(self) -> int:
        """Elements of 4 bytes that a vector of activations takes in shared memory; as `activation_stride`, device/matvec.cuh."""
        return self.padded_k + 4

    @property
    def zeroed_k(self) -> int:
        """Columns up to which activations are read: from `k` on they must be zero."""
        return self.padded_k

    @property
    def stage_vectors(self) -> int:
        """Vectors of 16 bytes of codes that a thread has of a stage, at most."""
        blocks = -(-min(self.chunk_blocks, self.blocks) // WARPS)
        return -(-blocks * self.groups * self.lane_words // 4)

    def pack(self, data: QuantizedRowsData) -> NDArray[np.uint8]:
        """[tasks, task bytes] of the rows of some tasks; codes of padding read as any finite value, its scales are zero."""
        tasks, rows = data.codes.shape[0], self.groups * GROUP_ROWS
        codes = np.zeros((tasks, rows, self.padded_k), np.uint8)
        np.add(data.codes.view(np.uint8), np.uint8(self.stored_zero), out=codes[:, : self.rows, : self.k])
        eights = codes.view(np.uint64).reshape(tasks, self.groups, 8, self.blocks, self.block_k // STEP_K, 4)
        eights = np.ascontiguousarray(eights.transpose(0, 3, 1, 2, 5, 4))  # task, block, group, row, quarter, step
        words = self._words(eights.view(np.uint32)).reshape(tasks, self.blocks, -1)

        columns = -(-self.padded_k // self.group) if self.group else 1
        scales = self._by_column(self._as_scales(data.scales), columns)
        beside = None if data.beside is None else self._by_column(self._stored_beside(data.beside), columns)
        pieces: list[NDArray[np.uint8]] = []
        for chunk in range(self.chunks):
            first, last = chunk * self.chunk_blocks, min((chunk + 1) * self.chunk_blocks, self.blocks)
            pieces.append(words[:, first:last].reshape(tasks, -1))
            of_chunk = slice(0, 1)
            if self.group:
                of_chunk = slice(first * self.block_k // self.group, -(-last * self.block_k // self.group))
            if beside is not None:
                pieces.append(beside[:, of_chunk].reshape(tasks, -1))
            if self.group or chunk == self.chunks - 1:
                pieces.append(scales[:, of_chunk].reshape(tasks, -1))
        return np.concatenate(pieces, axis=1)

    def _words(self, codes: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """Stored codes, a byte each and four to a word, as the bytes of the device's words."""
        # neighbours two bytes apart: the two bytes in the middle are exchanged
        pairs = codes & 0xFF0000FF | (codes & 0xFF00) << 8 | codes >> 8 & 0xFF00
        match self.format.storage:
            case "int8":
                words = pairs
            case "fp8_e4m3":
                first, second = pairs & 0x00FF00FF, pairs >> 8 & 0x00FF00FF
                words = (first & 0x00800080) << 8 | (first & 0x007F007F) << 4
                words |= (second & 0x00800080) << 4 | (second & 0x00700070) << 8 | second & 0x000F000F
            case "int4":
                pairs |= pairs >> 4  # of each half, the lower byte has two codes
                words = pairs[..., 0::2] & 0x00FF00FF | (pairs[..., 1::2] & 0x00FF00FF) << 8
        return words.view(np.uint8)

    def _stored_beside(self, beside: NDArray[np.float32]) -> NDArray[Any]:
        """Minimums, or what the device adds to codes for zero points: exact in bf16."""
        if self.format.minimums:
            return self._as_scales(beside)
        added = bf16_from_f32((beside + np.float32(self.stored_zero)) * np.float32(-1 / _UNIT))
        if SCALE_BYTES[self.format.scale_dtype] == 2:
            return added
        return added.astype(np.uint32) * np.uint32(0x00010001)

    def _as_scales(self, array: NDArray[np.float32]) -> NDArray[Any]:
        match self.format.scale_dtype:
            case "f32":
                return array
            case "bf16":
                return bf16_from_f32(array)
            case "f16":
                return array.astype(np.float16)

    def _by_column(self, array: NDArray[Any], columns: int) -> NDArray[np.uint8]:
        """[tasks, rows, scale columns] as [tasks, columns, bytes of all rows]."""
        tasks = array.shape[0]
        padded = np.zeros((tasks, columns, self.groups * GROUP_ROWS), array.dtype)
        padded[:, : array.shape[2], : self.rows] = array.transpose(0, 2, 1)
        return padded.view(np.uint8).reshape(tasks, columns, -1)
