"""Edges of a compact kernel, between iterations of its phases: waits and signals in the loops, whatever their length.

An edge between two tasks becomes one between the phases that they belong to, in the iterations in which they run. The
counters for those are planned as `insert-sync` plans them, or taken from the kernel where it has fitting ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import product

import numpy as np
from xdsl.ir import Block, Operation

from ...amk_ir.linear import Linear
from ...dialects import queue, task
from ...dialects.schedule import EventKind, Schedule, place
from ..dependences import BufferUse, Dependences, Instance, Phase
from ..effects import EffectTable
from ..names import NameTable, join_names
from ..sync_plan import plan_counters
from ..verifier.arrays import Ints, distinct
from ..verifier.timeline import Timeline
from .conflicts import Missing
from .edit import Edit


@dataclass
class Sites:
    """What waits and signals may be put around: phases, or runs one by one; and their executions.

    phases, programs: the sites, and the program of each. instances: their executions, in the order of the programs.
    of_event: the instance that every task belongs to, -1 for waits and signals. rank: of every event, the place of its
    instance in its program; for `find_missing`.
    """

    phases: list[Phase] = field(default_factory=list[Phase])
    instances: list[Instance] = field(default_factory=list[Instance])
    of_event: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    rank: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    @staticmethod
    def of(timeline: Timeline, split: bool) -> Sites:
        """The phases of a kernel, and its runs outside phases; if `split`, all runs one by one."""
        schedule = timeline.schedule
        sites, table = Sites(), EffectTable(schedule.kernel)
        numbers: dict[Operation, int] = {}
        ranks: list[int] = []
        sites.of_event = np.full(len(schedule.body), -1, np.int64)
        families = {f.sym_name.data: number for number, f in enumerate(schedule.families)}
        for program in schedule.kernel.programs:
            start = len(sites.instances)
            for op, loops, scope in _unroll(program.body.block, (), {}, split):
                if op not in numbers:
                    numbers[op] = len(sites.phases)
                    sites.phases.append(Phase(op, loops, table.of(op)))
                for run in sites.phases[numbers[op]].runs:
                    family = families[run.family_name]
                    _, tasks = place(run, schedule.families[family], program, scope)
                    sites.of_event[timeline.events[family][tasks]] = len(sites.instances)
                ranks.append(len(sites.instances) - start)
                sites.instances.append(Instance(numbers[op], scope))
        # waits and signals go with the run before them
        known = np.concatenate([np.asarray(ranks, np.int64), [0]])[sites.of_event]
        for sm in range(schedule.num_sms):
            mine = schedule.body.range(sm)
            known[mine.start : mine.stop] = np.maximum.accumulate(known[mine.start : mine.stop])
        sites.rank = known
        return sites


def _unroll(
    block: Block, loops: tuple[task.ForOp, ...], scope: Mapping[str, int], split: bool
) -> Iterator[tuple[queue.PhaseOp | queue.RunOp, tuple[task.ForOp, ...], Mapping[str, int]]]:
    for op in block.ops:
        match op:
            case task.ForOp():
                for value in op.range:
                    yield from _unroll(op.body.block, (*loops, op), {**scope, op.index.data: value}, split)
            case queue.PhaseOp() if split:
                yield from ((run, loops, scope) for run in op.runs)
            case queue.PhaseOp() | queue.RunOp():
                yield op, loops, scope
            case _:
                pass


def plan_phases(missing: Missing, sites: Sites) -> Edit | None:
    """Waits and signals that order all missing edges of a kernel with loops and phases; None if none around `sites` do.

    Raises:
        PassFailedException: iterations depend on each other in a way that no counter of `insert-sync` expresses.
    """
    first, then = sites.of_event[missing.first], sites.of_event[missing.then]
    if (first == then).any():
        return None  # tasks of one phase
    order = _sorted(missing.timeline.schedule, sites, first, then)
    if order is None:
        return None
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    # from here on instances are numbered in the order that the edges follow
    instances = [sites.instances[i] for i in order.tolist()]
    of_event = np.where(sites.of_event < 0, -1, number[sites.of_event])
    edit = Edit(missing.timeline.schedule.kernel)
    left = _Present(missing, sites.phases, instances, of_event).take(edit)
    _plan_new(missing, left, of_event, Dependences(sites.phases, instances), edit)
    return edit


def _sorted(schedule: Schedule, sites: Sites, first: Ints, then: Ints) -> Ints | None:
    """The instances in an order that follows the edges and every SM's queue; None if there is none."""
    runs = np.flatnonzero(schedule.body.kind == EventKind.RUN)
    mine, sm = sites.of_event[runs], schedule.body.sm[runs]
    next_ = (sm[1:] == sm[:-1]) & (mine[1:] != mine[:-1])
    count = len(sites.instances)
    before, after = np.concatenate([first, mine[:-1][next_]]), np.concatenate([then, mine[1:][next_]])
    edges = distinct(before * count + after)
    later: defaultdict[int, list[int]] = defaultdict(list)
    waiting = np.bincount(edges % count, minlength=count).tolist()
    for edge in edges.tolist():
        later[edge // count].append(edge % count)
    ready = [i for i, count in enumerate(waiting) if count == 0]
    heapify(ready)
    result: list[int] = []
    while ready:
        result.append(i := heappop(ready))
        for j in later[i]:
            waiting[j] -= 1
            if not waiting[j]:
                heappush(ready, j)
    return np.asarray(result, np.int64) if len(result) == len(waiting) else None


def _plan_new(missing: Missing, left: Ints, of_event: Ints, dependences: Dependences, edit: Edit) -> None:
    """Adds new counters for the edges `left` to `edit`."""
    kernel, phases = edit.kernel, dependences.phases
    count = len(dependences.instances)
    for number, name in enumerate(missing.buffers):
        mine = left[missing.buffer[left] == number]
        if len(mine):
            use = dependences.uses[name] = BufferUse(kernel.buffers[name])
            edges = distinct(of_event[missing.first[mine]] * count + of_event[missing.then[mine]])
            use.edges = {(e // count, e % count) for e in edges.tolist()}
            use.is_written_once = bool(missing.flow[mine].all())
    for name, use in dependences.uses.items():
        for a, b in sorted(use.edges):
            writer, reader = dependences.instances[a].phase, dependences.instances[b].phase
            use.writers[writer] = tuple(x for x in phases[writer].effects.writes if x.buffer == name)
            use.readers[reader] = tuple(x for x in phases[reader].effects.reads if x.buffer == name)
    names = NameTable({*kernel.buffers, *kernel.families, *kernel.counters})
    for counter in plan_counters(dependences, dependences.uses.values()):
        name = names.unique(f"{join_names(counter.names)}_done")
        edit.counters.append(queue.CounterOp(name, counter.size))
        edit.waits += [(_start(phases[p]), queue.WaitOp(name, index)) for p, index in counter.waits]
        edit.signals += [(_end(phases[p]), queue.SignalOp(name, index)) for p, index in counter.signals]


def _start(phase: Phase) -> Operation:
    """What the waits of a phase stand before."""
    first = phase.op.body.block.first_op if isinstance(phase.op, queue.PhaseOp) else phase.op
    assert first is not None
    return first


def _end(phase: Phase) -> Operation:
    """What the signals of a phase stand after."""
    last = phase.op.body.block.last_op if isinstance(phase.op, queue.PhaseOp) else phase.op
    assert last is not None
    return last


@dataclass(frozen=True)
class _Present:
    """The counters that the kernel has already: for edges that lack only a wait."""

    missing: Missing
    phases: list[Phase]
    instances: list[Instance]
    of_event: Ints

    def take(self, edit: Edit) -> Ints:
        """Adds waits on present counters to `edit` where they tell of all edges between two phases; the other edges."""
        phase = np.asarray([instance.phase for instance in self.instances])
        writers, readers = (phase[self.of_event[e]] for e in (self.missing.first, self.missing.then))
        pairs = readers * len(self.phases) + writers
        left: list[Ints] = [np.zeros(0, np.int64)]
        added: set[tuple[int, str, Linear]] = set()
        elements = _Elements.of(self.missing)
        for pair in distinct(pairs).tolist():
            edges, reader = np.flatnonzero(pairs == pair), pair // len(self.phases)
            found = self._find(elements, reader, edges)
            if found is None:
                left.append(edges)
            elif (reader, *found) not in added:
                added.add((reader, *found))
                edit.waits.append((_start(self.phases[reader]), queue.WaitOp(*found)))
        return np.concatenate(left)

    def _find(self, elements: _Elements, reader: int, edges: Ints) -> tuple[str, Linear] | None:
        """The counter and the index, linear in the loops, that tells every iteration of `reader` of its edges."""
        place, of_event = self.missing.place, self.of_event
        needs: defaultdict[int, list[int]] = defaultdict(list)
        # of the events of one SM that an instance needs, the last will do
        first, instance = self.missing.first[edges], of_event[self.missing.then[edges]]
        order = np.lexsort((first, self.missing.timeline.sm[first], instance))
        first, instance = first[order], instance[order]
        sm = self.missing.timeline.sm[first]
        last = np.append((sm[1:] != sm[:-1]) | (instance[1:] != instance[:-1]), True)
        for event, number in zip(first[last].tolist(), instance[last].tolist(), strict=True):
            needs[number].append(event)
        mine = np.flatnonzero(np.isin(of_event, [n for n, i in enumerate(self.instances) if i.phase == reader]))
        starts = np.full(len(self.instances), len(place))
        np.minimum.at(starts, of_event[mine], place[mine])
        start: dict[int, int] = {n: int(starts[n]) for n in distinct(of_event[mine]).tolist()}
        example = next(iter(needs))
        scope = self.instances[example].indices
        found: list[tuple[int, str, Linear]] = []
        for name, counter in self.missing.timeline.schedule.kernel.counters.items():
            size, base = counter.size.value.data, elements.base[name]
            told = [e for e in range(size) if elements.tell(base + e, needs[example], start[example])]
            for index in _indices(told, scope, elements.factors[name]):
                values = {n: index.evaluate(self.instances[n].indices) for n in start}
                if all(
                    0 <= values[n] < size and elements.tell(base + values[n], needs.get(n, []), start[n]) for n in start
                ):
                    found.append((sum(int(elements.complete[base + v]) for v in values.values()), name, index))
        return min(found, key=lambda f: f[0])[1:] if found else None


def _indices(elements: list[int], scope: Mapping[str, int], factors: set[int]) -> Iterator[Linear]:
    """Index expressions that are one of `elements` under the loop indices `scope`."""
    for coefficients in product(sorted(factors), repeat=len(scope)):
        terms = dict(zip(scope, coefficients, strict=True))
        for element in elements:
            yield Linear.make(terms, element - sum(c * scope[n] for n, c in terms.items()))


@dataclass(frozen=True)
class _Elements:
    """The elements of all counters. base: number of a counter's first element. factors: of loops in its indices.

    complete: the place of the last signal of each, -1 without signals. last: by element and SM, the last signal.
    """

    missing: Missing
    base: dict[str, int]
    factors: dict[str, set[int]]
    complete: Ints
    last: dict[tuple[int, int], int]

    @staticmethod
    def of(missing: Missing) -> _Elements:
        schedule = missing.timeline.schedule
        body, kernel = schedule.body, schedule.kernel
        base: dict[str, int] = {}
        for number, (name, _) in enumerate(schedule.counters):
            base.setdefault(name, number)
        factors = {name: {0, 1} for name in kernel.counters}
        for op in kernel.walk():
            if isinstance(op, queue.SignalOp | queue.WaitOp):
                factors[op.counter_name] |= {c for _, c in op.index.data.terms}
        signals = np.flatnonzero(body.kind == EventKind.SIGNAL)
        complete = np.full(len(schedule.counters), -1, np.int64)
        np.maximum.at(complete, body.ref[signals], missing.place[signals])
        sms = missing.timeline.sm[signals].tolist()
        last = dict(zip(zip(body.ref[signals].tolist(), sms, strict=True), signals.tolist(), strict=True))
        return _Elements(missing, base, factors, complete, last)

    def tell(self, element: int, events: list[int], start: int) -> bool:
        """Whether a wait for all signals, at place `start`, is possible and tells of all `events`."""
        sm = self.missing.timeline.sm
        return self.complete[element] < start and all(self.last.get((element, int(sm[e])), -1) > e for e in events)
