"""All pairs of conflicting accesses that nothing orders, not only those that diagnostics describe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...amk_ir.attrs import BufferKind
from ...dialects.schedule import EventKind
from ..verifier.arrays import Bools, Ints, distinct, ranges
from ..verifier.clocks import Clocks, Relation, compute_clocks
from ..verifier.coverage import Overlaps, overlaps
from ..verifier.execution import Items, build_items, first_per_sm, last_per_sm, run, tagged_regions
from ..verifier.regions import collect, worlds
from ..verifier.timeline import Timeline
from .order import legal_order

WORK_LIMIT = 30_000_000
"""Items that all blocked runs together may visit; pairs beyond that count as unordered."""


@dataclass(frozen=True)
class Missing:
    """The edges that a schedule lacks: after the event `first[i]`, and only then, `then[i]` may run.

    buffer: the number in `buffers` of the one that both access. sight: whether `then` has to see `first` (else it is enough to
    come later: a read before a write). flow: whether `then` reads what `first` writes. place: of every event in an execution in which all edges point forward.
    clocks: what the schedule orders already. is_exact: whether `clocks` know all of that.
    """

    timeline: Timeline
    first: Ints
    then: Ints
    sight: Bools
    flow: Bools
    buffer: Ints
    buffers: tuple[str, ...]
    place: Ints
    clocks: Clocks
    is_exact: bool

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class _Accesses:
    """Pairs of accesses of the same elements. reads: whether `other` is a read (else both write)."""

    write: Ints
    other: Ints
    reads: bool


def find_missing(timeline: Timeline, rank: Ints) -> Missing | None:
    """What a schedule without deadlocks lacks, None if tasks stand in an order that no added edge can mend.

    rank: of every event, which of several possible ones comes first.
    """
    kernel = timeline.schedule.kernel
    groups = list(_worlds(timeline))
    place = legal_order(timeline, [f for world in groups for f in world], rank)
    if place is None:
        return None
    body = timeline.schedule.body
    waits = body.kind == EventKind.WAIT
    partial = bool((body.arg[waits] < timeline.schedule.signals[body.ref[waits]]).any())
    names = list(kernel.buffers)
    found = [np.zeros(0, np.int64)]
    clocks = None
    for world in groups:
        items = build_items(timeline, tagged_regions(timeline, world))
        clocks = compute_clocks(items)
        decide = _Decision(items, clocks, WORK_LIMIT if partial else 0)
        for overlap in world:
            for pairs in _conflicts(timeline, overlap):
                first, then, sight = _directed(pairs, place)
                left = ~decide.holds(first, then, sight)
                first, then, sight = first[left], then[left], sight[left]
                # one number for each edge, so that equal ones are easily found
                kind = (sight * 2 + (sight & pairs.reads)) * len(names) + names.index(overlap.accesses.name)
                found.append((first * len(body) + then) * 4 * len(names) + kind)
    if clocks is None or len(groups) > 1:
        # what tags order may differ between positions: only what counters order holds at all of them
        clocks = compute_clocks(build_items(timeline, tagged_regions(timeline, [])))
    edge, kind = np.divmod(distinct(np.concatenate(found)), 4 * len(names))
    return Missing(
        timeline,
        first=edge // len(body),
        then=edge % len(body),
        sight=kind // len(names) >= 2,
        flow=kind // len(names) == 3,
        buffer=kind % len(names),
        buffers=tuple(names),
        place=place,
        clocks=clocks,
        is_exact=not partial and len(groups) == 1,
    )


def _worlds(timeline: Timeline) -> Iterator[list[Overlaps]]:
    """The overlaps of all buffers at all positions, as the verifier groups them."""
    kernel = timeline.schedule.kernel
    accesses, tokens = collect(timeline), kernel.tokens.value.data
    positions = {a.name: a.positions(kernel.max_pos, tokens) for a in accesses}
    for world in worlds(accesses, positions):
        yield [overlaps(a, position, tokens) for a, position in world]


def _conflicts(timeline: Timeline, overlap: Overlaps) -> Iterator[_Accesses]:
    """The pairs whose order decides on races, as `verifier/races.py` has them; never a task and itself."""
    accesses = overlap.accesses
    if accesses.tagged:
        return
    event = accesses.writes.accesses[1]
    counts = np.bincount(overlap.reader, minlength=len(accesses.reads))
    if accesses.kind is BufferKind.STATE:
        yield _apart(event[overlap.first], event[overlap.second], False)
        region, reader = accesses.reads.accesses
        each = counts[region]
        write = event[overlap.writer[ranges((np.cumsum(counts) - counts)[region], each)]]
    else:
        # program order carries the order of the last write and the first read of an SM to the others
        region, reader = first_per_sm(timeline, *accesses.reads.accesses)
        of_region, writer = last_per_sm(timeline, overlap.reader, event[overlap.writer])
        counts = np.bincount(of_region, minlength=len(accesses.reads))
        each = counts[region]
        write = writer[ranges((np.cumsum(counts) - counts)[region], each)]
    yield _apart(write, np.repeat(reader, each), True)


def _apart(write: Ints, other: Ints, reads: bool) -> _Accesses:
    apart = write != other
    return _Accesses(write[apart], other[apart], reads)


def _directed(pairs: _Accesses, place: Ints) -> tuple[Ints, Ints, Bools]:
    """(first, then, whether then has to see first) of each pair."""
    forward = place[pairs.write] < place[pairs.other]
    first = np.where(forward, pairs.write, pairs.other)
    then = np.where(forward, pairs.other, pairs.write)
    return first, then, forward | (not pairs.reads)


class _Decision:
    """Whether the schedule has an edge already: by clocks, and by blocked runs that visit no more than `budget` items."""

    def __init__(self, items: Items, clocks: Clocks, budget: int):
        self.items, self.clocks, self.budget = items, clocks, budget

    def holds(self, first: Ints, then: Ints, sight: Bools) -> Bools:
        result = np.where(
            sight,
            self.clocks.happens_before(first, then, Relation.VISIBLE),
            self.clocks.happens_before(first, then, Relation.ORDERED),
        )
        sm = self.clocks.timeline.sm
        for seen in (True, False):
            left = np.flatnonzero(~result & (sight == seen))
            for event in distinct(first[left]).tolist():
                if self.budget < max(len(self.items), 1):
                    return result
                self.budget -= len(self.items)
                mine = left[first[left] == event]
                result[mine] = then[mine] >= run(self.items, event, ignore_tags=seen).reached[sm[then[mine]]]
        return result
