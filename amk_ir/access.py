"""Accesses: which region of which buffer a tile op touches, as a function of the iteration indices and the position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xdsl.dialects.builtin import DYNAMIC_INDEX

from .linear import POSITION, Linear


@dataclass(frozen=True)
class Dim:
    """One dimension of an access: elements `[start, start + size)` of the buffer's dimension.

    `kept` is false for a single index, whose dimension is dropped from the tile. With a `limit`, the tile still holds
    `size` elements, but those at or beyond `limit` are not accessed: they read as zero and are not written.
    """

    start: Linear
    size: Linear = Linear(constant=1)
    limit: int | None = None
    kept: bool = True

    @property
    def extent(self) -> int:
        """Static extent in the tile, or DYNAMIC_INDEX."""
        return self.size.constant if self.size.is_constant else DYNAMIC_INDEX

    def interval(self, indices: Mapping[str, int]) -> tuple[int, int]:
        """The accessed half-open interval under `indices`, after the limit; empty intervals are (start, start)."""
        start = self.start.evaluate(indices)
        stop = start + self.size.evaluate(indices)
        if self.limit is not None:
            stop = min(stop, self.limit)
        return start, max(start, stop)

    def substitute(self, values: Mapping[str, int | Linear]) -> Dim:
        return Dim(self.start.substitute(values), self.size.substitute(values), self.limit, self.kept)

    def __str__(self) -> str:
        if not self.kept:
            return str(self.start)
        limit = "" if self.limit is None else f" to {self.limit}"
        return f"{self.start} : {self.size}{limit}"


@dataclass(frozen=True)
class Access:
    """A region of the buffer named `buffer`: a box, one `Dim` for each dimension of the buffer."""

    buffer: str
    dims: tuple[Dim, ...]

    @property
    def tile_shape(self) -> tuple[int, ...]:
        """Extents of the kept dimensions, DYNAMIC_INDEX where they depend on the position."""
        return tuple(d.extent for d in self.dims if d.kept)

    @property
    def names(self) -> frozenset[str]:
        """All indices used, the position included."""
        return frozenset[str]().union(*(d.start.names | d.size.names for d in self.dims))

    def box(self, indices: Mapping[str, int]) -> tuple[tuple[int, int], ...]:
        """The half-open interval accessed in each dimension, for one task and one position."""
        return tuple(d.interval(indices) for d in self.dims)

    def substitute(self, values: Mapping[str, int | Linear]) -> Access:
        return Access(self.buffer, tuple(d.substitute(values) for d in self.dims))

    def __str__(self) -> str:
        return f"@{self.buffer}[{', '.join(map(str, self.dims))}]"


def check_access(access: Access, shape: tuple[int, ...], extents: Mapping[str, int], max_pos: int) -> str | None:
    """Why `access` is not a valid access of a buffer of `shape`, or None.

    Checks the rank, unbound indices, and that the box stays inside the buffer for every index in its `extents` and
    every position in [0, max_pos]. Exact, because starts and sizes are linear and limits only shrink a box.
    """
    if len(access.dims) != len(shape):
        return f"{access} has {len(access.dims)} dimensions, buffer @{access.buffer} has {len(shape)}"
    ranges = {n: (0, e - 1) for n, e in extents.items()} | {POSITION: (0, max_pos)}
    if unbound := sorted(access.names - ranges.keys()):
        return f"{access} uses index '{unbound[0]}', which is not in the domain ({', '.join(extents) or 'empty'})"
    for axis, (dim, extent) in enumerate(zip(access.dims, shape, strict=True)):
        if not dim.size.names <= {POSITION}:
            return f"size {dim.size} of dimension {axis} of {access} may depend on '{POSITION}' only"
        least = 1 if dim.size.is_constant else 0  # a tile that grows with the position may begin empty
        if dim.size.bounds(ranges)[0] < least:
            return f"size {dim.size} of dimension {axis} of {access} can be less than {least}"
        if dim.limit is not None and not 0 < dim.limit <= extent:
            return f"limit {dim.limit} of dimension {axis} of {access} must lie in [1, {extent}]"
        low, last = dim.start.bounds(ranges)
        stop = (dim.start + dim.size).bounds(ranges)[1]
        if dim.limit is not None:
            if last >= dim.limit:
                return f"dimension {axis} of {access} starts at {last}, at or beyond its limit {dim.limit}"
            stop = min(stop, dim.limit)
        if low < 0 or stop > extent:
            return f"dimension {axis} of {access} covers [{low}, {stop}), buffer @{access.buffer} has [0, {extent})"
    return None
