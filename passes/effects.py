"""What calls, runs and loops read and write, as boxes; the one place where passes decide on dependences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from xdsl.ir import Operation

from ..amk_ir.access import Access, Dim
from ..amk_ir.attrs import BufferKind
from ..amk_ir.linear import POSITION, Linear
from ..dialects import queue, task

Ranges = Mapping[str, tuple[int, int]]
"""Inclusive ranges of indices."""


@dataclass(frozen=True)
class Box:
    """A superset of what many tasks access: half-open intervals, linear in the loop indices in scope and `pos`."""

    buffer: str
    intervals: tuple[tuple[Linear, Linear], ...]

    def overlaps(self, other: Box, ranges: Ranges) -> bool:
        """Whether both may contain the same element, for equal values of the indices that they share."""
        if self.buffer != other.buffer:
            return False
        for (low, high), (other_low, other_high) in zip(self.intervals, other.intervals, strict=True):
            for stop, start in ((high, other_low), (other_high, low)):
                if (stop - start).bounds(ranges)[1] <= 0:
                    return False
        return True

    def widened(self, index: str, values: range) -> Box:
        """The box over all values of `index`."""
        return Box(self.buffer, tuple(_widen(low, high, index, values) for low, high in self.intervals))


def _widen(low: Linear, high: Linear, index: str, values: range) -> tuple[Linear, Linear]:
    first, last = values[0], values[-1]
    return (
        low.substitute({index: first if low.coefficient(index) >= 0 else last}),
        high.substitute({index: last if high.coefficient(index) >= 0 else first}),
    )


def box(access: Access, bound: Mapping[str, Linear], extents: Mapping[str, int]) -> Box:
    """The box of `access` over all tasks of a family of domain `extents` whose indices in `bound` have these values."""
    intervals: list[tuple[Linear, Linear]] = []
    for dim in access.dims:
        low, high = _interval(dim)
        for index, extent in extents.items():
            if index not in bound:
                low, high = _widen(low, high, index, range(extent))
        # names of the domain and of the loops are different name spaces: replace all at once
        low, high = low.substitute(bound), high.substitute(bound)
        if dim.limit is not None and high.is_constant:
            high = Linear(constant=min(high.constant, dim.limit))
        intervals.append((low, high))
    return Box(access.buffer, tuple(intervals))


def _interval(dim: Dim) -> tuple[Linear, Linear]:
    return dim.start, dim.start + dim.size


@dataclass(frozen=True)
class Effects:
    """What an op reads and writes; weights are constant and left out."""

    reads: tuple[Box, ...] = ()
    writes: tuple[Box, ...] = ()

    def __add__(self, other: Effects) -> Effects:
        return Effects((*self.reads, *other.reads), (*self.writes, *other.writes))

    def conflicts(self, other: Effects, ranges: Ranges) -> bool:
        """Whether the order of the two matters: both may access an element, one of them writing it."""
        return any(
            a.overlaps(b, ranges)
            for ours, theirs in ((self.writes, other.reads), (self.reads, other.writes), (self.writes, other.writes))
            for a in ours
            for b in theirs
        )


@dataclass
class EffectTable:
    """Effects of the calls, runs, phases and loops of one program or kernel, families looked up once."""

    holder: task.HoldsBuffers
    families: dict[str, task.FamilyOp] = field(init=False)

    def __post_init__(self) -> None:
        self.families = self.holder.families
        self._buffers = self.holder.buffers

    def family(self, name: str, indices: Iterable[Linear]) -> Effects:
        """Effects of the tasks of a family whose leading indices have the given values."""
        family = self.families[name]
        extents = family.domain.extents
        bound = dict(zip(family.domain.names, indices, strict=False))
        constants = BufferKind.WEIGHT
        reads = (op.region for op in family.loads)
        return Effects(
            tuple(box(r, bound, extents) for r in reads if self._buffers[r.buffer].kind.data is not constants),
            tuple(box(op.region, bound, extents) for op in family.stores),
        )

    def of(self, op: Operation) -> Effects:
        """Effects of a call, run, phase or loop; waits, signals and fetches have none."""
        match op:
            case task.CallOp() | queue.RunOp():
                return self.family(op.family.string_value(), op.indices.data)
            case task.ForOp():
                inner = self._sum(op.body.block.ops)
                index, values = op.index.data, op.range
                return Effects(
                    tuple(b.widened(index, values) for b in inner.reads),
                    tuple(b.widened(index, values) for b in inner.writes),
                )
            case queue.PhaseOp():
                return self._sum(op.runs)
            case _:
                return Effects()

    def _sum(self, ops: Iterable[Operation]) -> Effects:
        total = Effects()
        for op in ops:
            total = total + self.of(op)
        return total

    def ranges(self, op: Operation) -> Ranges:
        """Ranges of the indices that boxes of ops beside `op` may contain."""
        return task.enclosing_indices(op) | {POSITION: (0, self.holder.max_pos)}

    def between(self, first: Operation, last: Operation) -> Effects:
        """Effects of the ops strictly between two ops of one block."""
        total = Effects()
        op = first.next_op
        while op is not None and op is not last:
            total = total + self.of(op)
            op = op.next_op
        return total
