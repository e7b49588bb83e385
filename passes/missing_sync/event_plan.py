"""Edges of an explicit kernel, in which every operation is one event: as few waits and signals as order them.

Events are looked at in the order of the legal execution. One that lacks edges takes, latest first, what it does not
know to have happened by then: from a counter that the schedule has already if that tells of it, else by an edge of its
own. So what is added is transitively reduced. Events that lack the same edges share the signals.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...dialects import queue
from ...dialects.schedule import EventKind, Schedule
from ..names import NameTable, join_names
from ..verifier.arrays import Ints
from .conflicts import Missing
from .edit import Edit
from .knowledge import Knowledge, Row


def is_explicit(schedule: Schedule) -> bool:
    """Whether every program is for one SM, which executes each of its operations once."""
    one_sm = all(len(program.sms) == 1 for program in schedule.kernel.programs)
    return one_sm and len(np.unique(schedule.body.op)) == len(schedule.body)


def places_in_queue(schedule: Schedule) -> Ints:
    """The place of every event in its SM's queue: the rank of events of an explicit kernel for `find_missing`."""
    return np.arange(len(schedule.body)) - schedule.body.bounds[schedule.body.sm]


def plan_events(missing: Missing) -> Edit:
    """The waits and signals that order all missing edges of an explicit kernel."""
    return _Plan(missing).edit()


@dataclass(frozen=True)
class _Need:
    """An event that has to come first. relation: 0 if it has to be seen, 1 if not; as in `Clocks`."""

    event: int
    relation: int


@dataclass(frozen=True)
class _Source:
    """What a wait tells of: all signals of a present counter, or one event (counter = -1)."""

    event: int
    counter: int = -1


@dataclass
class _Group:
    """An element of a new counter, signalled after each of `events`. users: who waits for it, and what they know."""

    events: list[int]
    users: list[tuple[int, Row]] = field(default_factory=list[tuple[int, Row]])


class _Plan:
    def __init__(self, missing: Missing):
        self.timeline = missing.timeline
        self.schedule = missing.timeline.schedule
        self.sm: list[int] = missing.timeline.sm.tolist()
        self.place: list[int] = missing.place.tolist()
        self.knowledge = Knowledge(missing.clocks)
        self.present = _PresentCounters(missing)
        self.groups: list[_Group] = []
        self.groups_of: defaultdict[int, list[_Group]] = defaultdict(list)
        self.old_waits: list[tuple[int, int]] = []
        needs: defaultdict[int, list[_Need]] = defaultdict(list)
        for first, then, sight in zip(
            missing.first.tolist(), missing.then.tolist(), missing.sight.tolist(), strict=True
        ):
            needs[then].append(_Need(first, 0 if sight else 1))
        for event in sorted(needs, key=self.place.__getitem__):
            self._order(event, sorted(needs[event], key=lambda n: -self.place[n.event]))

    def _order(self, event: int, needs: Sequence[_Need]) -> None:
        """Chooses what `event` waits for; `needs` are sorted, the latest first."""
        before = self.knowledge.before(event)
        known, chosen = before, list[_Source]()
        for need in needs:
            if not self._met(need, known):
                source = _Source(need.event, self.present.find(need.event, self.place[event]))
                chosen.append(source)
                known = np.maximum(known, self._tells(source))
        if any(s.counter >= 0 for s in chosen):
            # a present counter may tell of more than it was chosen for
            for source in tuple(chosen):
                without = self._known(before, (s for s in chosen if s is not source))
                if all(self._met(need, without) for need in needs):
                    chosen.remove(source)
        if not chosen:
            return
        known = self._known(before, chosen)
        self.knowledge.add(event, known)
        self.old_waits += [(event, s.counter) for s in chosen if s.counter >= 0]
        if own := [s.event for s in chosen if s.counter < 0]:
            group = self._group(own, known)
            group.users.append((event, known))
            for source in group.events:
                if group not in self.groups_of[source]:
                    self.groups_of[source].append(group)

    def _met(self, need: _Need, known: Row) -> bool:
        return bool(known[need.relation, self.sm[need.event]] > need.event)

    def _known(self, before: Row, sources: Iterable[_Source]) -> Row:
        for source in sources:
            before = np.maximum(before, self._tells(source))
        return before

    def _tells(self, source: _Source) -> Row:
        if source.counter < 0:
            return self.knowledge.after(source.event)
        return self.present.tells(source.counter, self.knowledge)

    def _group(self, events: list[int], known: Row) -> _Group:
        """A group with these events, which nobody who knows them (or is in it already) waits any longer for."""
        for group in (g for e in events for g in self.groups_of[e]):
            more = [e for e in events if e not in group.events]
            sms = [self.sm[e] for e in (*group.events, *more)]
            if all(self._met(_Need(e, 0), known) for e in group.events) and (
                not more
                or (
                    len(set(sms)) == len(sms)
                    and all(self._met(_Need(e, 0), row) for _, row in group.users for e in more)
                )
            ):
                group.events += more
                return group
        self.groups.append(group := _Group(list(events)))
        return group

    def edit(self) -> Edit:
        kernel = self.schedule.kernel
        edit = Edit(kernel)
        names = NameTable({*kernel.buffers, *kernel.families, *kernel.counters})
        by_name: defaultdict[str, list[_Group]] = defaultdict(list)
        for group in self.groups:
            events = sorted(group.events, key=self.place.__getitem__)
            families = [self.schedule.families[int(self.schedule.body.ref[e])].sym_name.data for e in events]
            by_name[f"{join_names(tuple(dict.fromkeys(families)))}_done"].append(group)
        waits = [(event, *self.schedule.counters[counter]) for event, counter in self.old_waits]
        signals: list[tuple[int, str, int]] = []
        for base, groups in by_name.items():
            name = names.unique(base)
            edit.counters.append(queue.CounterOp(name, len(groups)))
            for element, group in enumerate(groups):
                signals += [(event, name, element) for event in group.events]
                waits += [(event, name, element) for event, _ in group.users]
        # in the order of the programs, as a reader of the result meets them
        edit.waits = [(self.timeline.op(e), queue.WaitOp(name, i)) for e, name, i in sorted(waits)]
        edit.signals = [(self.timeline.op(e), queue.SignalOp(name, i)) for e, name, i in sorted(signals)]
        return edit


class _PresentCounters:
    """The counters that the schedule has, waited for as a whole.

    One tells of an event if its SM signals it before it waits again: so it is about the same phase. All of its
    signals have to come before whoever waits, in the legal execution.
    """

    def __init__(self, missing: Missing):
        body = missing.timeline.schedule.body
        self.sm, self.bounds = missing.timeline.sm, body.bounds
        self.ref, self.kind = body.ref, body.kind
        self.signals = np.flatnonzero(body.kind == EventKind.SIGNAL)
        self.waits = np.flatnonzero(body.kind == EventKind.WAIT)
        self.complete = np.full(len(missing.timeline.schedule.counters), -1, np.int64)
        np.maximum.at(self.complete, body.ref[self.signals], missing.place[self.signals])
        self._tells: dict[int, Row] = {}

    def find(self, event: int, place: int) -> int:
        """A counter that tells of `event` and is complete before `place`: the one that is so first; -1 if none is."""
        end = int(self.bounds[self.sm[event] + 1])
        if (wait := int(np.searchsorted(self.waits, event))) < len(self.waits):
            end = min(end, int(self.waits[wait]))
        low, high = np.searchsorted(self.signals, [event, end])
        counters = self.ref[self.signals[low:high]]
        counters = counters[self.complete[counters] < place]
        return int(counters[np.argmin(self.complete[counters])]) if len(counters) else -1

    def tells(self, counter: int, knowledge: Knowledge) -> Row:
        """What all signals of a complete counter tell together."""
        if (row := self._tells.get(counter)) is None:
            told = [knowledge.after(int(e)) for e in self.signals[self.ref[self.signals] == counter]]
            row = self._tells[counter] = np.maximum.reduce(told)
        return row
