"""How much of the activations of a matrix product an SM holds at a time: all of a short row, segments of long ones.

Mathematics only: the pass that plans shared memory and the emitter that uses it must agree. A step of several tokens
multiplies several rows; where they do not fit beside a weight ring, the product is made segment by segment along k, and
each thread's sums wait in shared memory meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

GROUP_ROWS = 8
"""Weight rows that a fragment has; tasks pad theirs to a multiple."""
BLOCK_K = 32
"""Elements of k that a weight fragment has."""
FRAGMENT_BYTES = GROUP_ROWS * BLOCK_K * 2
"""Of bf16 weights."""
THREADS, WARPS = 256, 8
"""Consumer threads, each of which keeps sums, and their warps."""
ELEMENT_BYTES = 4
"""Of an activation in shared memory: two bf16 whose sum it is."""
_PADDING = 4
"""Elements from the end of one row of activations to the start of the next."""


def stage_blocks(k_blocks: int, groups: int, stage_bytes: int) -> int:
    """Blocks, of `k_blocks` of a task of `groups` groups of eight bf16 weight rows, that a ring stage takes; 0 if none fits.

    Warps take one block each in turn: where stages are no more for it, a multiple of their number, which keeps all busy.
    """
    most = min(k_blocks, stage_bytes // (groups * FRAGMENT_BYTES))
    even = most // WARPS * WARPS
    return even if even and -(-k_blocks // even) == -(-k_blocks // most) else most


def rows_bytes(tokens: int, k_blocks: int) -> int:
    """Shared memory of `tokens` rows of `k_blocks` blocks."""
    return tokens * (k_blocks * BLOCK_K + _PADDING) * ELEMENT_BYTES


def partials_bytes(tokens: int, groups: int) -> int:
    """Shared memory of the partial sums of a task of `groups` groups of eight weight rows: [warp][token][row], four bytes each."""
    return 4 * WARPS * tokens * groups * GROUP_ROWS


def sums_bytes(tokens: int, groups: int, keeps_x: bool = False) -> int:
    """Shared memory of the sums that the threads keep of a task of `groups` groups of eight weight rows.

    keeps_x: also those of the activations, which minimums of whole rows are multiplied by.
    """
    # as `Sums` in device/matvec.cuh, and CodesSums in device/quantized_matvec.cuh
    chains = 2 if groups == 1 else 1
    halves = 1 if tokens <= 2 or groups > 8 else 2
    return (groups * chains + keeps_x) * halves * 16 * THREADS


@dataclass(frozen=True)
class Segments:
    """The segments of a product of `tokens` rows of `k_blocks` blocks, `chunk_blocks` a ring stage: of `blocks` blocks each, the
    last may be shorter.

    batch: tasks of an SM that are multiplied with one segment after the other. keeps_x: as in `sums_bytes`.
    """

    tokens: int
    k_blocks: int
    chunk_blocks: int
    blocks: int
    groups: int
    batch: int
    keeps_x: bool = False

    @property
    def count(self) -> int:
        return -(-self.k_blocks // self.blocks)

    @property
    def last_blocks(self) -> int:
        """Blocks of the last segment."""
        return self.k_blocks - (self.count - 1) * self.blocks

    @property
    def bytes(self) -> int:
        """Shared memory of a segment and of the sums of a batch."""
        return rows_bytes(self.tokens, self.blocks) + self.batch * sums_bytes(self.tokens, self.groups, self.keeps_x)


def plan_segments(
    tokens: int, k_blocks: int, chunk_blocks: int, groups: int, tasks: int, shared_bytes: int, keeps_x: bool = False
) -> Segments | None:
    """The segments of a product, None if all its activations are held at once.

    chunk_blocks: blocks of a ring stage, of which a segment has a whole number. tasks: of one SM, at most. shared_bytes: a
    block's shared memory on the target, of which whole rows may take four sevenths, and a segment half of that.
    """
    most = shared_bytes * 4 // 7
    if tokens == 1 or rows_bytes(tokens, k_blocks) <= most:
        return None
    stages = -(-k_blocks // chunk_blocks)
    fitting = [n for n in range(1, stages) if rows_bytes(tokens, n * chunk_blocks) <= most // 2] or [1]
    even = [n for n in fitting if stages % n == 0]
    # equal segments unless they would be much shorter
    chosen = max(even) if 2 * max(even) >= max(fitting) else max(fitting)
    batch = max(1, min(tasks, most // 2 // sums_bytes(tokens, groups, keeps_x)))
    return Segments(tokens, k_blocks, chunk_blocks, chosen * chunk_blocks, groups, batch, keeps_x)
