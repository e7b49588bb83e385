"""How rows of quantised weights lie in ring stages: codes in blocks along k, scales behind. Mathematics only.

The pass that plans shared memory, the packer and the emitter must agree. A task's weight rows are padded to groups of eight, its
row length to blocks of 32 to 128 columns, of which a consumer warp takes every eighth one.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from .quantization import QuantizedFormat
from .segments import GROUP_ROWS

STEP_K = 32
"""Columns of which a lane has eight."""
WARPS = 8
"""Consumer warps that share a stage; as in device/types.cuh."""
SCALE_BYTES = {"f32": 4, "bf16": 2, "f16": 2}
"""Of a scale, zero point or minimum."""


@dataclass(frozen=True)
class QuantizedStages:
    """One task: `rows` weight rows of `k` values in `format`, in ring stages of `stage_bytes`.

    A stage of whole rows has scales if it is the last one of a task, but zero points or minimums in any case.
    """

    rows: int
    k: int
    stage_bytes: int
    format: QuantizedFormat

    @property
    def group(self) -> int:
        """Columns that share a scale; 0 if all of a row do."""
        return 0 if self.format.group >= self.k else self.format.group

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
    def block_steps(self) -> int:
        """Steps of 32 columns of a block."""
        return self.block_k // STEP_K

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
        return self.padded_k // STEP_K

    @property
    def block_bytes(self) -> int:
        """Codes of a block of one group of rows."""
        return 32 * 4 * self.lane_words

    def scale_bytes(self, blocks: int) -> int:
        """Scales of `blocks` blocks of grouped columns, or of whole rows; as many bytes are beside them, if any."""
        columns = -(-blocks * self.block_k // self.group) if self.group else 1
        return columns * self.groups * GROUP_ROWS * SCALE_BYTES[self.format.scale_dtype]

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

    @property
    def chunk_steps(self) -> int:
        """Steps of 32 columns that one ring stage takes."""
        return self.chunk_blocks * self.block_steps

    @property
    def keeps_x(self) -> bool:
        """Whether sums of activations wait until rows are complete: minimums of whole rows are multiplied by them."""
        return self.format.minimums and not self.group

    def _chunk_bytes(self, blocks: int) -> int:
        return blocks * self.groups * self.block_bytes + self.scale_bytes(blocks) * (1 + self.has_beside)

    @property
    def chunks(self) -> int:
        return -(-self.blocks // self.chunk_blocks)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of every stage of a task but the last."""
        return self._chunk_bytes(self.chunk_blocks) - (0 if self.group else self.scale_bytes(self.chunk_blocks))

    @property
    def task_bytes(self) -> int:
        rest = self.blocks - (self.chunks - 1) * self.chunk_blocks
        return (self.chunks - 1) * self.chunk_bytes + self._chunk_bytes(rest)
