"""An execution in which every element is written before it is read: it gives missing edges their direction.

Edges that all point forward in one legal execution cannot deadlock: with the waits and signals that they stand for, this
execution is still possible, and if one execution is complete, all are (docs/semantics.md, confluence).

An element that this step has to write before a read (not one that earlier steps wrote) holds the read up until its first
writer has run. An element that tasks stream holds its writers up until all of these have run: the ring may load it at any
time before. Everything stays monotone, so the greedy run below completes if any such execution exists; and one does
if any waits and signals whatsoever could make the schedule safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np

from ...dialects.schedule import EventKind
from ..verifier.arrays import Ints, ranges
from ..verifier.coverage import Overlaps
from ..verifier.execution import first_per_sm
from ..verifier.regions import RegionSet
from ..verifier.timeline import Timeline


def legal_order(timeline: Timeline, found: Sequence[Overlaps], rank: Ints) -> Ints | None:
    """The place of every event in such an execution, those of lower `rank` first where there is a choice.

    found: the overlaps of all buffers, at all positions. None if there is no such execution.
    """
    data = _Data.of(timeline, found)
    body = timeline.schedule.body
    kinds, refs, args, ranks = body.kind.tolist(), body.ref.tolist(), body.arg.tolist(), rank.tolist()
    at, ends = body.bounds[:-1].tolist(), body.bounds[1:].tolist()
    counters = [0] * len(timeline.schedule.counters)
    missing, unwritten = data.missing.tolist(), [True] * data.cells
    for_counter: dict[tuple[int, int], list[int]] = {}
    for_region: dict[int, list[int]] = {}
    for_cell: dict[int, list[int]] = {}
    untaken = data.untaken.tolist()
    place = np.zeros(len(body), np.int64)
    ready = [(ranks[at[sm]], sm) for sm in range(len(at)) if at[sm] < ends[sm]]
    heapify(ready)
    done = 0
    while ready:
        _, sm = heappop(ready)
        event = at[sm]
        kind, ref = kinds[event], refs[event]
        woken: list[int] = []
        if kind == EventKind.WAIT:
            if counters[ref] < args[event]:
                for_counter.setdefault((ref, args[event]), []).append(sm)
                continue
        elif kind == EventKind.SIGNAL:
            counters[ref] = value = counters[ref] + 1
            woken = for_counter.pop((ref, value), woken)
        else:
            obstacle = next((r for r in data.reads.of(event) if missing[r]), None)
            if obstacle is not None:
                for_region.setdefault(obstacle, []).append(sm)
                continue
            tiles = data.tiles.of(event)
            held = next((c for c in data.writes.of(event) if untaken[c] > tiles.count(c)), None)
            if held is not None:
                for_cell.setdefault(held, []).append(sm)
                continue
            for cell in tiles:
                untaken[cell] -= 1
                woken += for_cell.pop(cell, ())
            for cell in data.writes.of(event):
                if unwritten[cell]:
                    unwritten[cell] = False
                    for region in data.readers.of(cell):
                        missing[region] -= 1
                        if not missing[region]:
                            woken += for_region.pop(region, ())
        place[event] = done
        done += 1
        at[sm] = event + 1
        for other in (sm, *woken):
            if at[other] < ends[other]:
                heappush(ready, (ranks[at[other]], other))
    return place if done == len(body) else None


@dataclass(frozen=True)
class _Groups:
    """Values by key, for keys in [0, n)."""

    starts: list[int]
    values: list[int]

    @staticmethod
    def make(keys: Ints, values: Ints, count: int) -> _Groups:
        order = np.argsort(keys, kind="stable")
        starts = np.searchsorted(keys[order], np.arange(count + 1))
        return _Groups(starts.tolist(), values[order].tolist())

    def of(self, key: int) -> list[int]:
        return self.values[self.starts[key] : self.starts[key + 1]]


@dataclass(frozen=True)
class _Data:
    """What holds reads up. Regions and cells are numbered over all buffers and positions.

    reads: regions by the first event that reads them on its SM. writes: cells by event. readers: regions by cell.
    missing: for each region, its cells that this step has to write first. tiles: cells that the ring loads for an event,
    of those that this step writes. untaken: for each cell, how often it is in `tiles`.
    """

    cells: int
    reads: _Groups
    writes: _Groups
    readers: _Groups
    missing: Ints
    tiles: _Groups
    untaken: Ints

    @staticmethod
    def of(timeline: Timeline, found: Sequence[Overlaps]) -> _Data:
        none = np.zeros(0, np.int64)
        reads: list[tuple[Ints, Ints]] = [(none, none)]
        writes: list[tuple[Ints, Ints]] = [(none, none)]
        readers: list[tuple[Ints, Ints]] = [(none, none)]
        tiles: list[tuple[Ints, Ints]] = [(none, none)]
        regions = cells = 0
        for overlap in found:
            accesses = overlap.accesses
            region, event = first_per_sm(timeline, *accesses.reads.accesses)
            reads.append((event, region + regions))
            writer, streamed = accesses.writes.accesses[1], accesses.reads.streamed
            for part in overlap.parts:
                write, written = part.cover(0)
                read, cell = part.cover(1)
                # what nobody writes is no matter of order; what earlier steps wrote is there
                wanted = np.zeros(part.cells, np.bool_)
                wanted[written] = True
                early = streamed[read]
                tile = early & wanted[cell]
                tiles.append(_of_events(accesses.reads, read[tile], cell[tile] + cells))
                read, cell = read[~early], cell[~early]
                wanted[part.cover(2)[1]] = False
                writes.append((writer[write], written + cells))
                readers.append((cell[wanted[cell]] + cells, read[wanted[cell]] + regions))
                cells += part.cells
            regions += len(accesses.reads)
        events = len(timeline.sm)
        missing = np.bincount(np.concatenate([r for _, r in readers]), minlength=regions)
        untaken = np.bincount(np.concatenate([c for _, c in tiles]), minlength=cells)
        return _Data(
            cells,
            _join(reads, events),
            _join(writes, events),
            _join(readers, cells),
            missing,
            _join(tiles, events),
            untaken,
        )


def _of_events(regions: RegionSet, region: Ints, value: Ints) -> tuple[Ints, Ints]:
    """(event, value) for every event that accesses the region of a value."""
    accessed, event = regions.accesses
    counts = np.bincount(accessed, minlength=len(regions))
    each = counts[region]
    return event[ranges((np.cumsum(counts) - counts)[region], each)], np.repeat(value, each)


def _join(parts: list[tuple[Ints, Ints]], count: int) -> _Groups:
    return _Groups.make(np.concatenate([k for k, _ in parts]), np.concatenate([v for _, v in parts]), count)
