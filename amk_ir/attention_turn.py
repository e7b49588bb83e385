"""How many positions the warps of an SM attend to at a time: what is divided among SMs is best a multiple of it."""

from __future__ import annotations

GROUP = 16
"""Positions whose keys and values lie together in a cache, and that are attended to together."""


def teams(head_dim: int) -> int:
    """How many groups of positions are attended to at a time; as in backends/cuda/device/attention.cuh."""
    return 8 if head_dim <= 64 else 4 if head_dim <= 128 else 2


def turn(head_dim: int) -> int:
    """The positions that all warps of an SM attend to at a time."""
    return GROUP * teams(head_dim)
