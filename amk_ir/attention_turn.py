"""How attention is divided: the positions that the warps of an SM attend to at a time, and the tasks of the product behind it."""

from __future__ import annotations

from .segments import GROUP_ROWS

GROUP = 16
"""Positions whose keys and values lie together in a cache, and that are attended to together."""


def teams(head_dim: int) -> int:
    """How many groups of positions are attended to at a time; as in backends/cuda/device/attention.cuh."""
    return 8 if head_dim <= 64 else 4 if head_dim <= 128 else 2


def turn(head_dim: int) -> int:
    """The positions that all warps of an SM attend to at a time."""
    return GROUP * teams(head_dim)


OUTPUT_ROWS = 64
"""Output rows, at most, of a task that multiplies the heads of one KV head, and attends to them itself."""


def output_tile(rows: int, kv_heads: int, tasks: int) -> int:
    """Output rows of each of about `tasks` tasks that multiply the heads of one of `kv_heads` KV heads."""
    return -(-rows // max(1, tasks // kv_heads) // GROUP_ROWS) * GROUP_ROWS
