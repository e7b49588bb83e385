"""Accesses bound to arrays: the view of a buffer that one task touches, at any position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from xdsl.ir import Operation

from ...amk_ir.access import Access
from ...amk_ir.errors import ExecutionError
from ...amk_ir.linear import POSITION, Linear
from .memory import Array

_Index = tuple[slice | int, ...]


@dataclass(frozen=True)
class _Interval:
    """`[start, start + size)` of one dimension, start and size linear in the position."""

    start: int
    start_step: int
    size: int
    size_step: int
    limit: int | None
    kept: bool

    def at(self, pos: int) -> tuple[int, int]:
        start = self.start + self.start_step * pos
        stop = start + self.size + self.size_step * pos
        if self.limit is not None and stop > self.limit:
            stop = max(start, self.limit)
        return start, stop

    @property
    def depends_on_position(self) -> bool:
        return self.start_step != 0 or self.size_step != 0

    @property
    def may_be_cut(self) -> bool:
        """Whether the limit can make the accessed part smaller than the tile."""
        return self.limit is not None and (self.depends_on_position or self.start + self.size > self.limit)


class Region:
    """The region that one task accesses in one op."""

    def __init__(self, op: Operation, access: Access, array: Array, indices: Mapping[str, int]):
        """Binds all indices but the position; ExecutionError if a constant dimension leaves the buffer."""
        self.op = op
        self.buffer = access.buffer
        self.array = array
        self.intervals = tuple(
            _Interval(*_in_position(d.start, indices), *_in_position(d.size, indices), d.limit, d.kept)
            for d in access.dims
        )
        self.is_static = not any(i.depends_on_position for i in self.intervals)
        self.is_cut = any(i.may_be_cut for i in self.intervals)
        # The constant dimensions are applied once; views then only index the ones that depend on the position.
        constant: list[slice | int] = []
        self._varying: list[tuple[int, int]] = []  # (axis of the base, dimension)
        self._template: list[slice | int] = []
        for dimension, interval in enumerate(self.intervals):
            if interval.depends_on_position:
                self._varying.append((len(self._template), dimension))
                constant.append(slice(None))
                self._template.append(slice(None))
            else:
                start, stop = self._checked(dimension, 0)
                constant.append(slice(start, stop) if interval.kept else start)
                if interval.kept:
                    self._template.append(slice(None))
        # the final `...` makes it a view (not a scalar) when every dimension is a single index
        self._base: Array = array[(*constant, ...)]

    def _checked(self, dimension: int, pos: int) -> tuple[int, int]:
        start, stop = self.intervals[dimension].at(pos)
        if start < 0 or stop > self.array.shape[dimension]:
            raise ExecutionError(
                f"'{self.op.name}' accesses [{start}, {stop}) of dimension {dimension} of @{self.buffer}, "
                f"which has {self.array.shape[dimension]} elements there (position {pos})"
            )
        return start, stop

    def view(self, pos: int) -> Array:
        """The accessed elements, without those beyond a limit; dropped dimensions are absent."""
        if not self._varying:
            return self._base
        index = self._template.copy()
        for axis, dimension in self._varying:
            start, stop = self._checked(dimension, pos)
            index[axis] = slice(start, stop) if self.intervals[dimension].kept else start
        return self._base[tuple(index)]

    def tile_shape(self, pos: int) -> tuple[int, ...]:
        """Shape of the tile, elements beyond a limit included."""
        return tuple(i.size + i.size_step * pos for i in self.intervals if i.kept)

    def padded(self, pos: int) -> Array:
        """The tile as a new array, zero beyond the limits."""
        view = self.view(pos)
        tile = np.zeros(self.tile_shape(pos), view.dtype)
        tile[tuple(slice(0, n) for n in view.shape)] = view
        return tile

    def element(self, pos: int, within: tuple[int, ...]) -> str:
        """`@buffer[i, j]` of an element of the view, for diagnostics."""
        offsets = iter(within)
        starts = ((i.at(pos)[0], i.kept) for i in self.intervals)
        return f"@{self.buffer}[{', '.join(str(s + (next(offsets) if kept else 0)) for s, kept in starts)}]"


def _in_position(expression: Linear, indices: Mapping[str, int]) -> tuple[int, int]:
    """Constant part and factor of the position, with all other indices bound."""
    return expression.evaluate({**indices, POSITION: 0}), expression.coefficient(POSITION)
