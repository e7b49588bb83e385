"""What overlaps in a kernel's buffers, kept for schedules that run the same tasks in other orders."""

from __future__ import annotations

from dataclasses import replace

from ...dialects.queue import KernelOp
from .coverage import Overlaps, overlaps
from .regions import BufferAccesses


class OverlapIndex:
    """Positions and overlaps depend on the tasks of a kernel, not on its queues: this remembers them by buffer.

    kernel: whose tasks they are. They must not change while the index is in use.
    """

    def __init__(self, kernel: KernelOp):
        self.kernel = kernel
        self._tokens = kernel.tokens.value.data
        self._positions: dict[str, list[int]] = {}
        self._overlaps: dict[tuple[str, int], Overlaps] = {}

    def positions(self, accesses: BufferAccesses) -> list[int]:
        """`BufferAccesses.positions` for this kernel."""
        if (found := self._positions.get(accesses.name)) is None:
            found = self._positions[accesses.name] = accesses.positions(self.kernel.max_pos, self._tokens)
        return found

    def overlaps(self, accesses: BufferAccesses, position: int) -> Overlaps:
        """`overlaps` for this kernel; the events are those of `accesses`."""
        key = (accesses.name, position)
        if (found := self._overlaps.get(key)) is None:
            found = self._overlaps[key] = overlaps(accesses, position, self._tokens)
        return replace(found, accesses=accesses)
