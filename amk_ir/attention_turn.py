"""How attention is divided: the positions that the warps of an SM attend to at a time, and the tasks of the product behind it."""

from __future__ import annotations

from .segments import BLOCK_K, GROUP_ROWS, rows_bytes

GROUP = 16
"""Positions whose keys and values lie together in a cache, and that are attended to together."""


def teams(head_dim: int) -> int:
    """How many groups of positions are attended to at a time; as in backends/cuda/device/attention.cuh."""
    return 8 if head_dim <= 128 else 2


def turn(head_dim: int) -> int:
    """The positions that all warps of an SM attend to at a time."""
    return GROUP * teams(head_dim)


def dealt(head_dim: int) -> int:
    """The positions that are dealt to a part of a divided attention at a time: of a power of two of groups, those whose bf16 keys
    fit a ring stage of 16 KiB. With more, a part would wait for several stages while others have none."""
    return GROUP * (8 if head_dim <= 64 else 4 if head_dim <= 128 else 2)


def is_single(tokens: int, heads: int, kv_heads: int) -> bool:
    """Whether the queries of an attention task are few, and of one KV head: whoever wants a result merges the sums of the teams; as
    `Attention::IS_SINGLE` in backends/cuda/device/attention.cuh."""
    return kv_heads == 1 and tokens * heads <= 8


def work_bytes(tokens: int, heads: int, kv_heads: int, dim: int, element_bytes: int) -> int:
    """Shared memory of an attention task of `heads` queries a token and a cache of elements of so many bytes.

    Queries, the last keys and values, the sums of all teams for up to eight queries, and results unless those sums are of all
    queries; as `Attention::BYTES` in backends/cuda/device/attention.cuh, which is checked when that is compiled.
    """
    rows, queries = tokens * heads, tokens * heads // kv_heads
    key_blocks, value_row = -(-dim // BLOCK_K), -(-dim // 16) * 16
    tail = 2 if tokens > 1 else 1
    slots = -(-min(queries, 8) // 2) * 2
    return (
        rows_bytes(rows, key_blocks)
        + kv_heads * tail * GROUP * (key_blocks * BLOCK_K + value_row) * element_bytes
        + 4 * slots * (teams(dim) * (value_row + 2) + 4)
        + (0 if is_single(tokens, heads, kv_heads) else 4 * rows * (dim + 2))
    )


OUTPUT_ROWS = 64
"""Output rows, at most, of a task that multiplies the heads of one KV head, and attends to them itself."""


def output_tile(rows: int, kv_heads: int, tasks: int) -> int:
    """Output rows of each of about `tasks` tasks that multiply the heads of one of `kv_heads` KV heads."""
    return -(-rows // max(1, tasks // kv_heads) // GROUP_ROWS) * GROUP_ROWS
