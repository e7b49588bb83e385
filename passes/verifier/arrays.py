"""Array idioms that NumPy has no name for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def distinct(values: Ints) -> Ints:
    """The distinct values, sorted. (Sorting is several times faster here than the hashing of `np.unique`.)"""
    ordered = np.sort(values)
    keep = np.ones(len(ordered), np.bool_)
    keep[1:] = ordered[1:] != ordered[:-1]
    return ordered[keep]


def ranges(starts: Ints, counts: Ints) -> Ints:
    """`starts[0], starts[0] + 1, ...` (counts[0] of them), then those of the next, concatenated."""
    ends = np.cumsum(counts)
    return np.repeat(starts - (ends - counts), counts) + np.arange(int(ends[-1]) if len(ends) else 0)
