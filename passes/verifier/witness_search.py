"""The search for witnesses, by the runs that decide the rules (docs/semantics.md).

To show that an access need not wait for a write, the write never completes. Of such a run only what the access itself
needs is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from ...dialects.schedule import Schedule
from .coverage import overlaps
from .execution import Items, build_items, tagged_regions
from .failures import Failure, FailureKind, Rule
from .machine import Knowledge, Machine
from .regions import collect
from .timeline import Timeline
from .unseen import UnseenSearch
from .witness import Party, Witness


def find_witness(schedule: Schedule, rule: Rule, failure: Failure, digest: str) -> Witness | None:
    """An execution that goes wrong like `failure`, or in a deadlock before it comes to that; None if none was found."""
    machine = Machine(schedule, failure.position)
    found = _FINDERS[failure.kind](machine, failure) or _deadlock(machine, failure)
    if found is None:
        return None
    orders, kind, events = found
    timeline = Timeline(schedule, (), schedule.body.sm.astype("int64"))
    return Witness(
        schedule.kernel.sym_name.data,
        digest,
        rule.value,
        kind,
        failure.position,
        tuple(Party(machine.sm[e], timeline.position(e), timeline.describe(e)) for e in events),
        failure.buffer,
        failure.box,
        failure.sm,
        failure.task,
        tuple(tuple(machine.sm[e] for e in order) for order in orders),
    )


_Found = tuple[list[list[int]], FailureKind, tuple[int, ...]] | None
"""(orders, what happens, the parties)."""


def _to_the_end(machine: Machine, failure: Failure) -> _Found:
    return [machine.execute()], failure.kind, failure.events


def _deadlock(machine: Machine, failure: Failure) -> _Found:
    """The parties are where the SMs of the failure's events stand for ever, in this execution as in any other."""
    order = machine.execute()
    done = Counter(machine.sm[e] for e in order)
    ends = {machine.sm[e]: machine.bounds[machine.sm[e]] + done[machine.sm[e]] for e in failure.events}
    stuck = tuple(e for sm, e in ends.items() if e < machine.bounds[sm + 1])
    return ([order], FailureKind.DEADLOCK, stuck) if len(order) < len(machine) else None


def _to_the_event(machine: Machine, failure: Failure) -> _Found:
    """All parties are executed; the last of them ends it."""
    order = machine.execute()
    if not set(failure.events) <= set(order):
        return None
    last = max(failure.events, key=order.index)
    return [machine.past(order[: order.index(last) + 1], failure.events)], failure.kind, failure.events


def _stream(machine: Machine, failure: Failure) -> _Found:
    """To the task that does not find its tiles; without one, to the end of the SM that leaves tiles."""
    if failure.events:
        return _to_the_event(machine, failure)
    order = machine.execute()
    low, high = machine.bounds[failure.sm], machine.bounds[failure.sm + 1]
    finished = low == high or high - 1 in order
    return ([order], failure.kind, ()) if finished else None


def _without(machine: Machine, never: int, event: int) -> list[int] | None:
    """An execution that ends in `event` and in which `never` has not completed."""
    order = machine.execute(never=never, until=event)
    return machine.past(order, [event]) if order and order[-1] == event else None


def _early_load(machine: Machine, failure: Failure) -> _Found:
    """An execution that ends in the task that streams, after the write."""
    write, other = failure.events
    order = machine.execute(never=other, until=write)
    if order[-1:] != [write]:
        return None
    order = machine.execute(order, until=other)
    return ([machine.past(order, [write, other])], failure.kind, failure.events) if order[-1] == other else None


def _unseen(machine: Machine, write: int, other: int) -> _Found:
    """`other` comes after `write` without seeing it."""
    order = UnseenSearch(_items(machine)).find(write, other)
    if order is None:
        return None
    for candidate in (machine.past(order, [write, other]), order):
        known = Knowledge(machine)
        for event in candidate[:-1]:
            known.complete(event)
        if not known.sees(machine.sm[other], write):
            return [candidate], FailureKind.UNSEEN_WRITE, (write, other)
    return None


def _items(machine: Machine) -> Items:
    """The items of a schedule whose tasks run once each, at the machine's position."""
    timeline = Timeline.of(machine.schedule)
    tokens = machine.schedule.kernel.tokens.value.data
    found = [overlaps(a, machine.position, tokens) for a in collect(timeline) if a.tagged]
    return build_items(timeline, tagged_regions(timeline, found))


def _unseen_write(machine: Machine, failure: Failure) -> _Found:
    write, other = failure.events
    if write == other:
        return _to_the_event(machine, failure)
    if (order := _without(machine, write, other)) is not None:
        return [order], failure.kind, failure.events
    return _unseen(machine, write, other)


def _unordered(machine: Machine, failure: Failure) -> _Found:
    write, other = failure.events
    other_first = _without(machine, write, other)
    if other_first is None:  # the write comes first in every execution, but the other need not see it
        return _unseen(machine, write, other)
    # the same, with the write just before the other
    write_first = machine.execute(other_first[:-1], never=other, until=write)
    if write_first[-1:] != [write]:
        return _unseen(machine, other, write)
    orders = [machine.execute(other_first, until=write), [*write_first, other]]
    return [machine.past(order, [write, other]) for order in orders], failure.kind, failure.events


_FINDERS: Mapping[FailureKind, Callable[[Machine, Failure], _Found]] = {
    FailureKind.DEADLOCK: _deadlock,
    FailureKind.EARLY_LOAD: _early_load,
    FailureKind.MISSING_TASK: _to_the_end,
    FailureKind.REPEATED_TASK: _to_the_event,
    FailureKind.REWRITE: _to_the_event,
    FailureKind.STREAM: _stream,
    FailureKind.UNORDERED: _unordered,
    FailureKind.UNSEEN_WRITE: _unseen_write,
    FailureKind.UNWRITTEN_OUTPUT: _to_the_end,
    FailureKind.UNWRITTEN_READ: _to_the_event,
}
