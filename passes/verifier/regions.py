"""The regions that a schedule's tasks access, as arrays of boxes.

One `load` of a family stands for as many boxes as the indices that it uses have values, however many tasks share each
of them; a `store` stands for one box a task. A box is a pair of rows `low`, `high` (half-open) with one column for each
dimension of the buffer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from xdsl.ir import Operation

from ...amk_ir.access import Access, Dim
from ...amk_ir.attrs import BufferKind
from ...amk_ir.linear import POSITION, Linear
from ...dialects.task import BufferOp, FamilyOp, StreamOp
from .arrays import Bools, Ints, distinct
from .timeline import Timeline


@dataclass(frozen=True)
class Boxes:
    """`low`, `high`: [n, rank], half-open."""

    low: Ints
    high: Ints

    def __len__(self) -> int:
        return len(self.low)

    def take(self, rows: Ints | slice) -> Boxes:
        return Boxes(self.low[rows], self.high[rows])

    @staticmethod
    def concatenate(parts: Sequence[Boxes], rank: int) -> Boxes:
        empty = np.zeros((0, rank), np.int64)
        return Boxes(
            np.concatenate([empty, *(p.low for p in parts)]), np.concatenate([empty, *(p.high for p in parts)])
        )


@dataclass(frozen=True)
class Site:
    """One access of one op in the body of a family, for all of its tasks.

    names: the domain indices that tell its regions apart, in domain order: those that the access uses, for a write all.
    """

    op: Operation
    access: Access
    family: FamilyOp
    events: Ints
    names: tuple[str, ...]

    @cached_property
    def extents(self) -> tuple[int, ...]:
        return tuple(self.family.domain.extents[n] for n in self.names)

    @property
    def count(self) -> int:
        """Number of regions."""
        return prod(self.extents)

    @cached_property
    def region_of_task(self) -> Ints:
        """The region that each task accesses: [tasks]."""
        domain = self.family.domain
        region = np.zeros(domain.shape, np.int64)
        stride = 1
        for axis in reversed(range(len(domain.data))):
            name, extent = domain.data[axis]
            if name in self.names:
                shape = [1] * len(domain.data)
                shape[axis] = extent
                region += np.arange(extent).reshape(shape) * stride
                stride *= extent
        return region.reshape(-1)

    def indices(self, region: int) -> dict[str, int]:
        """The index values of a region."""
        values: dict[str, int] = {}
        for name, extent in reversed(list(zip(self.names, self.extents, strict=True))):
            region, values[name] = divmod(region, extent)
        return values

    def boxes(self, position: int) -> Boxes:
        """All regions at one position."""
        grid = np.indices(self.extents, dtype=np.int64).reshape(len(self.names), self.count)
        values = dict(zip(self.names, grid, strict=True))
        low = np.empty((self.count, len(self.access.dims)), np.int64)
        high = np.empty_like(low)
        for axis, dim in enumerate(self.access.dims):
            start = _evaluate(dim.start, values, position)
            stop = start + _evaluate(dim.size, values, position)
            if dim.limit is not None:
                stop = np.minimum(stop, dim.limit)
            low[:, axis] = start
            high[:, axis] = np.maximum(start, stop)
        return Boxes(low, high)


def _evaluate(expression: Linear, values: dict[str, Ints], position: int) -> Ints:
    result: Ints = np.asarray(expression.constant, np.int64)
    for name, coefficient in expression.terms:
        result = result + coefficient * (np.asarray(position, np.int64) if name == POSITION else values[name])
    return result


@dataclass(frozen=True)
class RegionSet:
    """The regions of several sites of one buffer, numbered site by site."""

    sites: tuple[Site, ...]
    rank: int

    @cached_property
    def first(self) -> Ints:
        """Number of each site's first region, and the total: [sites + 1]."""
        return np.concatenate([[0], np.cumsum([s.count for s in self.sites], dtype=np.int64)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self.first[-1])

    def boxes(self, position: int) -> Boxes:
        return Boxes.concatenate([s.boxes(position) for s in self.sites], self.rank)

    @cached_property
    def accesses(self) -> tuple[Ints, Ints]:
        """(region, event) of every access, sorted by region and then event."""
        regions = [s.region_of_task + first for s, first in zip(self.sites, self.first, strict=False)]
        region = np.concatenate([np.zeros(0, np.int64), *regions])
        event = np.concatenate([np.zeros(0, np.int64), *(s.events for s in self.sites)])
        order = np.lexsort((event, region))
        return region[order], event[order]

    @cached_property
    def streamed(self) -> Bools:
        """Which regions are streamed: they may be read at any time before their task ends."""
        return np.repeat([isinstance(s.op, StreamOp) for s in self.sites], np.diff(self.first)).astype(np.bool_)

    def site(self, region: int) -> Site:
        return self.sites[int(np.searchsorted(self.first, region, side="right")) - 1]

    def access(self, region: int) -> Access:
        """The region with its indices filled in; the position stays a name."""
        number = int(np.searchsorted(self.first, region, side="right")) - 1
        site = self.sites[number]
        return site.access.substitute(dict(site.indices(region - int(self.first[number]))))


@dataclass(frozen=True)
class BufferAccesses:
    """All that a schedule's tasks do to one buffer."""

    buffer: BufferOp
    reads: RegionSet
    writes: RegionSet

    @property
    def name(self) -> str:
        return self.buffer.sym_name.data

    @property
    def kind(self) -> BufferKind:
        return self.buffer.kind.data

    @property
    def tagged(self) -> bool:
        return self.buffer.tagged is not None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.buffer.shape

    @property
    def depends_on_position(self) -> bool:
        return any(POSITION in s.access.names for s in (*self.reads.sites, *self.writes.sites))

    def positions(self, max_pos: int, tokens: int) -> list[int]:
        """Positions in [0, max_pos] that stand for all."""
        if not self.depends_on_position:
            return [0]
        found = {0, min(1, max_pos)}
        for axis, extent in enumerate(self.shape):
            lines: dict[int, set[int]] = {0: {0, extent}}
            for site in (*self.reads.sites, *self.writes.sites):
                _add_end_points(lines, site.access.dims[axis], site.family.domain.extents, tokens)
            found |= critical_positions(lines, max_pos)
        return sorted(found)


def worlds(
    accesses: Sequence[BufferAccesses], positions: Mapping[str, Sequence[int]]
) -> list[list[tuple[BufferAccesses, int]]]:
    """Buffers at their `positions` (by name), together where the same tags block the same tasks at all of them."""
    if any(a.tagged and a.depends_on_position for a in accesses):
        # what blocks whom depends on the position, so every position is a schedule of its own
        return [[(a, p) for a in accesses] for p in sorted({p for found in positions.values() for p in found})]
    return [[(a, p) for a in accesses for p in positions[a.name]]]


def _add_end_points(lines: dict[int, set[int]], dim: Dim, extents: Mapping[str, int], tokens: int) -> None:
    """Adds the ends of an interval, for all values of its indices, to `lines`: values at position 0 by slope."""
    starts: Ints = np.asarray([dim.start.constant], np.int64)
    for name, coefficient in dim.start.terms:
        if name != POSITION:
            values = np.arange(extents[name], dtype=np.int64) * coefficient
            starts = distinct((starts[:, None] + values[None, :]).reshape(-1))
    slope, growth = dim.start.coefficient(POSITION), dim.size.coefficient(POSITION)
    at_zero = set(starts.tolist())
    stops = {s + dim.size.constant for s in at_zero}
    lines.setdefault(slope, set()).update(at_zero)
    lines.setdefault(slope + growth, set()).update(stops)
    if slope:  # where the rows end that earlier steps wrote: see `history`
        lines[0] |= at_zero | stops
        lines[slope].update(s - tokens for s in stops)
    if dim.limit is not None:
        lines[0].add(dim.limit)


def critical_positions(lines: Mapping[int, set[int]], max_pos: int) -> set[int]:
    """Positions that see every order of the end points `value + slope * position` that occurs in [0, max_pos].

    `lines` holds the values by slope. Between two neighbouring crossings of lines their order, and with it every overlap
    and every union of boxes, stays the same. So position 0, each crossing and the position after it are a proof for all.
    """
    found = {0}
    slopes = sorted(lines)
    for i, a in enumerate(slopes):
        for b in slopes[i + 1 :]:
            # value_a + a * p = value_b + b * p
            values_a, values_b = (np.fromiter(lines[slope], np.int64) for slope in (a, b))
            gap = distinct((values_a[:, None] - values_b[None, :]).reshape(-1))
            crossings = np.concatenate([-(-gap // (b - a)), gap // (b - a) + 1])
            found.update(crossings[(crossings >= 0) & (crossings <= max_pos)].tolist())
    return found


def collect(timeline: Timeline) -> list[BufferAccesses]:
    """The buffers that tasks access or have to: weights and inputs are constants of a step."""
    reads: dict[str, list[Site]] = {}
    writes: dict[str, list[Site]] = {}
    for family, events in zip(timeline.schedule.families, timeline.events, strict=True):
        names = family.domain.names
        for op in family.loads:
            used = tuple(n for n in names if n in op.region.names)
            reads.setdefault(op.region.buffer, []).append(Site(op, op.region, family, events, used))
        for op in family.stores:
            writes.setdefault(op.region.buffer, []).append(Site(op, op.region, family, events, names))
    result: list[BufferAccesses] = []
    for name, buffer in timeline.schedule.kernel.buffers.items():
        if buffer.kind.data in (BufferKind.WEIGHT, BufferKind.INPUT):
            continue
        if buffer.kind.data is not BufferKind.OUTPUT and name not in reads and name not in writes:
            continue
        rank = len(buffer.shape)
        result.append(
            BufferAccesses(
                buffer, RegionSet(tuple(reads.get(name, ())), rank), RegionSet(tuple(writes.get(name, ())), rank)
            )
        )
    return result
