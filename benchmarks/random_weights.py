"""Packed random weights for a plan, made fast: for timings, where only sizes and plausible values matter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amk.backends.cuda.plan import KernelPlan, aligned

_BLOCK = 1 << 24


def packed_pieces(plan: KernelPlan, seed: int = 0) -> Iterator[NDArray[Any]]:
    """What `pack.packed_weights` yields, of other numbers: f32 constants (norm weights, frequencies) are 1, all
    else is a block of normal bf16 numbers of deviation 0.02, repeated at shifting offsets."""
    noise = np.random.default_rng(seed).standard_normal(_BLOCK, np.float32) * np.float32(0.02)
    block = (noise.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    ones = {b.parameter for b in plan.constants if b.element == "f32"}
    shift = 0
    for region in plan.weight_regions:
        size = aligned(region.size)
        if region.parameter in ones:
            yield np.ones(size // 4, np.float32).view(np.uint8)
            continue
        while size > 0:
            shift = (shift + 4096 * 37) % (block.size // 2)
            piece = block[shift : shift + min(size, block.size - shift)]
            size -= piece.size
            yield piece
