"""Every two accesses of the same elements, one of them a write, are ordered; or the schedule has a race.

Clocks prove nearly all pairs, in bulk. For the others there is the blocked run: `first` happens before `then` in every
execution if and only if `then` is out of reach when `first` never completes. Where tagged words order the two, and the
blocked run without tags leaves open whether `then` sees `first`, an exact search decides (`unseen`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...amk_ir.attrs import BufferKind
from .arrays import Bools, Ints, distinct, ranges
from .clocks import Clocks, Relation
from .coverage import Overlaps, check_read_before_written
from .diagnostics import Diagnostic
from .execution import Items, first_per_sm, last_per_sm, run
from .explain import Conflict, explain_race
from .failures import Rule
from .unseen import SEARCH_LIMIT, SearchLimitError, UnseenSearch

WORK_LIMIT = 30_000_000
"""Items that all blocked runs together may visit; beyond, the schedule is rejected as undecided."""

ENOUGH = 4
"""Writes with a certain race, in one buffer, after which no more are looked for."""

MAX_REPORTS = 8
"""Pairs of ops that are reported for one buffer."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of accesses, as parallel arrays: a write and a read or another write (`reads` says which).

    write, other: their events. write_region, other_region: their regions; -1 for the write where any will do.
    """

    overlap: Overlaps
    reads: bool
    write: Ints
    other: Ints
    write_region: Ints
    other_region: Ints

    def take(self, rows: Ints | Bools) -> Pairs:
        return Pairs(
            self.overlap,
            self.reads,
            self.write[rows],
            self.other[rows],
            self.write_region[rows],
            self.other_region[rows],
        )

    def __len__(self) -> int:
        return len(self.write)


class UndecidedError(Exception):
    """The work limit is spent: the message says which."""


class Order:
    """Decides what happens before what: by clocks, then by blocked runs, which are remembered."""

    def __init__(self, items: Items, clocks: Clocks):
        self.items = items
        self.clocks = clocks
        self.timeline = clocks.timeline
        self._runs: dict[tuple[int, Relation], Ints] = {}
        self._search = UnseenSearch(items)
        self._seen: dict[tuple[int, int], bool] = {}

    def settle(self, write: Ints, other: Ints, back: Relation | None) -> tuple[Bools, Bools, Bools]:
        """For each pair of a write and another access: (the write comes before, comes after, neither).

        Before: `other` sees the write. After: in the sense of `back`, which is None where after is of no use. Once
        enough races are certain, the pairs that are not decided by then are in none of the three. UndecidedError if the
        work limit is spent before any is.
        """
        clocks, sm = self.clocks, self.timeline.sm
        before = clocks.happens_before(write, other, Relation.VISIBLE)
        after = np.zeros(len(write), np.bool_)
        if back is not None:
            after = ~before & clocks.happens_before(other, write, back)
        race = ~before & ~after
        # clocks decide events of one SM both ways
        left = np.flatnonzero(race & (sm[write] != sm[other]))
        race[left] = False
        certain = 0
        try:
            for event in distinct(write[left]).tolist():
                mine = left[write[left] == event]
                before[mine] = other[mine] >= self._reached(event, Relation.VISIBLE)[sm[other[mine]]]
                mine = mine[~before[mine]]
                self._settle_rest(event, other, mine, back, (before, after, race))
                certain += bool(race[mine].any())
                if certain == ENOUGH:
                    break
        except UndecidedError:
            if not race.any():
                raise
        return before, after, race

    def always_first(self, first: Ints, then: Ints) -> Bools:
        """For each pair of events, whether `first` completes before `then` in every execution, or is `then`.

        Once enough pairs are certain not to be like that, those that are not decided by then count as if they were.
        UndecidedError if the work limit is spent before any is.
        """
        sm = self.timeline.sm
        result = (first == then) | self.clocks.happens_before(first, then, Relation.ORDERED)
        left = np.flatnonzero(~result & (sm[first] != sm[then]))  # clocks decide events of one SM
        result[left] = True
        certain = 0
        try:
            for event in distinct(first[left]).tolist():
                mine = left[first[left] == event]
                result[mine] = then[mine] >= self._reached(event, Relation.ORDERED)[sm[then[mine]]]
                certain += not result[mine].all()
                if certain == ENOUGH:
                    break
        except UndecidedError:
            if result.all():
                raise
        return result

    def _settle_rest(
        self, write: int, other: Ints, rows: Ints, back: Relation | None, result: tuple[Bools, Bools, Bools]
    ) -> None:
        """Enters the pairs `rows` of a write that the blocked run has not shown to come before.

        If tagged words order them, only until one is a race: a search takes longer than a blocked run.
        """
        before, after, race = result
        if back is None and not self.items.tagged.count:
            race[rows] = True
            return
        for then in distinct(other[rows]).tolist():
            mine = rows[other[rows] == then]
            if not self._comes_first(write, then, Relation.ORDERED):
                known = after if back is not None and self._comes_first(then, write, back) else race
                known[mine] = True
            elif not race[rows].any():
                known = before if self._sees(write, then) else race
                known[mine] = True

    def _comes_first(self, first: int, then: int, relation: Relation) -> bool:
        """Whether `first` happens before `then` (ORDERED), or `then` sees it (VISIBLE), of two events on different SMs."""
        sm = self.timeline.sm[then]
        if then >= self._reached(first, relation)[sm]:
            return True
        if relation is Relation.ORDERED or then < self._reached(first, Relation.ORDERED)[sm]:
            return False
        return self._sees(first, then)

    def _sees(self, first: int, then: int) -> bool:
        """Whether `then` sees `first`, which happens before it, where that depends on what tagged words hold up."""
        if (first, then) not in self._seen:
            try:
                self._seen[first, then] = self._search.find(first, then) is None
            except SearchLimitError:
                raise UndecidedError(
                    f"{SEARCH_LIMIT:,} steps of a search, because tagged words order some of them"
                ) from None
        return self._seen[first, then]

    def _reached(self, never: int, relation: Relation) -> Ints:
        """How far each SM gets when an event never completes. For VISIBLE, tagged words hold nobody up."""
        if not self.items.tagged.count:
            relation = Relation.VISIBLE  # the two are one
        key = (never, relation)
        if key not in self._runs:
            if (len(self._runs) + 1) * max(len(self.items), 1000) > WORK_LIMIT:
                raise UndecidedError(f"{WORK_LIMIT:,} steps")
            self._runs[key] = run(self.items, never, ignore_tags=relation is Relation.VISIBLE).reached
        return self._runs[key]


def check_races(order: Order, overlap: Overlaps) -> Iterator[Diagnostic]:
    """All races in one buffer at one position, and reads of state that come before their write."""
    accesses = overlap.accesses
    if accesses.tagged:
        return  # its reader waits for its writers, and it is written once: a proof of its own
    try:
        if accesses.kind is BufferKind.STATE:
            yield from _check_state(order, overlap)
        else:
            yield from _check_written_once(order, overlap)
    except UndecidedError as limit:
        yield Diagnostic(
            Rule.UNDECIDED,
            f"too many accesses of @{accesses.name} are ordered by waits for a part of a counter's signals: deciding "
            f"them takes more than {limit}",
            "wait for all signals of a counter, or use one counter for each phase",
            ops=(accesses.buffer,),
        )


def _check_written_once(order: Order, overlap: Overlaps) -> Iterator[Diagnostic]:
    """Scratch and outputs: each element is written once, so every reader has to see that write.

    The first reader of a region on each SM has to come after the last writer on each SM.
    """
    if not len(overlap.reader):
        return
    accesses = overlap.accesses
    readers = first_per_sm(order.timeline, *accesses.reads.accesses)
    writers = last_per_sm(order.timeline, overlap.reader, accesses.writes.accesses[1][overlap.writer])
    region = readers[0]
    counts = np.bincount(writers[0], minlength=len(accesses.reads))
    each = counts[region]
    write = writers[1][ranges((np.cumsum(counts) - counts)[region], each)]
    pairs = Pairs(overlap, True, write, np.repeat(readers[1], each), np.full(len(write), -1), np.repeat(region, each))
    yield from _report(order, pairs.take(order.settle(pairs.write, pairs.other, None)[2]))


def _check_state(order: Order, overlap: Overlaps) -> Iterator[Diagnostic]:
    """State is written again and again: writes are ordered among each other, and each read with each write."""
    accesses = overlap.accesses
    write_event = accesses.writes.accesses[1]
    if len(overlap.first):
        writes = Pairs(
            overlap, False, write_event[overlap.first], write_event[overlap.second], overlap.first, overlap.second
        )
        yield from _report(order, writes.take(order.settle(writes.write, writes.other, Relation.VISIBLE)[2]))
    if not len(accesses.reads):
        return
    region, event = accesses.reads.accesses
    streamed = accesses.reads.streamed[region]
    if streamed.any():
        yield from _check_streamed(order, overlap, region[streamed], event[streamed])
        region, event = region[~streamed], event[~streamed]
    # All readers of a region on an SM are after a write if the first is.
    firsts = _with_writers(overlap, *first_per_sm(order.timeline, region, event))
    if order.clocks.happens_before(firsts.write, firsts.other, Relation.VISIBLE).all():
        writes = np.arange(len(accesses.writes))
        part = (distinct(region), writes, None) if streamed.any() else None
        yield from check_read_before_written(order.timeline, overlap, part)
        return
    pairs = _with_writers(overlap, region, event)
    before, _, race = order.settle(pairs.write, pairs.other, Relation.ORDERED)
    race &= pairs.write != pairs.other  # a task reads all that it reads before it writes
    if race.any():
        yield from _report(order, pairs.take(race))
    else:
        yield from _check_state_coverage(order, pairs.take(before), region, event)


def _check_streamed(order: Order, overlap: Overlaps, region: Ints, event: Ints) -> Iterator[Diagnostic]:
    """State that is streamed is read at any time before its task: every write of this step has to come after the task."""
    pairs = _with_writers(overlap, region, event)
    late = order.always_first(pairs.other, pairs.write)  # a task takes its tiles before it writes
    if late.all():
        yield from check_read_before_written(order.timeline, overlap, (distinct(region), np.zeros(0, np.int64), None))
    else:
        yield from _report(order, pairs.take(~late))


def _with_writers(overlap: Overlaps, region: Ints, event: Ints) -> Pairs:
    """Every read (region, event) with every write that overlaps it."""
    counts = np.bincount(overlap.reader, minlength=len(overlap.accesses.reads))
    each = counts[region]
    writer = overlap.writer[ranges((np.cumsum(counts) - counts)[region], each)]
    write_event = overlap.accesses.writes.accesses[1]
    return Pairs(overlap, True, write_event[writer], np.repeat(event, each), writer, np.repeat(region, each))


def _check_state_coverage(order: Order, pairs: Pairs, region: Ints, event: Ints) -> Iterator[Diagnostic]:
    """Coverage where some reads come before a write: each reader counts on the writes before itself only."""
    writers: dict[tuple[int, int], list[int]] = {key: [] for key in zip(region.tolist(), event.tolist(), strict=True)}
    for r, e, w in zip(pairs.other_region.tolist(), pairs.other.tolist(), pairs.write_region.tolist(), strict=True):
        writers[r, e].append(w)
    seen: set[tuple[int, tuple[int, ...]]] = set()
    for (r, e), before in writers.items():
        if (key := (r, tuple(before))) not in seen:
            seen.add(key)
            part = (np.array([r]), np.asarray(before, np.int64), e)
            yield from check_read_before_written(order.timeline, pairs.overlap, part)


def _report(order: Order, pairs: Pairs) -> Iterator[Diagnostic]:
    """One diagnostic for each pair of ops, about its first pair of tasks."""
    if not len(pairs):
        return
    body = order.timeline.schedule.body
    kinds = body.op[pairs.write].astype(np.int64) * (int(body.op.max(initial=0)) + 1) + body.op[pairs.other]
    _, firsts, counts = np.unique(kinds, return_index=True, return_counts=True)
    for row, count in list(zip(firsts.tolist(), counts.tolist(), strict=True))[:MAX_REPORTS]:
        write, other = int(pairs.write[row]), int(pairs.other[row])
        write_region, other_region = int(pairs.write_region[row]), int(pairs.other_region[row])
        if write_region < 0:
            here = pairs.overlap.writer[pairs.overlap.reader == other_region]
            write_region = int(here[pairs.overlap.accesses.writes.accesses[1][here] == write][0])
        conflict = Conflict(pairs.overlap, pairs.reads, write, other, write_region, other_region, count)
        yield explain_race(order.items, conflict)
