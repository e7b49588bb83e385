"""The layout of quantised weights in the stream: codes in the order in which mma wants them, scales behind. Mathematics only.

A task's weight rows (n) are padded to groups of 8 and its row length (k) to blocks of 32 to 128. A ring stage holds, one
after the other:

- codes: [k block][group][lane][word]; lane l of a warp has row l // 4. Of integers that are multiplied as such, it has of
  each step of 32 columns the eight from (l % 4) * 8 on; of codes that become bf16, of each step of 16 columns the four from
  (l % 4) * 4 on. The order within a word is what device/dequant.cuh unpacks with the fewest instructions;
- scales: [scale column of the stage][group][8 rows]; of whole rows only in the last stage of a task;
- zero points or minimums, like the scales and of the same type.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.dtypes import bf16_from_f32
from ...amk_ir.quantization import QuantizedFormat
from .fragments import GROUP_ROWS

STEP_K = 16
"""Columns of a product in bf16."""
INTEGER_STEP_K = 32
"""Columns of a product of integers."""
X_BLOCK = 128
"""Activations that share a scale where they are integers; as in device/integer_matvec.cuh."""
WARPS = 8
"""Consumer warps that share a stage; as in device/types.cuh."""
_SCALE_BYTES = {"f32": 4, "bf16": 2, "f16": 2}
_BYTE_ORDER = (0, 2, 1, 3)
"""Which of a step's four codes is in which byte of a word: pairs are then two bytes apart."""
_FP8_BYTE_ORDER = (2, 0, 3, 1)
"""As above: the first pair in the high bytes of the halves."""


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
class QuantizedLayout:
    """The layout of one task: `rows` weight rows of `k` values in `format`, in ring stages of `stage_bytes`."""

    rows: int
    k: int
    stage_bytes: int
    format: QuantizedFormat

    @property
    def problem(self) -> str | None:
        """Why the format has no such layout, or None."""
        if self.group and (self.group < STEP_K or self.group & (self.group - 1)):
            return f"groups of {self.group} columns: the CUDA backend has groups of 16, 32, 64, ... columns"
        if self.chunk_blocks == 0:
            return (
                f"one block of {self.block_k} columns of {self.rows} rows with its scales does not fit a ring stage of "
                f"{self.stage_bytes} bytes; use smaller tiles or larger stages"
            )
        return None

    @property
    def group(self) -> int:
        """Columns that share a scale; 0 if all of a row do."""
        return 0 if self.format.group >= self.k else self.format.group

    @property
    def is_integer(self) -> bool:
        """Whether codes are multiplied as integers: groups of fewer columns than a product has become bf16, as fp8 does."""
        return self.format.storage != "fp8_e4m3" and (self.group == 0 or self.group >= INTEGER_STEP_K)

    @property
    def activations(self) -> int:
        """Elements of 4 bytes that a vector of activations takes in shared memory, padding included."""
        return -(-self.padded_k // X_BLOCK) * X_BLOCK if self.is_integer else self.padded_k + 4

    @property
    def zeroed_k(self) -> int:
        """Columns up to which activations are read: from `k` on they must be zero."""
        return self.activations if self.is_integer else self.padded_k

    @property
    def groups(self) -> int:
        """Groups of 8 rows."""
        return -(-self.rows // GROUP_ROWS)

    @property
    def lane_words(self) -> int:
        """32-bit words of codes that a lane has of a block: what leaves the busiest warp the fewest columns."""
        word_k = 128 // self.format.code_bits
        widths = [words for words in (4, 2, 1) if words * word_k >= 32]

        def busiest(words: int) -> int:
            block = words * word_k
            return ceil(ceil(self.k / block) / WARPS) * block

        return min(widths, key=busiest)

    @property
    def block_k(self) -> int:
        return self.lane_words * 128 // self.format.code_bits

    @property
    def blocks(self) -> int:
        return -(-self.k // self.block_k)

    @property
    def padded_k(self) -> int:
        """Columns including padding; a multiple of 32."""
        return self.blocks * self.block_k

    @property
    def k_blocks(self) -> int:
        """Blocks of 32 columns, as of the activations."""
        return self.padded_k // 32

    @property
    def block_bytes(self) -> int:
        """Codes of a block of one group of rows."""
        return 32 * 4 * self.lane_words

    def scale_bytes(self, blocks: int) -> int:
        """Scales and what is beside them for `blocks` blocks of grouped columns, or of whole rows."""
        columns = -(-blocks * self.block_k // self.group) if self.group else 1
        arrays = 1 + self.has_beside
        return columns * arrays * self.groups * GROUP_ROWS * _SCALE_BYTES[self.format.scale_dtype]

    @property
    def has_beside(self) -> bool:
        return self.format.zero_points or self.format.minimums

    @property
    def chunk_blocks(self) -> int:
        """Blocks that one ring stage takes; 0 if not even one fits. Stages begin with a new group of columns."""
        unit = max(1, self.group // self.block_k)
        most = self.stage_bytes // (self.block_bytes * self.groups) // unit * unit
        # of whole rows, only the last stage has scales
        while most > 0 and self._chunk_bytes(min(most, self.blocks)) > self.stage_bytes:
            most -= unit
        if most >= self.blocks:
            return self.blocks
        step = max(unit, WARPS)  # the same number of blocks for each warp
        return most // step * step or most

    def _chunk_bytes(self, blocks: int) -> int:
        return blocks * self.groups * self.block_bytes + self.scale_bytes(blocks)

    @property
    def chunks(self) -> int:
        return -(-self.blocks // self.chunk_blocks)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of every stage of a task but the last."""
        codes = self.chunk_blocks * self.groups * self.block_bytes
        return codes + (self.scale_bytes(self.chunk_blocks) if self.group else 0)

    @property
    def task_bytes(self) -> int:
        rest = self.blocks - (self.chunks - 1) * self.chunk_blocks
        return (self.chunks - 1) * self.chunk_bytes + self._chunk_bytes(rest)

    def pack(self, data: QuantizedRowsData) -> NDArray[np.uint8]:
        """[tasks, task bytes] of the rows of some tasks; codes of padding read as any finite value, its scales are zero."""
        tasks, rows = data.codes.shape[0], self.groups * GROUP_ROWS
        codes = np.zeros((tasks, rows, self.padded_k), np.uint8)
        codes[:, : self.rows, : self.k] = self._stored(data.codes)
        step = INTEGER_STEP_K if self.is_integer else STEP_K
        blocks = codes.reshape(tasks, self.groups, 8, self.blocks, self.block_k // step, 4, step // 4)
        blocks = blocks.transpose(0, 3, 1, 2, 5, 4, 6)  # task, block, group, row, quarter, step, column
        words = self._words(np.ascontiguousarray(blocks)).reshape(tasks, self.blocks, -1)

        columns = max(1, self.padded_k // (self.group or self.padded_k))
        columns += bool(self.group and self.padded_k % self.group)
        behind = [self._scale_array(array, columns) for array in (data.scales, data.beside) if array is not None]
        pieces: list[NDArray[np.uint8]] = []
        for chunk in range(self.chunks):
            first, last = chunk * self.chunk_blocks, min((chunk + 1) * self.chunk_blocks, self.blocks)
            pieces.append(words[:, first:last].reshape(tasks, -1))
            if self.group:
                of_chunk = slice(first * self.block_k // self.group, -(-last * self.block_k // self.group))
                pieces += [array[:, of_chunk].reshape(tasks, -1) for array in behind]
            elif chunk == self.chunks - 1:
                pieces += [array.reshape(tasks, -1) for array in behind]
        return np.concatenate(pieces, axis=1)

    def _stored(self, codes: NDArray[Any]) -> NDArray[np.uint8]:
        """Codes as the device reads them: 4-bit integers from -8 on, 4-bit codes that become bf16 from 0 on."""
        if self.format.storage == "int4" and self.is_integer == self.has_beside:
            codes = codes + np.int8(-8 if self.is_integer else 8)
        return codes.view(np.uint8)

    def _words(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[..., steps, columns] codes as the bytes of their words."""
        match self.format.storage:
            case "int8" if self.is_integer:
                return codes
            case "int4" if self.is_integer:
                return _nibbles(codes[..., :4], codes[..., 4:])
            case "int8":
                return codes[..., list(_BYTE_ORDER)]
            case "fp8_e4m3":
                return codes[..., list(_FP8_BYTE_ORDER)]
            case "int4":
                # eight codes of two steps: the even ones in the lower half of the word, the odd ones in the upper
                eight = codes.reshape(*codes.shape[:-2], -1, 8)
                halves = [eight[..., 0::2], eight[..., 1::2]]
                return np.concatenate([_nibbles(h[..., 0::2], h[..., 1::2]) for h in halves], axis=-1)

    def _scale_array(self, array: NDArray[np.float32], columns: int) -> NDArray[np.uint8]:
        """[tasks, rows, scale columns] as [tasks, columns, bytes of all rows]."""
        tasks = array.shape[0]
        padded = np.zeros((tasks, columns, self.groups * GROUP_ROWS), np.float32)
        padded[:, : array.shape[2], : self.rows] = array.transpose(0, 2, 1)
        match self.format.scale_dtype:
            case "f32":
                stored: NDArray[Any] = padded
            case "bf16":
                stored = bf16_from_f32(padded)
            case "f16":
                stored = padded.astype(np.float16)
        return stored.view(np.uint8).reshape(tasks, columns, -1)


def _nibbles(low: NDArray[np.uint8], high: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bytes of the lowest four bits of two arrays."""
    return (low & np.uint8(15)) | (high << np.uint8(4))
