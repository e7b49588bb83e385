"""The layout of streamed weights: the order in which mma fragments want them. Mathematics only, no IR, no GPU.

A task's weight rows (n) are padded to groups of 8 and its row length (k) to blocks of 32. In memory:
[k block][group][8 rows][32 k] bf16. Lane l of a warp then reads row l // 4, elements (l % 4) * 8 to + 7 of a block with
one 16-byte load, and neighbouring lanes neighbouring addresses. Splitting a task along k gives contiguous chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.segments import BLOCK_K, FRAGMENT_BYTES, GROUP_ROWS, WARPS, stage_blocks


@dataclass(frozen=True)
class FragmentLayout:
    """The layout of one task: `rows` weight rows of `k` elements, in ring stages of `stage_bytes`."""

    rows: int
    k: int
    stage_bytes: int

    @property
    def groups(self) -> int:
        return -(-self.rows // GROUP_ROWS)

    @property
    def k_blocks(self) -> int:
        return -(-self.k // BLOCK_K)

    @property
    def zeroed_k(self) -> int:
        """Columns up to which activations are read: from `k` on they must be zero."""
        return self.k_blocks * BLOCK_K

    @property
    def activations(self) -> int:
        """Elements of 4 bytes that a vector of activations takes in shared memory; as `activation_stride`, device/matvec.cuh."""
        return self.k_blocks * BLOCK_K + 4

    @property
    def chunk_blocks(self) -> int:
        """k blocks that one ring stage takes; 0 if not even one fits."""
        return stage_blocks(self.k_blocks, self.groups, self.stage_bytes)

    @property
    def stage_vectors(self) -> int:
        """Vectors of 16 bytes that a thread has of a stage, at most."""
        return -(-self.chunk_blocks // WARPS) * self.groups

    @property
    def chunks(self) -> int:
        return -(-self.k_blocks // self.chunk_blocks)

    @property
    def task_bytes(self) -> int:
        return self.k_blocks * self.groups * FRAGMENT_BYTES

    @property
    def chunk_bytes(self) -> int:
        return self.chunk_blocks * self.groups * FRAGMENT_BYTES

    def pack(self, weights: NDArray[Any]) -> NDArray[Any]:
        """[tasks, rows, k] -> [tasks, task elements], zero where padded."""
        tasks = weights.shape[0]
        padded_rows, padded_k = self.groups * GROUP_ROWS, self.k_blocks * BLOCK_K
        if (padded_rows, padded_k) != (self.rows, self.k):
            padded = np.zeros((tasks, padded_rows, padded_k), weights.dtype)
            padded[:, : self.rows, : self.k] = weights
            weights = padded
        blocks = weights.reshape(tasks, self.groups, GROUP_ROWS, self.k_blocks, BLOCK_K)
        return np.ascontiguousarray(blocks.transpose(0, 3, 1, 2, 4)).reshape(tasks, -1)

    def unpack(self, packed: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `pack`: [tasks, task elements] -> [tasks, rows, k]."""
        blocks = packed.reshape(-1, self.k_blocks, self.groups, GROUP_ROWS, BLOCK_K).transpose(0, 2, 3, 1, 4)
        return blocks.reshape(-1, self.groups * GROUP_ROWS, self.k_blocks * BLOCK_K)[:, : self.rows, : self.k]
