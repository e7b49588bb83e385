"""Races and deadlocks told so that a person can act on them: how an execution goes wrong, and which edge is missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...amk_ir.attrs import BufferKind
from ...amk_ir.linear import POSITION
from ...dialects.schedule import EventKind
from .coverage import Overlaps, intersection, region_text
from .diagnostics import Diagnostic, plural
from .execution import ItemKind, Items, Run, run
from .failures import Failure, FailureKind, Rule


@dataclass(frozen=True)
class Conflict:
    """Two events that access the same elements without an order: a write and a read or another write."""

    overlap: Overlaps
    reads: bool
    write: int
    other: int
    write_region: int
    other_region: int
    occurrences: int


def explain_race(items: Items, conflict: Conflict) -> Diagnostic:
    """The diagnostic of a race."""
    timeline = items.timeline
    accesses, position = conflict.overlap.accesses, conflict.overlap.position
    write, other = conflict.write, conflict.other
    written = region_text(accesses.writes, conflict.write_region, position)
    touched = region_text(accesses.reads if conflict.reads else accesses.writes, conflict.other_region, position)
    streams = conflict.reads and bool(accesses.reads.streamed[conflict.other_region])
    verb = "streams" if streams else "reads" if conflict.reads else "writes"
    if write == other:
        message = f"task {timeline.task(write)} ({timeline.place(write)}) writes {written} and itself {verb} {touched}"
        if conflict.reads:
            execution = "a task reads all that it reads before it writes"
            remedy = "read in a second task, which runs after this one"
        else:
            execution = "the writes of a task have no order among each other"
            remedy = "shrink one of the two stores, or write in a second task, which runs after this one"
    else:
        missing = "nothing makes the reader see the write" if conflict.reads else "nothing orders the two"
        backwards = False
        if streams:
            missing = "nothing makes the write come after that task"
        elif timeline.sm[write] == timeline.sm[other]:
            missing = "the read comes first"
        elif (backwards := _always_first(items, other, write)) and conflict.reads:
            missing = "in every execution the read comes first"
        message = (
            f"task {timeline.task(write)} ({timeline.place(write)}) writes {written}, "
            f"task {timeline.task(other)} ({timeline.place(other)}) {verb} {touched}, and {missing}"
        )
        if streams:
            execution = (
                f"the ring may load the tile at the beginning of the step, or not until SM {timeline.sm[other]} comes to "
                f"task {timeline.task(other)}: before the write or after it, whatever is waited for"
            )
            remedy = "load the region instead of streaming it, or order the write after the task that streams"
        elif backwards and conflict.reads:
            execution = (
                f"SM {timeline.sm[write]} never comes to task {timeline.task(write)} unless task {timeline.task(other)} "
                "has run: its waits need what follows from that task"
            )
            remedy = (
                f"move task {timeline.task(other)} behind the write, or task {timeline.task(write)} ahead of what waits "
                "for the read: a wait for the write would be a deadlock"
            )
        elif backwards:
            execution, remedy = _order_missing(items, other, write)
        else:
            execution, remedy = _order_missing(items, write, other)
        if (
            conflict.reads
            and not streams
            and accesses.kind is BufferKind.STATE
            and timeline.sm[write] != timeline.sm[other]
        ):
            remedy += "; or the other way round, if the task reads what earlier steps wrote"
    return Diagnostic(
        Rule.RACE,
        message,
        remedy,
        execution,
        ops=(timeline.op(write), timeline.op(other)),
        sms=(int(timeline.sm[write]), int(timeline.sm[other])),
        tasks=(timeline.task(write), timeline.task(other)),
        regions=(written, touched),
        occurrences=conflict.occurrences,
        failure=_failure(conflict, streams),
    )


def _failure(conflict: Conflict, streams: bool) -> Failure:
    accesses, position = conflict.overlap.accesses, conflict.overlap.position
    others = accesses.reads if conflict.reads else accesses.writes
    if accesses.kind is not BufferKind.STATE:
        kind = FailureKind.UNSEEN_WRITE
    elif streams:
        kind = FailureKind.EARLY_LOAD
    else:
        kind = FailureKind.REWRITE if conflict.write == conflict.other else FailureKind.UNORDERED
    shared = intersection(
        accesses.writes.access(conflict.write_region).box({POSITION: position}),
        others.access(conflict.other_region).box({POSITION: position}),
    )
    return Failure(kind, position, (conflict.write, conflict.other), accesses.name, shared)


def _always_first(items: Items, first: int, then: int) -> bool:
    """Whether `first` completes before `then`, on another SM, in every execution."""
    return then >= int(run(items, first).reached[items.timeline.sm[then]])


def _order_missing(items: Items, write: int, other: int) -> tuple[str, str]:
    """How `other` gets ahead of `write`, and which edge would prevent it."""
    timeline = items.timeline
    body, sms = timeline.schedule.body, timeline.sm
    writer_sm, other_sm = int(sms[write]), int(sms[other])
    before, after = f"task {timeline.task(write)}", f"task {timeline.task(other)}"
    if writer_sm == other_sm:
        return (
            f"SM {writer_sm} executes its queue in order, {after} before {before}",
            f"move {before} before {after} in the queue of SM {writer_sm}",
        )
    if other < run(items, write).reached[other_sm]:
        execution = (
            f"SM {other_sm} comes to {after} while SM {writer_sm} is still before {before}: nothing that SM {other_sm} "
            "waits for until then needs it"
        )
    else:
        execution = (
            f"SM {other_sm} runs {after} after {before}, but only tagged words see to that: they make themselves "
            "visible, not what the same SM wrote to other buffers"
        )
    # An edge that helps: from a signal after the write to a wait before the other, without a cycle.
    counters = timeline.schedule.signals
    reached = run(items, other).reached
    signals = [
        e
        for e in range(write, int(body.bounds[writer_sm + 1]))
        if body.kind[e] == EventKind.SIGNAL and e < reached[writer_sm]
    ]
    signalled = {int(body.ref[e]) for e in signals}
    for e in range(other, int(body.bounds[other_sm]) - 1, -1):
        counter = int(body.ref[e])
        if body.kind[e] == EventKind.WAIT and counter in signalled and int(body.arg[e]) < counters[counter]:
            alone = run(items, e)  # the signals that come without this wait, and so can be waited for
            if any(int(body.ref[s]) == counter and s < alone.reached[writer_sm] for s in signals):
                return execution, (
                    f"raise the threshold of `{timeline.describe(e)}` on SM {other_sm} to {alone.counters[counter]}: "
                    f"SM {writer_sm} signals {timeline.schedule.counter_name(counter)} after the write"
                )
    for e in signals:
        counter = int(body.ref[e])
        everyone = np.flatnonzero((body.kind == EventKind.SIGNAL) & (body.ref == counter))
        if (everyone < reached[sms[everyone]]).all():
            name = timeline.schedule.counter_name(counter)
            return execution, (
                f"put `queue.wait {name} all` on SM {other_sm} before {after}: SM {writer_sm} signals {name} after the "
                "write"
            )
    return execution, (
        f"signal a counter of its own on SM {writer_sm} after {before}, and wait for it on SM {other_sm} before {after}"
    )


def explain_deadlock(end: Run, position: int) -> Diagnostic:
    """Why a run of a step at `position` that is over has not completed every queue: who is blocked on whom, up to a cycle or a dead end."""
    items, timeline = end.items, end.items.timeline
    chain: list[int] = []
    steps: list[str] = []
    dead_end = remedy = ""
    sm = end.blocked[0]
    while sm not in chain:
        chain.append(sm)
        item = end.stuck[sm]
        where = f"SM {sm} stands at {_state(end, item)}"
        provider = _missing_event(end, item)
        if provider is None:
            dead_end, remedy = _dead_end(end, item)
            steps.append(f"{where}, but {dead_end}")
            break
        steps.append(f"{where}, and misses {timeline.describe(provider)} ({timeline.place(provider)})")
        sm = int(timeline.sm[provider])
    else:
        first = chain.index(sm)
        chain, steps = chain[first:], steps[first:]
    if dead_end:
        chain, message = chain[-1:], f"SM {chain[-1]} waits for ever: {dead_end}"
    elif len(chain) == 1:
        message = f"SM {chain[0]} waits for an event that comes later in its own queue"
        item = end.stuck[chain[0]]
        provider = _missing_event(end, item)
        assert provider is not None  # it stands on this SM, or the chain would not end here
        remedy = (
            f"in the queue of SM {chain[0]}, move {timeline.describe(provider)} before "
            f"{timeline.describe(items.event[item])}"
        )
    else:
        message = f"SMs {', '.join(map(str, chain))} wait for each other in a cycle"
        remedy = "move one of the missing events before the wait that holds it up, or remove that wait"
    blocked = [items.event[end.stuck[s]] for s in chain]
    return Diagnostic(
        Rule.DEADLOCK,
        f"{message}; {len(end.blocked)} of {timeline.num_sms} SMs never finish",
        remedy,
        execution="; ".join(steps),
        ops=tuple(timeline.op(e) for e in blocked),
        sms=tuple(chain),
        tasks=tuple(timeline.task(e) for e in blocked if timeline.schedule.body.kind[e] == EventKind.RUN),
        failure=Failure(FailureKind.DEADLOCK, position, tuple(blocked)),
    )


def _dead_end(end: Run, item: int) -> tuple[str, str]:
    """What an item waits for that never comes, and what to change."""
    items, timeline = end.items, end.items.timeline
    ref = items.ref[item]
    if items.kind[item] != ItemKind.WAIT:
        overlap, region = items.tagged.names[ref]
        words = region_text(overlap.accesses.reads, region, overlap.position)
        return f"no task writes all of the words {words}", "let a task write all of them, or shrink the load"
    total, name = int(timeline.schedule.signals[ref]), timeline.schedule.counter_name(ref)
    missing = f"add {plural(items.arg[item] - total, 'signal')} of {name}"
    if not total:
        return f"no queue signals {name}", f"{missing}, or remove the wait"
    return f"a step has only {plural(total, 'signal')} of {name}", f"{missing}, or lower the threshold to {total}"


def _state(end: Run, item: int) -> str:
    """The blocked item and what it has so far."""
    items, timeline = end.items, end.items.timeline
    event, ref = items.event[item], items.ref[item]
    place = timeline.position(event)
    if items.kind[item] == ItemKind.WAIT:
        return f"`{timeline.describe(event)}` (event {place}) with {plural(end.counters[ref], 'signal')}"
    overlap, region = items.tagged.names[ref]
    words = region_text(overlap.accesses.reads, region, overlap.position)
    return f"{timeline.describe(event)} (event {place}), polling the tagged words {words}"


def _missing_event(end: Run, item: int) -> int | None:
    """An event, not executed yet, that the item at which an SM is stuck is waiting for; None if there is none."""
    items = end.items
    ref = items.ref[item]
    if items.kind[item] == ItemKind.WAIT:
        if items.arg[item] > items.timeline.schedule.signals[ref]:
            return None
        wanted = ItemKind.SIGNAL
    else:
        if ref in items.tagged.impossible:
            return None
        wanted = ItemKind.DONE
    for sm in end.blocked:
        for i in range(end.stuck[sm], items.bounds[sm + 1]):
            if items.kind[i] == wanted and items.ref[i] == ref:
                return items.event[i]
    return None
