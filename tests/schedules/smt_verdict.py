"""The verdict of docs/semantics.md on a schedule, element by element and position by position, with z3 for the order."""

from __future__ import annotations

import itertools
import re
from collections import Counter

from .small_kernels import Kernel
from .smt import At, Executions

Element = tuple[str, tuple[int, ...]]


class SmtOracle:
    """Decides a kernel.

    problem: why it is unsafe, a rule and then position, events and elements; or None.
    """

    def __init__(self, kernel: Kernel):
        self.kernel = kernel
        self.runs: list[tuple[At, int, int]] = []
        self.thresholds: dict[At, int] = {}
        for sm, queue in enumerate(kernel.queues):
            for n, event in enumerate(queue):
                if event[0] == "run":
                    self.runs.append(((sm, n), event[1], event[2]))
                elif event[0] == "wait":
                    self.thresholds[sm, n] = kernel.threshold(event)
        self.positions = range(kernel.max_seq - kernel.tokens + 1)
        self.reads = [self._elements(position, "reads") for position in self.positions]
        self.tiles = [self._elements(position, "tiles") for position in self.positions]
        self.writes = [self._elements(position, "writes") for position in self.positions]
        self.tags = [self._tags(position) for position in self.positions]
        self._executions: dict[frozenset[tuple[At, At]], Executions] = {}
        self.problem = self._problem()

    @property
    def rule(self) -> str | None:
        """The rule that is broken, if one is; the first in the order of docs/semantics.md."""
        return re.match(r"[\w-]+", self.problem)[0] if self.problem else None

    def _elements(self, position: int, how: str) -> dict[Element, list[At]]:
        """Who reads each element itself, reads it by its tiles, or writes it; by several boxes, listed once for each."""
        found: dict[Element, list[At]] = {}
        for at, number, i in self.runs:
            family = self.kernel.families[number]
            boxes = family.writes if how == "writes" else [b for b in family.reads if b.streamed == (how == "tiles")]
            for element in itertools.chain.from_iterable(box.elements(i, position) for box in boxes):
                found.setdefault(element, []).append(at)
        return found

    def _tags(self, position: int) -> frozenset[tuple[At, At]] | None:
        """(writer, reader) of tagged words; None if nobody writes a word that somebody waits for."""
        pairs: set[tuple[At, At]] = set()
        for element, readers in self.reads[position].items():
            if self._kind(element) == "scratch tagged":
                writers = self.writes[position].get(element, [])
                if not writers:
                    return None
                pairs.update(itertools.product(writers, readers))
        return frozenset(pairs)

    def _kind(self, element: Element) -> str:
        return self.kernel.buffers[element[0]][0]

    def executions(self, position: int) -> Executions:
        """The complete executions at a position; only who waits for whose tags can differ between positions."""
        tags = self.tags[position]
        assert tags is not None
        if tags not in self._executions:
            loaded = [at for at, family, _ in self.runs if self.kernel.families[family].streams_state]
            self._executions[tags] = Executions(self.kernel.queues, self.thresholds, tags, loaded)
        return self._executions[tags]

    def _problem(self) -> str | None:
        kernel = self.kernel
        expected = Counter((f, i) for f, family in enumerate(kernel.families) for i in range(family.extent))
        if Counter((f, i) for _, f, i in self.runs) != expected:
            return "tasks"
        for sm, fetches in enumerate(kernel.fetches):
            if fetches != [(f, i) for at, f, i in self.runs if at[0] == sm and kernel.families[f].streams]:
                return f"stream: SM {sm}"
        for position in self.positions:
            if problem := self._written_twice(position, tagged=True):
                return f"{problem} at {position}"
        if (position := self.deadlock()) is not None:
            return f"deadlock at {position}"
        written = self._written_before()
        for position in self.positions:
            problem = self._written_twice(position, tagged=False) or self._unwritten_output(position)
            if problem := problem or self._order(position, written[position]):
                return f"{problem} at {position}"
        return None

    def deadlock(self) -> int | None:
        """A position at which not every event completes; by a greedy run, and z3 has to agree."""
        outcomes: dict[frozenset[tuple[At, At]], bool] = {}
        for position in self.positions:
            tags = self.tags[position]
            if tags is None:
                return position
            if tags not in outcomes:
                order = self._greedy(tags)
                outcomes[tags] = len(order) == sum(map(len, self.kernel.queues))
                executions = self.executions(position)
                if not (executions.allows(order) if outcomes[tags] else not executions.possible()):
                    raise AssertionError("the greedy run and z3 disagree on whether the schedule can complete")
            if not outcomes[tags]:
                return position
        return None

    def _greedy(self, tags: frozenset[tuple[At, At]]) -> list[At]:
        """The events that complete, in an order: moves any SM that can move until none can."""
        queues, done = self.kernel.queues, [0] * len(self.kernel.queues)
        order: list[At] = []
        value: Counter[int] = Counter()
        writers: dict[At, list[At]] = {}
        for writer, reader in tags:
            writers.setdefault(reader, []).append(writer)
        moved = True
        while moved:
            moved = False
            for sm, queue in enumerate(queues):
                while done[sm] < len(queue):
                    event = queue[done[sm]]
                    if event[0] == "wait" and value[event[1]] < self.thresholds[sm, done[sm]]:
                        break
                    if any(done[w[0]] <= w[1] for w in writers.get((sm, done[sm]), ())):
                        break
                    if event[0] == "signal":
                        value[event[1]] += 1
                    order.append((sm, done[sm]))
                    done[sm] += 1
                    moved = True
        return order

    def _written_before(self) -> list[set[Element]]:
        """State elements that every sequence of earlier steps has written, for each position of a step.

        The greatest solution of: nothing before position 0 (it may be the first step), and before a step at p what
        every possible previous step q >= p - tokens wrote or found.
        """
        state = [{e for e in writes if self._kind(e) == "state"} for writes in self.writes]
        everything = set().union(*state)
        before = [set() if p == 0 else set(everything) for p in self.positions]
        changed = True
        while changed:
            changed = False
            for p in self.positions[1:]:
                for q in self.positions[max(0, p - self.kernel.tokens) :]:
                    kept = before[p] & (before[q] | state[q])
                    changed |= kept != before[p]
                    before[p] = kept
        return before

    def _written_twice(self, position: int, tagged: bool) -> str | None:
        """An element, other than of state, that two tasks write, or one twice. A tagged one comes before all else: its
        reader waits for one write, and nothing says which."""
        for element, writers in self.writes[position].items():
            kind = self._kind(element)
            if kind != "state" and (kind == "scratch tagged") == tagged and len(writers) > 1:
                return f"written-once: {element} by {writers}"
        return None

    def _unwritten_output(self, position: int) -> str | None:
        for name, (kind, shape) in self.kernel.buffers.items():
            if kind == "output":
                for index in itertools.product(*map(range, shape)):
                    if (name, index) not in self.writes[position]:
                        return f"coverage: output {name, index}"
        return None

    def _order(self, position: int, before: set[Element]) -> str | None:
        """Rules 5 and 6 for a position; only the first of several elements with the same accesses is looked at."""
        executions = self.executions(position)
        looked: set[tuple] = set()
        for element in {**self.writes[position], **self.reads[position], **self.tiles[position]}:
            writers = self.writes[position].get(element, [])
            readers = self.reads[position].get(element, [])
            streamers = self.tiles[position].get(element, [])
            kind = self._kind(element)
            if kind == "scratch tagged":
                continue
            case = (tuple(writers), tuple(readers), tuple(streamers), kind, element in before)
            if case in looked:
                continue
            looked.add(case)
            for a, b in itertools.combinations(writers, 2):
                if a == b or not (executions.sees(a, b) or executions.sees(b, a)):
                    return f"race: {a} and {b} write {element}"
            for reader in readers:
                covered = element in before
                for writer in writers:
                    if writer == reader:
                        if kind != "state":
                            return f"race: {reader} reads its own {element}"
                    elif executions.sees(writer, reader):
                        covered = True
                    elif kind != "state" or not executions.comes_before(reader, writer):
                        return f"race: {writer} writes and {reader} reads {element}"
                if not covered:
                    return f"coverage: {reader} reads {element}"
            for reader, writer in itertools.product(streamers, writers):
                if not executions.is_loaded_before(reader, writer):  # nor after it: nothing holds the load up
                    return f"race: {writer} writes and {reader} streams {element}"
            if streamers and element not in before:
                return f"coverage: {streamers[0]} streams {element}"
        return None
