"""Executions of a schedule: the greedy run, the run in which one event never completes, and what blocks whom.

Only some events can block or unblock others. They become *items*, in program order on each SM:

- WAIT, SIGNAL: as in the schedule;
- NEED g: before the first task of an SM that reads tagged region g: until all tasks that write its words are done;
- DONE g: after the last task of an SM that writes words of g.

One NEED a region and SM is enough, because a region that is complete stays complete; one DONE is enough, because an SM
completes its tasks in order. Everything is monotone, so a run that executes whatever it can, in any order, executes all
that any execution can (docs/semantics.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from ...dialects.schedule import EventKind
from .arrays import Ints, distinct
from .coverage import Overlaps
from .timeline import Timeline


class ItemKind(IntEnum):
    """In the order in which items of one event are executed."""

    NEED = 0
    WAIT = 1
    SIGNAL = 2
    DONE = 3


@dataclass(frozen=True)
class TaggedRegions:
    """Regions of tagged buffers that tasks read, numbered over all buffers.

    need, done: (region, event) of their items. names: (buffer overlaps, read region) of each.
    impossible: regions with words that nobody writes.
    """

    count: int
    need: tuple[Ints, Ints]
    done: tuple[Ints, Ints]
    names: tuple[tuple[Overlaps, int], ...]
    impossible: frozenset[int]


@dataclass(frozen=True)
class Items:
    """The items of all SMs as parallel columns, grouped by SM: SM s owns [bounds[s], bounds[s + 1])."""

    timeline: Timeline
    tagged: TaggedRegions
    event: list[int]
    kind: list[int]
    ref: list[int]
    arg: list[int]
    bounds: list[int]
    missing: list[int]
    """For each tagged region, the number of DONE items that complete it."""

    def __len__(self) -> int:
        return len(self.event)


@dataclass(frozen=True)
class Run:
    """The end of a run. stuck: the item at which each SM stands (its last bound if it finished).

    counters, missing: signals so far, DONE items still to come.
    """

    items: Items
    stuck: tuple[int, ...]
    counters: tuple[int, ...]
    missing: tuple[int, ...]

    @property
    def blocked(self) -> list[int]:
        """SMs that did not finish."""
        return [sm for sm, at in enumerate(self.stuck) if at < self.items.bounds[sm + 1]]

    @property
    def reached(self) -> Ints:
        """For each SM the number of the first event that is not executed."""
        body = self.items.timeline.schedule.body
        ends = body.bounds[1:].astype(np.int64)
        for sm in self.blocked:
            ends[sm] = self.items.event[self.stuck[sm]]
        return ends


def tagged_regions(timeline: Timeline, found: Sequence[Overlaps]) -> TaggedRegions:
    """Numbers the read regions of tagged buffers, equal boxes once, and finds their readers and writers by SM."""
    names: list[tuple[Overlaps, int]] = []
    impossible: set[int] = set()
    parts: list[list[Ints]] = [[np.zeros(0, np.int64)] for _ in range(4)]
    for overlap in found:
        accesses = overlap.accesses
        if not accesses.tagged or not len(accesses.reads):
            continue
        boxes = accesses.reads.boxes(overlap.position)
        _, chosen, number = np.unique(
            np.concatenate([boxes.low, boxes.high], axis=1), axis=0, return_index=True, return_inverse=True
        )
        base = len(names)
        names += [(overlap, int(r)) for r in chosen]
        number = number.reshape(-1) + base
        region, event = accesses.reads.accesses
        needed = first_per_sm(timeline, number[region], event)
        pairs = np.isin(overlap.reader, chosen)
        done = last_per_sm(timeline, number[overlap.reader[pairs]], _writer_events(overlap)[pairs])
        for column, value in zip(parts, (*needed, *done), strict=True):
            column.append(value)
        for part in overlap.parts:
            written = np.zeros(part.cells, np.bool_)
            written[part.cover(0)[1]] = True
            read, cell = part.cover(1)
            impossible.update(number[distinct(read[~written[cell]])].tolist())
    need_region, need_event, done_region, done_event = (np.concatenate(column) for column in parts)
    return TaggedRegions(
        len(names), (need_region, need_event), (done_region, done_event), tuple(names), frozenset(impossible)
    )


def _writer_events(overlap: Overlaps) -> Ints:
    """The event of each entry of `overlap.writer`: a write region belongs to one task."""
    return overlap.accesses.writes.accesses[1][overlap.writer]


def first_per_sm(timeline: Timeline, region: Ints, event: Ints) -> tuple[Ints, Ints]:
    """(region, event): the first event of each region on each SM, sorted by region and event."""
    order = np.lexsort((event, region))
    region, event = region[order], event[order]
    sm = timeline.sm[event]
    first = np.ones(len(region), np.bool_)
    first[1:] = (region[1:] != region[:-1]) | (sm[1:] != sm[:-1])
    return region[first], event[first]


def last_per_sm(timeline: Timeline, region: Ints, event: Ints) -> tuple[Ints, Ints]:
    """(region, event): the last event of each region on each SM, sorted by region and event."""
    order = np.lexsort((event, region))
    region, event = region[order], event[order]
    sm = timeline.sm[event]
    last = np.ones(len(region), np.bool_)
    last[:-1] = (region[1:] != region[:-1]) | (sm[1:] != sm[:-1])
    return region[last], event[last]


def build_items(timeline: Timeline, tagged: TaggedRegions) -> Items:
    """The items of a schedule."""
    body = timeline.schedule.body
    sync = np.flatnonzero(body.kind != EventKind.RUN)
    waits = body.kind[sync] == EventKind.WAIT
    event = np.concatenate([sync, tagged.need[1], tagged.done[1]])
    kind = np.concatenate(
        [
            np.where(waits, ItemKind.WAIT, ItemKind.SIGNAL),
            np.full(len(tagged.need[1]), ItemKind.NEED),
            np.full(len(tagged.done[1]), ItemKind.DONE),
        ]
    )
    ref = np.concatenate([body.ref[sync], tagged.need[0], tagged.done[0]])
    arg = np.concatenate([body.arg[sync], np.zeros(len(tagged.need[1]) + len(tagged.done[1]), np.int64)])
    order = np.lexsort((kind, event))
    missing = np.bincount(tagged.done[0], minlength=tagged.count)
    missing[list(tagged.impossible)] += 1
    return Items(
        timeline,
        tagged,
        event[order].tolist(),
        kind[order].tolist(),
        ref[order].tolist(),
        arg[order].tolist(),
        np.searchsorted(event[order], body.bounds).tolist(),
        missing.tolist(),
    )


def run(items: Items, never: int = -1, ignore_tags: bool = False) -> Run:
    """The greedy run; the event `never` does not complete; with `ignore_tags`, tagged reads do not block. Linear time."""
    kinds, refs, args, bounds = items.kind, items.ref, items.arg, items.bounds
    counters = [0] * len(items.timeline.schedule.counters)
    missing = list(items.missing)
    at, stop = bounds[:-1], list(bounds[1:])
    halted = -1
    if never >= 0:
        halted = int(items.timeline.sm[never])
        stop[halted] = _first_item(items, halted, never)
    waiting: dict[tuple[int, int], list[int]] = {}
    needing: dict[int, list[int]] = {}
    ready = list(range(len(stop)))
    need, wait, signal = int(ItemKind.NEED), int(ItemKind.WAIT), int(ItemKind.SIGNAL)
    while ready:
        sm = ready.pop()
        i, end = at[sm], stop[sm]
        while i < end:
            kind, ref = kinds[i], refs[i]
            if kind == signal:
                counters[ref] = value = counters[ref] + 1
                ready += waiting.pop((ref, value), ())
            elif kind == wait:
                if counters[ref] < args[i]:
                    waiting.setdefault((ref, args[i]), []).append(sm)
                    break
            elif kind == need:
                if missing[ref] and not ignore_tags:
                    needing.setdefault(ref, []).append(sm)
                    break
            else:
                missing[ref] -= 1
                if not missing[ref]:
                    ready += needing.pop(ref, ())
            i += 1
        at[sm] = i
    result = Run(items, tuple(at), tuple(counters), tuple(missing))
    if halted >= 0 and at[halted] == stop[halted]:
        # it stands before `never`, which may have no item of its own: `reached` must say so
        return _Halted(items, tuple(at), tuple(counters), tuple(missing), halted, never)
    return result


@dataclass(frozen=True)
class _Halted(Run):
    halted: int
    never: int

    @property
    def reached(self) -> Ints:
        ends = super().reached
        ends[self.halted] = self.never
        return ends


def _first_item(items: Items, sm: int, event: int) -> int:
    """The first item of an SM that belongs to `event` or a later one."""
    low, high = items.bounds[sm], items.bounds[sm + 1]
    return low + int(np.searchsorted(np.asarray(items.event[low:high]), event))
