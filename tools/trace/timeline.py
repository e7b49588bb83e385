"""A trace in time: the clocks of all SMs brought together, events turned into intervals, stages of the ring followed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.errors import TraceError
from ...backends.cuda.trace_points import (
    LANDED,
    POINT_BITS,
    PUSHED,
    PUSHED_NEXT,
    STAGE_DONE,
    STAGE_READY,
    TIME,
    TIMER_NS,
    PointKind,
    TracePoint,
)
from ...backends.cuda.tracing import BlockTrace, TraceRow
from .raw import RawTrace, TraceFacts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Spent(StrEnum):
    """What the time of an SM's consumers goes into. The order is that of tables and legends."""

    WORK = "work"
    WORDS = "wait: words"
    COUNTER = "wait: counters"
    RING = "wait: ring"
    IDLE = "idle"


_SPENT = {
    PointKind.WORK: Spent.WORK,
    PointKind.WORDS: Spent.WORDS,
    PointKind.COUNTER: Spent.COUNTER,
    PointKind.RING: Spent.RING,
}
NO_OPERATION = "other"
"""What belongs to no operation: the start of the step."""


@dataclass(frozen=True)
class SmTimeline:
    """What one SM did. Times are ns from the start of the step.

    starts, ends, points, indices: [n] of the consumers' intervals, which follow each other. owners: [n], the operation
    that an interval belongs to, a number of `Timeline.operations`. runs: [n] bool, whether a run of it ends there.

    pushed, landed, read: [k] of the stages of the ring, in order: when the load was started, when it was seen to have
    landed, when the consumers were done with it (between products known from the stages alone: interpolated, unless
    the trace has stages). fetches: [k], the number of the text in `TraceFacts.operations`.
    """

    starts: Floats
    ends: Floats
    points: Ints
    indices: Ints
    owners: Ints
    runs: NDArray[np.bool_]
    pushed: Floats
    landed: Floats
    read: Floats
    fetches: Ints


@dataclass(frozen=True)
class Timeline:
    """A traced step. operations: names that intervals belong to. length: ns, of the whole step.

    ghz: cycles a ns of each SM's clock. doubt: ns by which two SMs may be shifted against each other.
    """

    facts: TraceFacts
    operations: tuple[str, ...]
    sms: tuple[SmTimeline, ...]
    length: float
    ghz: tuple[float, ...]
    doubt: float

    @cached_property
    def spent(self) -> tuple[Spent, ...]:
        """For each point, what the time was spent on that ended there."""
        return tuple(_SPENT.get(point.kind, Spent.IDLE) for point in self.facts.points)


def align(trace: RawTrace) -> Timeline:
    """The timeline of `trace`.

    Raises TraceError: a block that noted nothing, or clocks that contradict each other.
    """
    blocks = trace.blocks
    for sm, block in enumerate(blocks):
        if block.align_ns == 0 or len(block.consumers.clocks) == 0:
            raise TraceError(f"trace of {trace.facts.model}: SM {sm} noted nothing; was the step stopped?")
    # an SM that polls slower than the timer ticks sees several ticks as one
    tick = max(1, min(block.tick_ns for block in blocks))
    # the timer counts from 1970: as floats, its ns would be wrong by hundreds
    first = min(block.begin_ns for block in blocks)
    clocks = [_Clock.of(sm, block, first, tick) for sm, block in enumerate(blocks)]
    raw = [
        (clock.times(block.consumers), clock.times(block.producer)) for clock, block in zip(clocks, blocks, strict=True)
    ]
    zero = min(float(consumers[0]) for consumers, _ in raw)
    owners = _Owners(trace.facts.points, trace.facts.operations)
    sms = tuple(
        _sm_timeline(trace.facts, block, consumers - zero, producer - zero, owners)
        for block, (consumers, producer) in zip(blocks, raw, strict=True)
    )
    length = max(float(sm.ends[-1]) if len(sm.ends) else 0.0 for sm in sms)
    return Timeline(trace.facts, tuple(owners.names), sms, length, tuple(clock.ghz for clock in clocks), float(tick))


# ---- clocks ----------------------------------------------------------------------------------------------------------


_KNOT_NS, _KNOT_TICKS = 4000, 20
"""What an SM's clock gains or loses is known as a mean over so many ns, or ticks of the GPU's timer if that is longer."""


@dataclass(frozen=True)
class _Clock:
    """An SM's clock: parts of a GPU have frequencies of their own, and change them within a step.

    cycles: from `begin`. ghz: the mean frequency. knots, gains: at some cycles, the ns by which time was ahead of them.
    """

    block: BlockTrace
    ghz: float
    start_ns: float
    knots: Floats
    gains: Floats

    @staticmethod
    def of(sm: int, block: BlockTrace, first_ns: int, tick: int) -> _Clock:
        """The clock of a block, from all its events that know the GPU's timer, whose tick is `tick` ns.

        first_ns: of the timer, what times count from.
        """
        cycles = (block.align_clock - block.begin_clock) % (1 << 32)
        # the timer is behind by half a tick on average; at `align` it had just changed
        start_ns, end_ns = block.begin_ns - first_ns + tick / 2, block.align_ns - first_ns
        if (ns := block.align_ns - block.begin_ns) <= 0 or cycles == 0:
            raise TraceError(f"the clocks of SM {sm} stand still: {cycles} cycles in {ns} ns; trace again")
        ghz = cycles / max(end_ns - start_ns, 0.5)
        row = block.producer
        timed = (row.codes & np.uint32((1 << POINT_BITS) - 1)) == TIME
        since = _since_begin(block, row)[timed]
        expected = start_ns + since / ghz
        # the timer's higher bits are those of what is nearest
        period = TIMER_NS << (32 - POINT_BITS)
        low = (
            (row.codes[timed] >> np.uint32(POINT_BITS)).astype(np.float64) * TIMER_NS
            + max(tick, TIMER_NS) / 2
            - first_ns % period
        )
        gains = (low - expected + period / 2) % period - period / 2
        width = max(_KNOT_NS, _KNOT_TICKS * tick) * ghz
        bins = np.floor(since / width).astype(np.int64)
        knots = np.array([since[bins == b].mean() for b in np.unique(bins)])
        means = np.array([gains[bins == b].mean() for b in np.unique(bins)])
        # at both ends nothing is gained
        return _Clock(
            block, ghz, start_ns, np.concatenate([[0.0], knots, [cycles]]), np.concatenate([[0.0], means, [0.0]])
        )

    def times(self, row: TraceRow) -> Floats:
        """The times of a row's events in ns."""
        since = _since_begin(self.block, row)
        times = self.start_ns + since / self.ghz + np.interp(since, self.knots, self.gains)
        return np.maximum.accumulate(times) if len(times) else times


def _since_begin(block: BlockTrace, row: TraceRow) -> Floats:
    """Cycles from `begin` to each event of a row."""
    if len(row.clocks) == 0:
        return np.zeros(0)
    steps = np.diff(row.clocks).astype(np.int64)  # modulo 2^32, as the clocks are
    # the first event may lie before or after `begin`
    start = (int(row.clocks[0]) - block.begin_clock + (1 << 31)) % (1 << 32) - (1 << 31)
    return (start + np.concatenate([[0], np.cumsum(steps)])).astype(np.float64)


# ---- intervals -------------------------------------------------------------------------------------------------------


class _Owners:
    """Which operation a point belongs to."""

    def __init__(self, points: Sequence[TracePoint], operations: Sequence[str]):
        self.names: list[str] = [NO_OPERATION]
        self.of_operation = [self._number(text) for text in operations]
        self.of_point = [self._number(p.operation) if p.kind is PointKind.WORK else -1 for p in points]
        self.ends_run = np.array([p.kind is PointKind.WORK and p.text == "results" for p in points])
        # a signal is the last thing that an operation does
        self.follows = [p.kind is PointKind.WORK and p.text == "signal" for p in points]

    def _number(self, text: str) -> int:
        """The number of the one family that `text` names in a run, a stream or a fetch; -1 if there is no such one."""
        if not text.startswith(("queue.run", "task.stream", "queue.fetch")):
            return -1
        names = re.findall(r"@(\w+)", text)
        if len(names) != 1:
            return -1
        if names[0] not in self.names:
            self.names.append(names[0])
        return self.names.index(names[0])

    def of(self, points: Ints, indices: Ints) -> Ints:
        """The owners of a row's intervals: what does not say it belongs to the next one that does."""
        result = np.zeros(len(points), np.int64)
        owner, at_end = 0, len(points)
        for n in range(at_end - 1, -1, -1):
            point = int(points[n])
            if point == STAGE_READY:
                own = self.of_operation[int(indices[n])]
            else:
                own = self.of_point[point]
            if own >= 0:
                owner = own
            result[n] = owner
        previous = 0
        for n in range(at_end):
            if self.follows[int(points[n])]:
                result[n] = previous
            previous = int(result[n])
        return result


def _sm_timeline(facts: TraceFacts, block: BlockTrace, times: Floats, loads: Floats, owners: _Owners) -> SmTimeline:
    codes = block.consumers.codes.astype(np.int64)[1:]
    points, indices = codes & ((1 << POINT_BITS) - 1), codes >> POINT_BITS
    ends = times[1:]
    owned = owners.of(points, indices)
    load_codes = block.producer.codes.astype(np.int64)
    load_points = load_codes & ((1 << POINT_BITS) - 1)
    is_pushed, is_landed = (np.isin(load_points, (point, PUSHED_NEXT)) for point in (PUSHED, LANDED))
    pushed, landed = loads[is_pushed], loads[is_landed]
    fetches = load_codes[is_pushed] >> POINT_BITS
    runs = owners.ends_run[points]
    if facts.detail == "stages":
        read = ends[points == STAGE_DONE]
    else:
        read = _interpolated(facts, owners, fetches, points, owned, times)
    if not len(pushed) == len(landed) == len(read):
        raise TraceError(
            f"trace of {facts.model}: an SM started {len(pushed)} loads, saw {len(landed)} land and read {len(read)} "
            "stages; was the step stopped?"
        )
    return SmTimeline(times[:-1], ends, points, indices, owned, runs, pushed, landed, read, fetches)


def _interpolated(
    facts: TraceFacts, owners: _Owners, fetches: Ints, points: Ints, owned: Ints, times: Floats
) -> Floats:
    """When the stages were read, as if each operation's products had equally many, one after the other."""
    of_stage = np.array([owners.of_operation[int(f)] for f in fetches], np.int64)
    is_product = np.array([p.text in ("products", "attention") for p in facts.points])[points]
    read = np.zeros(len(fetches))
    for owner in np.unique(of_stage):
        stages, products = np.flatnonzero(of_stage == owner), np.flatnonzero(is_product & (owned == owner))
        if len(products) == 0:
            raise TraceError(f"trace of {facts.model}: @{owners.names[owner]} loads stages and reads none")
        part = np.arange(len(stages)) * len(products) / len(stages)
        number = part.astype(np.int64)
        start, end = times[:-1][products[number]], times[1:][products[number]]
        within = np.minimum(1.0, part - number + len(products) / len(stages))
        read[stages] = start + (end - start) * within
    return read


# ---- the ring --------------------------------------------------------------------------------------------------------


def occupancy(sm: SmTimeline) -> tuple[Floats, Ints, Ints]:
    """(times, stages that are loading, stages that have landed and are not read yet), from each time to the next.

    A load's end is what the producer saw, or the end of its reading where that was earlier.
    """
    landed = np.minimum(sm.landed, sm.read)
    one = np.ones(len(sm.pushed), np.int64)
    times = np.concatenate([sm.pushed, landed, sm.read])
    loading = np.concatenate([one, -one, 0 * one])
    ready = np.concatenate([0 * one, one, -one])
    order = np.argsort(times, kind="stable")
    return times[order], np.cumsum(loading[order]), np.cumsum(ready[order])
