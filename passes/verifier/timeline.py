"""Where every task of a schedule runs: the numbering of events that the whole verifier shares.

An *event* is an entry of `Schedule.body`: events of one SM are numbered consecutively in program order, so a number
says both which SM an event belongs to and where it stands there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...dialects.schedule import EventKind, Events, Schedule
from .arrays import Ints, distinct
from .diagnostics import Diagnostic, plural
from .failures import Failure, FailureKind, Rule


@dataclass(frozen=True)
class Timeline:
    """Built, the event of every task (meaningful once `check_tasks` found nothing).

    sm: the SM of every event.
    """

    schedule: Schedule
    events: tuple[Ints, ...]
    sm: Ints

    @staticmethod
    def of(schedule: Schedule) -> Timeline:
        body = schedule.body
        runs = np.flatnonzero(body.kind == EventKind.RUN)
        events: list[Ints] = []
        for number, family in enumerate(schedule.families):
            mine = runs[body.ref[runs] == number]
            where = np.empty(family.domain.size, np.int64)
            where[body.arg[mine]] = mine
            events.append(where)
        return Timeline(schedule, tuple(events), body.sm.astype(np.int64))

    @property
    def num_sms(self) -> int:
        return self.schedule.num_sms

    def position(self, event: int) -> int:
        """Place of an event in its SM's queue, from 0."""
        return event - int(self.schedule.body.bounds[self.sm[event]])

    def task(self, event: int) -> str:
        """`@family[i, j]` of a run."""
        body = self.schedule.body
        return self.schedule.task_name(int(body.ref[event]), int(body.arg[event]))

    def describe(self, event: int) -> str:
        """An event as a reader of the schedule knows it: a task by name, a wait or signal with its numbers."""
        body = self.schedule.body
        match int(body.kind[event]):
            case EventKind.RUN:
                return f"task {self.task(event)}"
            case EventKind.WAIT:
                counter = int(body.ref[event])
                threshold, total = int(body.arg[event]), int(self.schedule.signals[counter])
                return f"queue.wait {self.schedule.counter_name(counter)} >= {threshold} (of {total})"
            case _:
                return f"queue.signal {self.schedule.counter_name(int(body.ref[event]))}"

    def op(self, event: int):
        """The IR operation that the event comes from."""
        return self.schedule.ops[int(self.schedule.body.op[event])]

    def place(self, event: int) -> str:
        """`SM 3, event 17`."""
        return f"SM {int(self.sm[event])}, event {self.position(event)}"


def check_tasks(schedule: Schedule) -> Iterator[Diagnostic]:
    """Every task of every family runs exactly once in a step. Needs memory for the events, not for the domains."""
    body = schedule.body
    runs = np.flatnonzero(body.kind == EventKind.RUN)
    sm = body.sm
    for number, family in enumerate(schedule.families):
        name, size = family.sym_name.data, family.domain.size
        mine = runs[body.ref[runs] == number]
        tasks = body.arg[mine].astype(np.int64)
        ran = distinct(tasks)
        if len(ran) < size:
            # the first number that is not there
            gap = int(np.flatnonzero(np.append(ran, -1) != np.arange(len(ran) + 1))[0])
            task = schedule.task_name(number, gap)
            yield Diagnostic(
                Rule.TASKS,
                f"task {task} never runs: no queue holds {size - len(ran)} of the {plural(size, 'task')} of @{name}",
                f"add a queue.run of {task} to the body of one SM, or shrink the domain of @{name}",
                ops=(family,),
                tasks=(task,),
                occurrences=size - len(ran),
                failure=Failure(FailureKind.MISSING_TASK, task=task),
            )
        if len(ran) < len(tasks):
            order = np.argsort(tasks, kind="stable")
            again = np.flatnonzero(tasks[order][1:] == tasks[order][:-1])
            events = [int(mine[order[again[0]]]), int(mine[order[again[0] + 1]])]
            task = schedule.task_name(number, int(body.arg[events[0]]))
            places = [f"SM {int(sm[e])}, event {e - int(body.bounds[sm[e]])}" for e in events]
            yield Diagnostic(
                Rule.TASKS,
                f"task {task} runs more than once in a step: {places[0]} and {places[1]}",
                "delete all but one of its queue.run operations",
                ops=tuple(schedule.ops[int(body.op[e])] for e in events),
                sms=tuple(int(sm[e]) for e in events),
                tasks=(task,),
                occurrences=len(distinct(tasks[order][1:][again])),
                failure=Failure(FailureKind.REPEATED_TASK, events=tuple(events)),
            )


def check_stream(timeline: Timeline) -> Iterator[Diagnostic]:
    """Each SM fetches exactly the tiles that its tasks consume, in the order of consumption, into a ring that exists."""
    schedule = timeline.schedule
    streams = np.array([bool(f.streams) for f in schedule.families] or [False])
    body, stream = schedule.body, schedule.stream
    if not streams.any() and not len(stream):
        return
    consumed = np.flatnonzero((body.kind == EventKind.RUN) & streams[np.where(body.kind == EventKind.RUN, body.ref, 0)])
    if len(consumed) and schedule.kernel.ring is None:
        yield Diagnostic(
            Rule.STREAM,
            f"the kernel has no weight ring, but task {timeline.task(int(consumed[0]))} takes tiles from one",
            "run plan-stream, or give the kernel one, such as ring #amk.ring<stages = 4, bytes = 16384, in_flight = 2>",
            ops=(schedule.kernel,),
            tasks=(timeline.task(int(consumed[0])),),
        )
    wrong = _different_sms(body, consumed, stream, timeline)
    if wrong:
        expected, found, where = _first_difference(timeline, consumed, wrong[0])
        mine = consumed[timeline.sm[consumed] == wrong[0]]
        consumer = (int(mine[where]),) if where < len(mine) else ()
        yield Diagnostic(
            Rule.STREAM,
            f"{_fetch_and_consumer(wrong[0], where, found, expected)}: tiles leave the ring in the order in which they "
            "entered it",
            f"make the stream of SM {wrong[0]} fetch the tasks of its body that stream, in the order in which they run",
            execution=f"SM {wrong[0]} computes with the weights of another task, or waits for a tile that never comes",
            sms=tuple(wrong[:8]),
            tasks=tuple(t for t in (expected, found) if t),
            occurrences=len(wrong),
            # without a ring, tiles come straight from memory: nothing to show
            failure=None if schedule.kernel.ring is None else Failure(FailureKind.STREAM, events=consumer, sm=wrong[0]),
        )


def _fetch_and_consumer(sm: int, place: int, found: str, expected: str) -> str:
    if not found:
        return f"SM {sm} has no fetch {place}, but its body consumes {expected} there"
    consumed = f"consumes {expected} there" if expected else "consumes nothing any more"
    return f"fetch {place} of SM {sm} is {found}, but its body {consumed}"


def _different_sms(body: Events, consumed: Ints, stream: Events, timeline: Timeline) -> list[int]:
    sms = np.arange(timeline.num_sms + 1)
    consumed_bounds = np.searchsorted(timeline.sm[consumed], sms)
    if np.array_equal(consumed_bounds, stream.bounds) and np.array_equal(
        (body.ref[consumed], body.arg[consumed]), (stream.ref, stream.arg)
    ):
        return []
    return [sm for sm in range(timeline.num_sms) if _first_difference(timeline, consumed, sm)[2] >= 0]


def _first_difference(timeline: Timeline, consumed: Ints, sm: int) -> tuple[str, str, int]:
    """(task consumed, task fetched, place) where the two first differ on an SM, "" for none; place -1 if they never do."""
    schedule = timeline.schedule
    low, high = np.searchsorted(timeline.sm[consumed], [sm, sm + 1])
    mine = consumed[low:high]
    wanted = list(zip(schedule.body.ref[mine].tolist(), schedule.body.arg[mine].tolist(), strict=True))
    entries = schedule.stream.range(sm)
    part = slice(entries.start, entries.stop)
    fetched = list(zip(schedule.stream.ref[part].tolist(), schedule.stream.arg[part].tolist(), strict=True))
    for place in range(max(len(wanted), len(fetched))):
        expected = wanted[place] if place < len(wanted) else None
        found = fetched[place] if place < len(fetched) else None
        if expected != found:
            names = [schedule.task_name(*t) if t is not None else "" for t in (expected, found)]
            return names[0], names[1], place
    return "", "", -1
