"""Executions event by event: what `witness` searches and a replay follows. Slow and plain, for one schedule at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from ...amk_ir.linear import POSITION
from ...dialects.schedule import EventKind, Schedule
from .arrangement import TooLargeError
from .arrays import Ints
from .failures import Box

Words = tuple[str, Box]
"""A box of a buffer."""


def elements(box: Box) -> tuple[Any, ...]:
    """A box as an index of an array, whose result is a view even without dimensions."""
    return (*(slice(a, b) for a, b in box), ...)


MAX_WORDS = 1 << 26
"""Tagged words whose writers are kept track of, 8 bytes each."""


class Machine:
    """A schedule at one position. Events are numbered as in `Schedule.body`.

    TooLargeError: it has too many tagged words to keep track of.
    """

    def __init__(self, schedule: Schedule, position: int):
        self.schedule = schedule
        self.position = position
        body = schedule.body
        self.kind, self.ref, self.arg = body.kind.tolist(), body.ref.tolist(), body.arg.tolist()
        self.bounds: list[int] = body.bounds.tolist()
        self.sm: list[int] = body.sm.tolist()
        self.tagged = {name: op.shape for name, op in schedule.kernel.buffers.items() if op.tagged is not None}
        if sum(prod(shape) for shape in self.tagged.values()) > MAX_WORDS:
            raise TooLargeError
        self._tagged_accesses: dict[tuple[int, bool], tuple[tuple[str, Box], ...]] = {}
        self._polls = [any(op.region.buffer in self.tagged for op in f.loads) for f in schedule.families]
        self._tells = [any(op.region.buffer in self.tagged for op in f.stores) for f in schedule.families]

    def __len__(self) -> int:
        return len(self.kind)

    def accesses(self, event: int, reads: bool) -> Iterator[tuple[str, Box]]:
        """(buffer, box) of each load or store of the task of an event."""
        family = self.schedule.families[self.ref[event]]
        indices = {**self.schedule.task_indices(self.ref[event], self.arg[event]), POSITION: self.position}
        for op in family.loads if reads else family.stores:
            yield op.region.buffer, op.region.box(indices)

    def tagged_words(self, event: int, reads: bool) -> tuple[tuple[str, Box], ...]:
        """Those of tagged buffers."""
        if not (self._polls if reads else self._tells)[self.ref[event]]:
            return ()
        if (found := self._tagged_accesses.get((event, reads))) is None:
            found = tuple(a for a in self.accesses(event, reads) if a[0] in self.tagged)
            self._tagged_accesses[event, reads] = found
        return found

    def execute(self, first: Sequence[int] = (), never: int = -1, until: int = -1) -> list[int]:
        """The events of a greedy run in order: those of `first` (a legal beginning), then whatever can be executed.

        The event `never` does not complete; the run ends after the event `until`.
        """
        state = State(self)
        for event in first:
            state.complete(event)
        order = list(first)
        on_counter: dict[tuple[int, int], list[int]] = {}
        on_words: dict[Words, list[int]] = {}
        ready = list(range(self.schedule.num_sms))
        while ready:
            sm = ready.pop()
            while (event := state.at[sm]) < self.bounds[sm + 1] and event != never:
                if (obstacle := state.obstacle(event)) is not None:
                    if isinstance(obstacle, int):
                        on_counter.setdefault((self.ref[event], obstacle), []).append(sm)
                    else:
                        on_words.setdefault(obstacle, []).append(sm)
                    break
                state.complete(event)
                order.append(event)
                if event == until:
                    return order
                if self.kind[event] == EventKind.SIGNAL:
                    ready += on_counter.pop((self.ref[event], state.counters[self.ref[event]]), ())
                elif on_words and self.kind[event] == EventKind.RUN and self.tagged_words(event, False):
                    for words in [w for w in on_words if not state.missing(w)]:
                        ready += on_words.pop(words)
        return order

    def past(self, order: Sequence[int], targets: Sequence[int]) -> list[int]:
        """The part of an execution that its events `targets` need, themselves included, in the same order."""
        signals: dict[int, list[int]] = {}
        writer = State(self)
        for event in order:
            if self.kind[event] == EventKind.SIGNAL:
                signals.setdefault(self.ref[event], []).append(event)
            writer.complete(event)
        upto = self.bounds[:-1].copy()  # of each SM: the first event that is not needed
        todo = list(targets)
        followed: set[Words | tuple[int, int]] = set()  # many events wait for the same
        while todo:
            event = todo.pop()
            sm = self.sm[event]
            fresh = range(upto[sm], event + 1)
            upto[sm] = max(upto[sm], event + 1)
            for e in fresh:
                if self.kind[e] == EventKind.WAIT and (wait := (self.ref[e], self.arg[e])) not in followed:
                    followed.add(wait)
                    todo += signals.get(self.ref[e], [])[: self.arg[e]]
                elif self.kind[e] == EventKind.RUN:
                    for words in self.tagged_words(e, True):
                        if words not in followed:
                            followed.add(words)
                            todo += np.unique(writer.writers[words[0]][elements(words[1])]).tolist()
        return [e for e in order if e < upto[self.sm[e]]]


class State:
    """How far a step has come."""

    def __init__(self, machine: Machine):
        self.machine = machine
        self.at = machine.bounds[:-1].copy()
        self.counters = [0] * len(machine.schedule.counters)
        self.writers: dict[str, Ints] = {n: np.full(shape, -1, np.int64) for n, shape in machine.tagged.items()}
        self._missing: dict[str, dict[Box, int]] = {n: {} for n in machine.tagged}

    def obstacle(self, event: int) -> int | Words | None:
        """What an event waits for: a value of its counter or tagged words; None if it can be executed."""
        m = self.machine
        if m.kind[event] == EventKind.WAIT:
            return m.arg[event] if self.counters[m.ref[event]] < m.arg[event] else None
        if m.kind[event] == EventKind.RUN:
            return next((words for words in m.tagged_words(event, True) if self.missing(words)), None)
        return None

    def missing(self, words: Words) -> int:
        """How many of some tagged words are not written yet; counted once, then kept up to date."""
        buffer, box = words
        if (count := self._missing[buffer].get(box)) is None:
            count = self._missing[buffer][box] = int((self.writers[buffer][elements(box)] < 0).sum())
        return count

    def complete(self, event: int) -> None:
        """The event, the next one of its SM, completes."""
        m = self.machine
        self.at[m.sm[event]] = event + 1
        if m.kind[event] == EventKind.SIGNAL:
            self.counters[m.ref[event]] += 1
        elif m.kind[event] == EventKind.RUN:
            for buffer, box in m.tagged_words(event, False):
                counts = self._missing[buffer]
                for other, count in counts.items():
                    if count:
                        shared = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(box, other, strict=True))
                        if all(low < high for low, high in shared):
                            counts[other] -= int((self.writers[buffer][elements(shared)] < 0).sum())
                view = self.writers[buffer][elements(box)]
                view[view < 0] = event


class Knowledge:
    """What each SM has certainly seen, if every wait observes as few signals as it may (docs/semantics.md, "sees").

    A row holds for each SM the first of its events that is not known, then for each counter how many of its first
    signals are.
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        self.sms = machine.schedule.num_sms
        empty = np.array([*machine.bounds[:-1], *(0 for _ in machine.schedule.counters)], np.int64)
        self.rows = [empty.copy() for _ in range(self.sms)]
        self.heard: list[list[Ints]] = [[] for _ in machine.schedule.counters]
        """For each counter and k: what the first k + 1 signals tell together."""

    def complete(self, event: int) -> None:
        """The event, the next one of its SM, completes."""
        m = self.machine
        sm, counter = m.sm[event], m.ref[event]
        row = self.rows[sm]
        if m.kind[event] == EventKind.WAIT and (news := self._observed(event)) is not None:
            np.maximum(row, news, out=row)
        row[sm] = event + 1
        if m.kind[event] == EventKind.SIGNAL:
            told = self.heard[counter]
            row[self.sms + counter] = len(told) + 1
            told.append(np.maximum(told[-1], row) if told else row.copy())

    def _observed(self, event: int) -> Ints | None:
        m = self.machine
        counter = m.ref[event]
        count = max(m.arg[event], int(self.rows[m.sm[event]][self.sms + counter]))
        return self.heard[counter][count - 1] if count else None

    def sees(self, sm: int, event: int) -> bool:
        """Whether an SM has certainly seen an event by now."""
        return event < self.rows[sm][self.machine.sm[event]]
